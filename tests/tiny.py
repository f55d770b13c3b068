"""Helpers for training in tests: small random trees, steps that are compiled once per optimizer, and nonzero groups."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax


def array(x, dtype=None):
    """`jnp.asarray` of a NumPy array. JAX would compile a conversion for each shape."""
    x = np.asarray(x, dtype)
    return jax.device_put(x.astype(jax.dtypes.canonicalize_dtype(x.dtype)))


def normal_tree(shapes, dtype=jnp.float32, seed=0):
    """A tree of normal random arrays with these shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: array(rng.normal(size=shape), dtype),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def apply_step(optimizer, grads, state, params, **extra_args):
    """(params, state) after a step."""
    updates, state = optimizer.update(grads, state, params, **extra_args)
    return optax.apply_updates(params, updates), state


@functools.partial(jax.jit, static_argnums=(0, 1))
def step(optimizer, gradient, params, state):
    """(params, state) after a step; the program of a training run that returns to Python after each step."""
    return apply_step(optimizer, gradient(params), state, params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def advance(optimizer, gradient, params, state, num_steps):
    """(params, state) after some steps. One program serves any number of steps."""

    def body(_, carry):
        params, state = carry
        return apply_step(optimizer, gradient(params), state, params)

    return jax.lax.fori_loop(0, num_steps, body, (params, state))


def train(optimizer, gradient, params, num_steps):
    return advance(optimizer, gradient, params, optimizer.init(params), num_steps)


def train_step_by_step(optimizer, gradient, params, num_steps):
    """Like `train`, but with a call of `step` for each step, so that the state may change its structure."""
    state = optimizer.init(params)
    for _ in range(num_steps):
        params, state = step(optimizer, gradient, params, state)
    return params, state


def points_and_infos(optimizer, params, gradients):
    """(structured points, parameters, infos of the solver) after each step of a training on these gradients."""
    state, update, found = optimizer.init(params), jax.jit(optimizer.update), []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        found.append((ramda_jax.eval_params(state, params), params, ramda_jax.solver_info(state)))
    return tuple(zip(*jax.tree.map(np.asarray, found), strict=True))


def compiled(function, caplog):
    """What JAX says that it compiles while `function` runs."""
    caplog.clear()
    with jax.log_compiles():
        function()
    return [record.message for record in caplog.records if record.message.startswith("Compiling")]


def alive(leaf, axis=0):
    """A list that says for each slice along an axis whether it is not zero."""
    leaf = np.asarray(leaf)
    return (leaf != 0).any(axis=tuple(a for a in range(leaf.ndim) if a != axis % leaf.ndim)).tolist()
