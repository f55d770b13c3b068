"""A net that is wider than it must be: how margins spread, and which groups differ between runs."""

import itertools

import jax.numpy as jnp
import numpy as np

import ramda_jax
from benchmarks.beyond import tasks
from benchmarks.beyond.runs import many, train
from ramda_jax import metrics

WIDTHS, RATE, RUNS = (1, 2, 4), 0.03, 5
#: A zero group whose margin is below this share of its threshold is degenerate.
DEGENERATE = 0.03
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LEAVES = {"dense0/kernel": "inputs", "dense1/kernel": "hidden 1", "dense2/kernel": "hidden 2"}


def part(width, small):
    """A row for each leaf, with the runs from one start and from different ones."""
    task = tasks.mlp(small, width)
    settings = ramda_jax.stages(RATE, total_steps=task.num_steps)
    optimizer = ramda_jax.ramda(regularizer=task.regularizer, strength=task.strength, **settings)

    def run(seeds):
        params, state, watched = train(task, optimizer, *seeds)
        found = metrics.certificate(state, params)
        return {
            "margins": found.margin,
            "norms": found.norms,
            "squares": [jnp.mean(x**2, axis=0) for x in tasks.hidden(params, tasks.digits()[1])],
            "accuracy": task.accuracy(params),
            "late_changes": watched.late,
        }

    same = [(0, batches) for batches in range(RUNS)]
    other = [(seed, seed) for seed in range(1, RUNS)]
    results = many(run, same + other, chunk=3)
    return [_row(task, width, path, results) for path in LEAVES]


def _row(task, width, path, results):
    name, layer = LEAVES[path], path.split("/")[0]
    threshold = task.strength * np.sqrt(task.shapes[layer]["kernel"][1])
    margins = np.stack([one["margins"][path].ravel() for one in results]) / threshold
    norms = np.stack([one["norms"][path].ravel() for one in results])
    zero = norms == 0
    one_start, starts = slice(0, RUNS), [0, *range(RUNS, 2 * RUNS - 1)]
    spread = margins[zero]
    row = {
        "width": width,
        "groups": name,
        "of": zero.shape[1],
        "alive": float((~zero).sum(axis=1).mean()),
        "alive_least": int((~zero).sum(axis=1).min()),
        "alive_most": int((~zero).sum(axis=1).max()),
        "margins": [float(x) for x in np.quantile(spread, QUANTILES)] if spread.size else [],
        "degenerate": 100 * float(np.mean(spread < DEGENERATE)) if spread.size else 0.0,
        "accuracy": float(np.mean([one["accuracy"] for one in results])),
        "late_changes": float(np.mean([one["late_changes"] for one in results])),
    }
    row |= {f"same_start_{key}": value for key, value in _pairs(zero[one_start], margins[one_start]).items()}
    if name != "inputs" and zero.any() and not zero.all():
        squares = np.stack([one["squares"][int(name[-1]) - 1] for one in results])
        row["zero_activity"] = 100 * float(np.sqrt(squares[zero].mean() / squares[~zero].mean()))
    if name == "inputs":  # the units of different starts have no common numbers
        row |= {f"other_start_{key}": value for key, value in _pairs(zero[starts], margins[starts]).items()}
    return row


def _pairs(zero, margins):
    """Over all pairs of runs: how many groups differ, the overlap of those alive, the margins of what differs."""
    differ, overlap, chance, of_those = [], [], [], []
    for a, b in itertools.combinations(range(len(zero)), 2):
        other = zero[a] != zero[b]
        differ.append(np.mean(other))
        alive = ~zero[a], ~zero[b]
        overlap.append(np.sum(alive[0] & alive[1]) / max(np.sum(alive[0] | alive[1]), 1))
        both = alive[0].sum() * alive[1].sum() / len(other)
        chance.append(both / max(alive[0].sum() + alive[1].sum() - both, 1))
        of_those.append(np.where(zero[a], margins[a], margins[b])[other])
    of_those = np.concatenate(of_those)
    return {
        "differ": 100 * float(np.mean(differ)),
        "overlap": float(np.mean(overlap)),
        "chance": float(np.mean(chance)),
        "differing_median_margin": float(np.median(of_those)) if of_those.size else None,
        "differing_degenerate": 100 * float(np.mean(of_those < DEGENERATE)) if of_those.size else None,
    }


def parts(small=False, seeds=None):
    """(name, function from the rows so far to new ones) of each program."""
    del seeds
    for width in WIDTHS[:1] if small else WIDTHS:

        def make(found, width=width):
            del found
            return part(width, small)

        yield f"{width} times as wide", make
