"""Tuning and running: all methods have the same budget, and all small nets are measured alike."""

import time

import jax
import numpy as np

from benchmarks.alternatives.methods import METHODS, Choice

#: The seeds for tuning, and the share at which rate and split are tuned. Each seed has its own division of the images.
#: There are twelve, because seeds differ more than rates; a problem may have fewer.
TUNING_SEEDS, TUNING_KEEP = tuple(range(100, 112)), 0.15
#: The rates of Adam, and the multiples of it for RAMDA, that `check_rates` tries.
CHECKED_RATES, CHECKED_RATIOS = (1e-3, 3e-3, 1e-2), (1.0, 3.0, 10.0, 30.0)
SCRATCH, DENSE, HELD = "small from scratch", "dense", "RAMDA, zeros held"


def run(lab, name, keep, choice, seed, part, shapes=None):
    """(row, shapes): a run's size and score on a part of the data, and the shapes of the small net."""
    problem, groups = lab.problem, lab.groups
    begin = time.perf_counter()
    params, batches = lab.start(seed)
    steps, trimmed = len(batches), 0
    if name in (DENSE, SCRATCH):
        params = params if name == DENSE else problem.initial(jax.random.key(seed), shapes)
        params, _ = lab.adam(params, batches, 0, steps, choice.rate, cosine=True)
        small = params
    else:
        find_steps = round(choice.split * steps)
        params, alive = METHODS[name].find(lab, keep, choice, seed, find_steps)
        norms = groups.norms(params)
        trimmed = sum(int(((norms[width] > 0) & ~one).sum()) for width, one in alive.items())
        if find_steps < steps:
            params, _ = lab.adam(params, batches, find_steps, steps, choice.rate, alive, cosine=True)
        params = groups.held(params, alive)
        small = groups.small(params, alive)
    shapes = jax.tree.map(np.shape, small)
    row = {
        "method": name,
        "keep": keep,
        "seed": seed,
        "rate": choice.rate,
        "split": choice.split,
        "own": choice.own,
        "score": problem.score(params, part),
        "left": sum(leaf.size for leaf in jax.tree.leaves(small)) / groups.whole,
        "flops_left": _flops(lab, small) / _flops(lab, lab.start(0)[0]),
        "trimmed_groups": trimmed,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    return row, shapes


def _flops(lab, small):
    return lab.once(("flops", str(jax.tree.map(np.shape, small))), lambda: lab.groups.flops(small))


def uniform_shapes(lab, keep):
    """The shapes of a net in which all layers keep the same share of their units."""
    params, _ = lab.start(0)
    small = lab.groups.small(params, lab.groups.best(lab.groups.by_size(params), keep, "layer"))
    return jax.tree.map(np.shape, small)


def first_choice(name):
    """The first values of a method's settings."""
    method = METHODS.get(name)
    return (
        Choice(METHODS[HELD].rates[0], 0.0)
        if method is None
        else Choice(method.rates[0], method.splits[0], method.owns[0])
    )


def tune(lab, name, keeps, log):
    """The choice for each of `keeps`. The method's own number, the rate and the split are tuned at one size, in this
    order, and at last the own number at each size.

    The criterion is the mean score on the tuning part of the data, over seeds that are not reported.
    """
    whole, method = lab.problem, METHODS.get(name)
    rates = METHODS[HELD].rates if method is None else method.rates
    splits, owns = ((0.0,), (0.0,)) if method is None else (method.splits, method.owns)
    shapes = uniform_shapes(lab, TUNING_KEEP) if name == SCRATCH else None
    seen = {}

    def score(keep, choice):
        if (keep, choice) not in seen:
            rows = []
            for seed in TUNING_SEEDS[: whole.divisions]:
                lab.problem = whole.divided(seed)
                rows.append(run(lab, name, keep, choice, seed, "val", shapes)[0])
                log(rows[-1] | {"tuning": True})
            lab.problem = whole
            seen[keep, choice] = np.mean([row["score"] for row in rows])
        return seen[keep, choice]

    best = first_choice(name)
    size = 1.0 if name == DENSE else TUNING_KEEP
    for field, values in (("own", owns), ("rate", rates), ("split", splits)):
        if len(values) > 1:
            best = max((best._replace(**{field: value}) for value in values), key=lambda choice: score(size, choice))
    return {
        keep: max((best._replace(own=own) for own in owns), key=lambda choice: score(keep, choice))
        if len(owns) > 1
        else best
        for keep in keeps
    }


def check_rates(lab, log):
    """Scores rates on the tuning part: Adam's by gradual pruning, then RAMDA's as multiples of the best of these."""
    whole, seed, score = lab.problem, TUNING_SEEDS[0], {}

    def scored(name, rate):
        ratio = {"ratio": lab.problem.ratio} if name == HELD else {}
        row, _ = run(lab, name, TUNING_KEEP, Choice(rate, 0.5), seed, "val")
        log(row | ratio | {"tuning": True, "check": True})
        return row["score"]

    for rate in CHECKED_RATES:
        score[rate] = scored("gradual, by layer", rate)
    for ratio in CHECKED_RATIOS:
        lab.problem = whole._replace(ratio=ratio)
        scored(HELD, max(score, key=score.__getitem__))
    lab.problem = whole
