"""RAMDA from a net that Adam has trained, against RAMDA from scratch, at equal steps."""

import functools
import itertools

import numpy as np

from benchmarks.alternatives.methods import rising_target, staged_ramda
from benchmarks.alternatives.problems import digits
from benchmarks.alternatives.training import Lab
from ramda_jax.phases.ramda_then_hold import FACTOR, late_ends

KEEPS, ADAM_RATE = (0.3, 0.1), 3e-3
#: RAMDA's learning rates.
RATES = (3e-2, 9e-3)
#: The shares of the steps of Adam on the whole net, of RAMDA, and of Adam with the zeros held.
PLANS = {
    "RAMDA": (0.0, 1.0, 0.0),
    "Adam, RAMDA": (0.5, 0.5, 0.0),
    "RAMDA, zeros held": (0.0, 0.5, 0.5),
    "Adam, RAMDA, zeros held": (0.25, 0.25, 0.5),
}


def run(lab, plan, rate, keep, seed):
    """A row. What RAMDA does is that of `stages`, or if zeros are held that of `ramda_then_hold`."""
    groups, (params, batches) = lab.groups, lab.start(seed)
    dense, found, held = (round(share * len(batches)) for share in PLANS[plan])
    if dense:

        def adam():
            return lab.adam(params, batches, 0, dense, ADAM_RATE)[0]

        params = lab.once(("adam", dense, seed), adam)

    def make(rate, keep):
        if held:
            target = rising_target(groups, keep, found)
            staged = {"ends": late_ends(found), "factor": FACTOR}
        else:
            target, staged = groups.target(1 - keep), {}
        return groups.coupling.wrap(staged_ramda(rate, groups.regularizer, target, found, **staged))

    params = lab.found_by((plan, found), make, params, batches[dense:], found, (rate, keep))
    left = groups.count({name: norms > 0 for name, norms in groups.norms(params).items()}) / groups.whole
    alive = groups.trimmed(params, keep)
    if held:
        params, _ = lab.adam(params, batches, dense + found, len(batches), ADAM_RATE, alive, cosine=True)
    zero = 1 - np.mean(np.concatenate(list(alive.values())))
    return {
        "plan": plan,
        "keep": keep,
        "rate": rate,
        "seed": seed,
        "accuracy": lab.problem.score(groups.held(params, alive), "test"),
        "left_before": left,
        "left": groups.count(alive) / groups.whole,
        "zeros": 100 * float(zero),
        "steps": len(batches),
    }


def parts(small=False, seeds=3):
    """(name, function from the rows so far to new ones) of each plan."""
    lab = functools.cache(lambda: Lab(digits(small)))
    for plan, keep in itertools.product(PLANS, KEEPS[:1] if small else KEEPS):

        def make(found, plan=plan, keep=keep):
            del found
            pairs = itertools.product(RATES[:1] if small else RATES, range(seeds))
            return [run(lab(), plan, rate, keep, seed) for rate, seed in pairs]

        yield f"{plan}, {keep:g}", make
