"""Logistic regression on scikit-learn's digits: its minimiser, and runs that are compared with it at every step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax
from benchmarks.certificate_problems import digits
from benchmarks.logistic import Problem, solve

SAMPLES, BATCH, EVERY = 1792, 32, 56  # 56 batches make a pass; measures that cost a pass are taken once a pass
STRENGTH, RIDGE = 5e-3, 1e-2
LASSO = ramda_jax.GroupLasso("input")


class Setting(NamedTuple):
    """The problem on the device, and its minimiser, which was computed in NumPy."""

    problem: Problem
    kernel: np.ndarray
    bias: np.ndarray
    inputs: jax.Array
    labels: jax.Array

    @property
    def slope(self):
        """The gradient of the smooth part at the minimiser, by the kernel."""
        return self.problem.gradient(self.kernel, self.bias)[0]

    @property
    def params(self):
        return {"kernel": jnp.asarray(self.kernel, jnp.float32), "bias": jnp.asarray(self.bias, jnp.float32)}

    def loss(self, params, samples=slice(None)):
        logits = self.inputs[samples] @ params["kernel"] + params["bias"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, self.labels[samples])
        return losses.mean() + 0.5 * RIDGE * jnp.sum(params["kernel"] ** 2)


def setting():
    """The problem, solved."""
    inputs, labels = (np.asarray(array)[:SAMPLES] for array in digits())
    problem = Problem(inputs.astype(np.float64), np.eye(10)[labels], STRENGTH * np.sqrt(10), RIDGE)
    return Setting(problem, *solve(problem, 1000), jnp.asarray(inputs), jnp.asarray(labels))


class Seen(NamedTuple):
    """Measures of a window of steps; the first axis of arrays is the seeds.

    Attributes:
        flips: how often a group of W_hat became zero or nonzero.
        zero: in how many steps it was zero.
        away, iterate_away: sums of the squared differences of the radii of W_hat and W from the minimiser's.
        sideways: the same for W_hat across the minimiser's direction.
        right: the number of steps in which exactly the minimiser's groups were zero.
        slow: the largest `||W_t - W_(t-1)|| alpha_t / s_t`.
        gap, slope_gap: sums over passes of F(W) - F* and of ||grad f(W) - grad f(W*)||^2.
    """

    flips: jax.Array
    zero: jax.Array
    away: jax.Array
    iterate_away: jax.Array
    sideways: jax.Array
    right: jax.Array
    slow: jax.Array
    gap: jax.Array
    slope_gap: jax.Array


def run(given, optimizer, schedule, windows, seeds, start=None, shuffled=False, stage_start=0):
    """Trains and measures. `windows` are the numbers of passes at which windows end; each gives a `Seen` of NumPy
    arrays.

    Returns:
        A list of (Seen, steps in the window, V_t / alpha_t at its end, largest D_t / alpha_t).
    """
    start = jax.tree.map(jnp.zeros_like, given.params) if start is None else start
    best = given.params
    living = jnp.any(best["kernel"] != 0, axis=1)
    norms = jnp.linalg.norm(best["kernel"], axis=1)
    units = best["kernel"] / jnp.where(norms > 0, norms, 1)[:, None]
    smooth, slope = jax.value_and_grad(given.loss)(best)
    lowest = smooth + STRENGTH * LASSO.value(best["kernel"])

    def step(carry, batch):
        params, state, seen = carry
        before = jnp.any(ramda_jax.eval_params(state, params)["kernel"] != 0, axis=1)
        updates, state = optimizer.update(jax.grad(given.loss)(params, batch), state, params)
        new: Any = optax.apply_updates(params, updates)
        hat = ramda_jax.eval_params(state, new)["kernel"]
        alive = jnp.any(hat != 0, axis=1)
        model = state[0]
        step_size = schedule(model.model_step - 1) * jnp.sqrt((model.model_step - stage_start).astype(jnp.float32))
        moved = optax.tree.norm(jax.tree.map(jnp.subtract, new, params))
        radii = jnp.sum(hat * units, axis=1)
        seen = seen._replace(
            flips=seen.flips + (alive != before),
            zero=seen.zero + ~alive,
            away=seen.away + (radii - norms) ** 2,
            iterate_away=seen.iterate_away + (jnp.sum(new["kernel"] * units, axis=1) - norms) ** 2,
            sideways=seen.sideways + jnp.sum((hat - radii[:, None] * units) ** 2, axis=1),
            right=seen.right + jnp.all(alive == living),
            slow=jnp.maximum(seen.slow, moved * model.step_size_sum / step_size),
        )
        return (new, state, seen), None

    def one_pass(carry, key):
        params, state, seen = carry
        smooth, grads = jax.value_and_grad(given.loss)(params)
        away = optax.tree.norm(jax.tree.map(jnp.subtract, grads, slope), squared=True)
        objective = smooth + STRENGTH * LASSO.value(params["kernel"])
        seen = seen._replace(gap=seen.gap + objective - lowest, slope_gap=seen.slope_gap + away)
        if shuffled:
            order = jax.random.permutation(key, SAMPLES).reshape(EVERY, BATCH)
        else:
            order = jax.random.randint(key, (EVERY, BATCH), 0, SAMPLES)
        return jax.lax.scan(step, (params, state, seen), order)[0], None

    def whole(key):
        none, each = jnp.zeros([]), jnp.zeros(len(living))
        empty = Seen(each, each, each, each, each, none, none, none, none)
        carry, found, done = (start, optimizer.init(start), empty), [], 0
        for end in windows:
            keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(done, end))
            (params, state, seen), _ = jax.lax.scan(one_pass, carry, keys)
            model = state[0].quadratic_model()
            average = state[0].grad_sum["kernel"] / state[0].step_size_sum
            anchor = jnp.max(jnp.asarray(jax.tree.leaves(model.metric)[0])) / state[0].step_size_sum
            found.append((seen, average, anchor))
            carry, done = (params, state, empty), end
        return found

    found = jax.jit(jax.vmap(whole))(jax.random.split(jax.random.key(0), seeds))
    lengths = np.diff([0, *windows]) * EVERY
    found = jax.tree.map(np.asarray, found)
    return [(seen, int(length), *rest) for (seen, *rest), length in zip(found, lengths, strict=True)]


def error_of(given, average):
    """The largest error of a zero group's average, in thresholds; one number for each seed."""
    zero = ~np.any(given.kernel != 0, axis=1)
    return np.linalg.norm(average - given.slope, axis=2)[:, zero].max(axis=1) / given.problem.group_weight


def batch_noise(given):
    """E ||N||^2 of a batch at the minimiser."""
    error, _ = given.problem.errors(given.kernel, given.bias)
    squares = np.sum(given.problem.inputs**2, axis=1) + 1
    whole = np.append(given.problem.inputs.T @ error / len(error), [error.mean(axis=0)], axis=0)
    return float((np.mean(np.sum(error**2, axis=1) * squares) - np.sum(whole**2)) / BATCH)


def smoothness(given):
    """A Lipschitz constant of the smooth part's gradient."""
    whole = np.hstack([given.problem.inputs, np.ones((SAMPLES, 1))])
    return float(0.5 * np.linalg.eigvalsh(whole.T @ whole / SAMPLES)[-1] + RIDGE)
