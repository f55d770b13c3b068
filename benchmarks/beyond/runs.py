"""Runs whose rates, averaging and seeds are arrays: one program trains them all, a few at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax
from benchmarks.beyond.tasks import BATCH, digits
from ramda_jax import metrics


class Run(NamedTuple):
    """What differs between runs of one program.

    Attributes:
        rates, averagings: by step.
        start, batches: the seeds of the initial parameters and of the batches.
    """

    rates: Any
    averagings: Any
    start: int
    batches: int


class Watched(NamedTuple):
    """How a support has changed.

    Attributes:
        step: steps taken.
        alive: the support.
        last: the last step at which it changed.
        late: how many groups changed in the last tenth of the run.
    """

    step: jax.Array
    alive: Any
    last: jax.Array
    late: jax.Array

    @classmethod
    def begin(cls, alive):
        """Before the first step."""
        return cls(jnp.zeros([], jnp.int32), alive, jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32))

    def after(self, alive, num_steps):
        """With the support of one more step."""
        changed = metrics.changed_groups(self.alive, alive)
        step = self.step + 1
        late = self.late + jnp.where(step > 0.9 * num_steps, changed, 0)
        return Watched(step, alive, jnp.where(changed > 0, step, self.last), late)


def watch(regularizer, num_steps):
    """Stands between `proximal_point` and `iterate_averaging`, and watches the support of the points it passes on."""

    def init(params):
        return Watched.begin(metrics.support(regularizer, params))

    def update(updates, state, params=None):
        del params
        return updates, state.after(metrics.support(regularizer, updates), num_steps)

    return optax.GradientTransformation(init, update)


def dual_averaging(method, task, run, restarts, solver=None, strength=None):
    """RMDA or RAMDA as a chain, with the support of W_hat watched."""
    builder = {"rmda": ramda_jax.dual_averaging, "ramda": ramda_jax.adaptive_dual_averaging}[method]
    return optax.chain(
        builder(lambda step: run.rates[step], restarts=restarts),
        ramda_jax.proximal_point(task.regularizer, task.strength if strength is None else strength, solver),
        watch(task.regularizer, task.num_steps),
        ramda_jax.iterate_averaging(lambda step: run.averagings[step]),
    )


def train(task, optimizer, start, batches):
    """(parameters, the optimizer's state, `Watched` of W) after all steps."""
    images, _, labels, _ = (jnp.asarray(part) for part in digits())
    params = task.initial(jax.random.key(start))
    key = jax.random.fold_in(jax.random.key(batches), 1)

    def step(number, carry):
        params, state, watched = carry
        batch = jax.random.randint(jax.random.fold_in(key, number), (BATCH,), 0, len(labels))
        grads = jax.grad(task.loss)(params, images[batch], labels[batch])
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return params, state, watched.after(metrics.support(task.regularizer, params), task.num_steps)

    begin = params, optimizer.init(params), Watched.begin(metrics.support(task.regularizer, params))
    return jax.lax.fori_loop(0, task.num_steps, step, begin)


def zero_share(alive):
    """The share of groups that are zero, in percent."""
    return 100 * jnp.mean(~jnp.concatenate([leaf.ravel() for leaf in alive.values()]))


def numbers(task, params, state, watched):
    """What the tables say of a run of `dual_averaging`."""
    seen = state[2]
    return {
        "accuracy": task.accuracy(params),
        "objective": task.objective(params),
        "zeros": zero_share(watched.alive),
        "zeros_hat": zero_share(seen.alive),
        "last_change": watched.last,
        "last_change_hat": seen.last,
        "late_changes_hat": seen.late,
        "alive_hat": seen.alive,
    }


def many(function, runs, chunk=8):
    """`function` of each of the runs, `chunk` at a time in one compiled program; NumPy arrays, by run."""
    program = jax.jit(jax.vmap(function))
    padded = [*runs, *[runs[-1]] * (-len(runs) % chunk)]
    found = []
    for first in range(0, len(padded), chunk):
        stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *padded[first : first + chunk])
        result = jax.tree.map(np.asarray, program(stacked))
        found += [jax.tree.map(lambda leaf, at=at: leaf[at], result) for at in range(chunk)]
    return found[: len(runs)]
