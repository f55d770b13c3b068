"""What many tests train: small random trees, a step that is compiled once for each optimizer, and which groups live."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax


def normal_tree(shapes, dtype=jnp.float32, seed=0):
    """Normal entries in a tree of shapes; dicts are filled in their own order."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), dtype), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def apply_step(optimizer, grads, state, params, **extra_args):
    """(params, state) after a step."""
    updates, state = optimizer.update(grads, state, params, **extra_args)
    return optax.apply_updates(params, updates), state


@functools.partial(jax.jit, static_argnums=(0, 1))
def step(optimizer, gradient, params, state):
    """(params, state) after a step; the program of a training that returns to Python after each."""
    return apply_step(optimizer, gradient(params), state, params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def advance(optimizer, gradient, params, state, num_steps):
    """(params, state) after some steps; one program, whatever their number."""

    def body(_, carry):
        params, state = carry
        return apply_step(optimizer, gradient(params), state, params)

    return jax.lax.fori_loop(0, num_steps, body, (params, state))


def train(optimizer, gradient, params, num_steps):
    return advance(optimizer, gradient, params, optimizer.init(params), num_steps)


def train_step_by_step(optimizer, gradient, params, num_steps):
    """As `train`, in as many calls of `step`: also for a state that changes its structure, as some of Optax's do."""
    state = optimizer.init(params)
    for _ in range(num_steps):
        params, state = step(optimizer, gradient, params, state)
    return params, state


def alive(leaf, axis=0):
    """Which slices along an axis are not zero, as a list."""
    leaf = np.asarray(leaf)
    return (leaf != 0).any(axis=tuple(a for a in range(leaf.ndim) if a != axis % leaf.ndim)).tolist()
