"""Counts the zero groups that become nonzero again, over many runs, and compares with the certificate's bound.

    python -m benchmarks.certificate
    python -m benchmarks.certificate --problems low_rank low_rank_rmda moving_rank    # only the nuclear norm's

For some steps t the table says how many of the zero groups at t are nonzero at a later step of the run, and gives
`bound`. Each problem has 20 seeds, and one program for all seeds: logistic regression and a small convolutional net on
scikit-learn's digits, by RAMDA in one stage; and a case made to break the premise, in which the mean gradient of half
of the groups begins to move in the middle of the run. The nuclear norm has the same on a matrix of low rank, by RAMDA
and by RMDA, and a case made to break it; its groups are singular values.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tabulate import tabulate

import ramda_jax
from benchmarks.certificate_problems import conv_net, logistic, low_rank, moving, moving_rank
from ramda_jax import GroupLasso, NuclearNorm, metrics

SEEDS = 20
#: Bounds are counted in these classes: [0, 0.01], (0.01, 0.05] and so on. Bounds in the last class say nothing.
LEVELS = (0.0, 0.01, 0.05, 0.2, 0.5, 0.999, 1.0)
#: What the nuclear norm's problems are called in the document.
RANKS = {
    "low_rank": "matrix of low rank, RAMDA",
    "low_rank_rmda": "matrix of low rank, RMDA",
    "moving_rank": "made to break it",
}


class Case(NamedTuple):
    """A problem, and how it is solved."""

    problem: Any
    method: str
    regularizer: Any
    strength: float
    learning_rate: float

    def optimizer(self):
        make = getattr(ramda_jax, self.method)
        given = make(self.learning_rate, self.regularizer, strength=self.strength, averaging=0.1)
        return given if self.method == "ramda" else optax.chain(metrics.second_moments(self.regularizer), given)


def cases(num_steps):
    """The problems by name, for runs of that many steps."""
    return {
        "logistic": Case(logistic(), "ramda", GroupLasso("input"), 1e-2, 3e-2),
        "moving": Case(moving(num_steps), "ramda", GroupLasso("input", group_weight=1.0), 1.0, 1e-2),
        "conv_net": Case(conv_net(), "ramda", GroupLasso(-2), 1e-3, 1e-2),
        "low_rank": Case(low_rank(), "ramda", NuclearNorm(), 0.5, 3e-2),
        "low_rank_rmda": Case(low_rank(), "rmda", NuclearNorm(), 0.5, 0.3),
        "moving_rank": Case(moving_rank(num_steps), "ramda", NuclearNorm(), 1.0, 1e-2),
    }


def observe(case, num_steps, times, seeds):
    """For each t of `times`, by seed and group: whether zero, bound with and without drift, drifting, revived after t.

    Returns:
        A list of dicts of arrays [seeds, groups], one for each t.
    """
    init, gradient = case.problem
    optimizer = case.optimizer()

    def flat(leaves):
        return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves.values()])

    def alive(state, params):
        return flat(metrics.support(case.regularizer, ramda_jax.eval_params(state, params)))

    def step(carry, number):
        params, state, key, revived = carry
        key, now = jax.random.split(key)
        updates, state = optimizer.update(gradient(params, now, number), state, params)
        params = optax.apply_updates(params, updates)
        # For each t: whether the group has been nonzero at a later step.
        later = number + 1 > jnp.asarray(times)
        revived = revived | (later[:, None] & alive(state, params)[None])
        return (params, state, key, revived), None

    def run(key):
        key, first = jax.random.split(key)
        params = init(first)
        state = optimizer.init(params)
        groups = alive(state, params).size
        carry = (params, state, key, jnp.zeros((len(times), groups), bool))
        seen, done = [], 0
        for t in times:
            carry, _ = jax.lax.scan(step, carry, jnp.arange(done, t // 2))
            earlier = carry[1]
            carry, _ = jax.lax.scan(step, carry, jnp.arange(t // 2, t))
            done = t
            plain = metrics.certificate(carry[1], carry[0])
            watched = metrics.certificate(carry[1], carry[0], earlier)
            seen.append(
                {
                    "zero": flat(plain.zero),
                    "bound": flat(plain.bound),
                    "bound_with_drift": flat(watched.bound),
                    "drifting": flat(watched.drifting),
                }
            )
        carry, _ = jax.lax.scan(step, carry, jnp.arange(done, num_steps))
        return [found | {"revived": carry[3][i]} for i, found in enumerate(seen)]

    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), seeds))
    return jax.tree.map(np.asarray, found)


def rows_of(name, times, found):
    """A row for each t, and one for each class of bounds over all t."""
    rows = []
    for t, record in zip(times, found, strict=True):
        zero, revived = record["zero"], record["zero"] & record["revived"]
        row = {"problem": name, "t": t, "zero": float(zero.sum(1).mean()), "revived": float(revived.sum(1).mean())}
        row["revived_standard_error"] = float(revived.sum(1).std(ddof=1) / np.sqrt(len(zero)))
        for bound in ("bound", "bound_with_drift"):
            row[f"expected_by_{bound}"] = float(np.sum(record[bound], where=zero, axis=1).mean())
        row["drifting"] = float((zero & record["drifting"]).sum(1).mean())
        row["revived_and_drifting"] = float((revived & record["drifting"]).sum(1).mean())
        rows.append(row)
    return rows


def classes_of(name, found):
    """How often groups with a bound in a class became nonzero again, over all t and seeds."""
    rows = []
    for kind in ("bound", "bound_with_drift"):
        zero = np.concatenate([record["zero"].ravel() for record in found])
        bound = np.concatenate([record[kind].ravel() for record in found])
        revived = np.concatenate([record["revived"].ravel() for record in found])
        for low, high in itertools.pairwise(LEVELS):
            here = zero & ((bound > low) | (low == 0)) & (bound <= high)
            if here.any():
                rows.append(
                    {
                        "problem": name,
                        "kind": kind,
                        "above": low,
                        "to": high,
                        "groups": int(here.sum()),
                        "mean_bound": float(bound[here].mean()),
                        "revived": float(revived[here].mean()),
                    }
                )
    return rows


def main(argv=None):
    """Runs the problems, prints the tables, and writes them."""
    parser = argparse.ArgumentParser(description="Revivals observed beside the certificate's bound.")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"default: {SEEDS}")
    parser.add_argument("--small", action="store_true", help="only shows that it runs")
    parser.add_argument("--problems", nargs="+", choices=[*cases(1)], help="default: all of them")
    parser.add_argument("--json", type=Path, help="also write the rows to this file, beside those of other problems")
    args = parser.parse_args(argv)
    seeds, num_steps = (3, 640) if args.small else (args.seeds, 4000)
    times = tuple(num_steps * share // 16 for share in (1, 2, 4, 8))
    given = cases(num_steps)
    names = args.problems or [name for name in given if not (args.small and name == "conv_net")]
    rows, classes = [], []
    for name in names:
        start = time.perf_counter()
        found = observe(given[name], num_steps, times, seeds)
        rows += rows_of(name, times, found)
        classes += classes_of(name, found)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(f"Groups a run, {seeds} seeds, {num_steps} steps:\n" + tabulate(rows, headers="keys", floatfmt=".3g"))
    print("\nBy what the bound said:\n" + tabulate(classes, headers="keys", floatfmt=".3g"))
    print("\nThe nuclear norm:\n" + markdown(rows))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        # Rows of problems that were not run stay.
        old = json.loads(args.json.read_text()) if args.json.exists() else {}
        found = {
            kind: [row for row in old.get(kind, []) if row["problem"] not in names] + new
            for kind, new in (("by_step", rows), ("by_bound", classes))
        }
        args.json.write_text(json.dumps(found, indent=1) + "\n")


def markdown(rows):
    """The nuclear norm's table of docs/certificate.md."""
    lines = [
        "| problem | t | zero | revived | sum of bounds | with drift | drifting |",
        "|---|---|---|---|---|---|---|",
    ]
    last = None
    for row in rows:
        name = row["problem"]
        if name not in RANKS:
            continue
        sums = (f"{row[f'expected_by_{kind}']:.3g}" for kind in ("bound", "bound_with_drift"))
        revived = f"{row['revived']:.2f} ± {row['revived_standard_error']:.2f}"
        cells = (RANKS[name] if name != last else "", row["t"], f"{row['zero']:.1f}", revived, *sums)
        lines.append(f"| {' | '.join(map(str, cells))} | {row['drifting']:.1f} |".replace("|  |", "| |"))
        last = name
    return "\n".join(lines)


if __name__ == "__main__":
    main()
