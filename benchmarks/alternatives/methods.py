"""The methods: how each finds the groups that stay, and its settings to tune."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax
from ramda_jax.phases.ramda_then_hold import FACTOR, RISE, late_ends, rising


class Choice(NamedTuple):
    """The tuned settings.

    Attributes:
        rate: Adam's learning rate; RAMDA has `Problem.ratio` times as much, or `own` of this.
        split: the share of the steps in which the method finds the groups. The other steps train the remaining groups.
        own: a number that only this method has: the strength of a penalty, or a share of RAMDA's usual learning rate.
    """

    rate: float
    split: float
    own: float = 0.0


class Method(NamedTuple):
    """A method.

    Attributes:
        find: a function from (lab, keep, choice, seed, number of steps) to (parameters, masks of the groups that stay
            by width).
        splits, rates, owns: the values to try; untuned runs use the first.
    """

    find: Callable[..., Any]
    splits: tuple[float, ...] = (0.5, 0.25)
    rates: tuple[float, ...] = (3e-3, 1e-3, 6e-3)
    owns: tuple[float, ...] = (0.0,)


#: The number of times that gradual pruning prunes.
TIMES = 10
#: The number of factors of a gate, including the vector.
DEPTH = 3
STRENGTHS = (1e-4, 3e-5, 3e-4)
SLOWER = (1.0, 0.5, 0.25)


def staged_ramda(rate, regularizer, strength, num_steps, **staged):
    """RAMDA with the learning rate `rate` and stages over `num_steps` steps; `ends` and `factor` are as in `stages`."""
    settings: Any = dict(ramda_jax.stages(1.0, total_steps=num_steps, **staged))
    shape = settings["learning_rate"]
    settings["learning_rate"] = lambda step: rate * shape(step)
    return ramda_jax.ramda(regularizer=regularizer, strength=strength, **settings)


def rising_target(groups, keep, num_steps, rise=RISE):
    """A rising target that is followed to the end and met there, as in `ramda_then_hold`."""
    last = num_steps - 1
    return groups.target(rising(1 - keep, rise * num_steps), hold=last, exact_at=last, total_steps=num_steps)


def ramda_alone(lab, keep, choice, seed, num_steps):
    """RAMDA in stages with a target for the parameters, for all steps."""
    groups = lab.groups

    def make(rate, keep):
        return groups.coupling.wrap(staged_ramda(rate, groups.regularizer, groups.target(1 - keep), num_steps))

    numbers = lab.problem.ratio * choice.rate, keep
    params = lab.found_by(("ramda", num_steps), make, *lab.start(seed), num_steps, numbers)
    return params, groups.trimmed(params, keep)


def ramda_held(lab, keep, choice, seed, num_steps):
    """RAMDA as in the first phase of `ramda_then_hold`."""
    groups = lab.groups

    def make(rate, keep):
        target = rising_target(groups, keep, num_steps)
        staged = {"ends": late_ends(num_steps), "factor": FACTOR}
        return groups.coupling.wrap(staged_ramda(rate, groups.regularizer, target, num_steps, **staged))

    numbers = (choice.own or 1.0) * lab.problem.ratio * choice.rate, keep
    params = lab.found_by(("ramda, held", num_steps), make, *lab.start(seed), num_steps, numbers)
    return params, groups.trimmed(params, keep)


def _prox_adamw(is_held):
    def find(lab, keep, choice, seed, num_steps):
        groups = lab.groups

        def make(rate, keep):
            held = rising_target(groups, keep, num_steps)
            target = held if is_held else groups.target(1 - keep, total_steps=num_steps)
            cosine = optax.cosine_decay_schedule(1.0, num_steps)
            method = ramda_jax.prox_adamw(lambda step: rate * cosine(step), groups.regularizer, target)
            return groups.coupling.wrap(method)

        name = "prox", is_held, num_steps
        params = lab.found_by(name, make, *lab.start(seed), num_steps, (choice.rate, keep))
        return params, groups.trimmed(params, keep)

    return find


def hard(lab, keep, choice, seed, num_steps):
    """RAMDA in one stage, with a rising hard target: the same share of each width."""
    groups = lab.groups
    params, batches = lab.start(seed)
    best = groups.best(groups.by_size(params), keep, "layer")

    def make(rate, *zeros):
        regularizers = {
            f"^coupled/{name}$": ramda_jax.TopGroups(rising(share, RISE * num_steps), groups=0)
            for name, share in zip(best, zeros, strict=True)
        }
        # A hard target has no weights.
        coupling = dataclasses.replace(groups.coupling, weights=None)
        return coupling.wrap(staged_ramda(rate, coupling.regularizer(regularizers), 1.0, num_steps, ends=()))

    # The number of zeros is rounded up, so make the share a little smaller. Then float32 gives the intended number.
    numbers = lab.problem.ratio * choice.rate, *(max(1 - np.mean(one) - 1e-3, 0.0) for one in best.values())
    params = lab.found_by(("hard", num_steps), make, params, batches, num_steps, numbers)
    return params, groups.trimmed(params, keep)


def one_shot(over):
    """Adam on the whole net. Then the groups with the smallest root mean square are removed."""

    def find(lab, keep, choice, seed, num_steps):
        def run():
            return lab.adam(*lab.start(seed), 0, num_steps, choice.rate)[0]

        params = lab.once(("dense", seed, choice.rate, num_steps), run)
        return params, lab.groups.best(lab.groups.by_size(params), keep, over)

    return find


def gradual(over):
    """The same in ten parts with the cubic schedule of Zhu and Gupta (2017). Removed groups stay zero."""

    def find(lab, keep, choice, seed, num_steps):
        groups = lab.groups
        params, batches = lab.start(seed)
        state = alive = None
        for part in range(TIMES):
            first, stop = part * num_steps // TIMES, (part + 1) * num_steps // TIMES
            params, state = lab.adam(params, batches, first, stop, choice.rate, alive, state=state)
            left = keep + (1 - keep) * (1 - (part + 1) / TIMES) ** 3
            alive = groups.best(groups.by_size(params), left, over)
        return params, alive

    return find


def _weights(coupling):
    return {name: jnp.asarray(weight, jnp.float32) for name, weight in coupling.weights.items()}


def penalty(lab, keep, choice, seed, num_steps):
    """Adam with the group LASSO in the loss. Then the groups with the smallest norm over weight are removed."""
    groups, coupling = lab.groups, lab.groups.coupling
    weights = _weights(coupling)

    def extra(numbers, params):
        _, strength = numbers
        packed = coupling.pack(params)["coupled"]
        norms = {name: jnp.sqrt(jnp.sum(leaf**2, 1) + 1e-12) for name, leaf in packed.items()}
        return strength * sum(weights[name] @ one for name, one in norms.items())

    def run():
        numbers = choice.rate, choice.own
        return lab.found_by(
            "penalty", lambda rate, _: optax.adam(rate), *lab.start(seed), num_steps, numbers, extra=extra
        )

    params = lab.once(("penalty", seed, num_steps, choice.rate, choice.own), run)
    return params, groups.best(groups.by_saving(params), keep, "all")


def gates(lab, keep, choice, seed, num_steps):
    """D-Gating: a group is a vector times scalars, and the loss has the squares of both. Then as in `penalty`."""
    groups, coupling = lab.groups, lab.groups.coupling
    weights = _weights(coupling)
    params, batches = lab.start(seed)

    def view(trained):
        gate = {name: jnp.prod(one, 1, keepdims=True) for name, one in trained["gates"].items()}
        coupled = {name: leaf * gate[name] for name, leaf in trained["coupled"].items()}
        return coupling.unpack({"coupled": coupled, "rest": trained["rest"]}, params)

    def extra(numbers, trained):
        _, strength = numbers
        squares = {
            name: jnp.sum(leaf**2, 1) + jnp.sum(trained["gates"][name] ** 2, 1)
            for name, leaf in trained["coupled"].items()
        }
        return strength / DEPTH * sum(weights[name] @ one for name, one in squares.items())

    def run():
        packed = coupling.pack(params)
        packed["gates"] = {name: jnp.ones((len(leaf), DEPTH - 1)) for name, leaf in packed["coupled"].items()}
        numbers = choice.rate, choice.own
        found = lab.found_by(
            "gates", lambda rate, _: optax.adam(rate), packed, batches, num_steps, numbers, extra=extra, view=view
        )
        return view(found)

    found = lab.once(("gates", seed, num_steps, choice.rate, choice.own), run)
    return found, groups.best(groups.by_saving(found), keep, "all")


METHODS = {
    "RAMDA, zeros held": Method(ramda_held, owns=SLOWER),
    "magnitude, by layer": Method(one_shot("layer")),
    "magnitude, all": Method(one_shot("all")),
    "penalty": Method(penalty, owns=STRENGTHS),
    "D-Gating": Method(gates, owns=STRENGTHS),
    "ProxAdamW, zeros held": Method(_prox_adamw(True)),
    "hard target, zeros held": Method(hard),
    "gradual, by layer": Method(gradual("layer")),
    "gradual, all": Method(gradual("all")),
    "RAMDA in stages, zeros held": Method(ramda_alone),
    "RAMDA": Method(ramda_alone, splits=(1.0,)),
    "ProxAdamW": Method(_prox_adamw(False), splits=(1.0,)),
}
