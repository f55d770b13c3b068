"""Stages: the step at which dual averaging starts anew from where it is."""

import jax
import jax.numpy as jnp

from ramda_jax.numerics import sums_dtype


def starts_stage(step, restarts):
    """Whether the step number `step` (0-based, traced) is the first one after a stage's end.

    `restarts` are 1-based counts of steps after which a stage ends, so the 0-based step of that number
    is the first of the next stage. Resetting then, and not when the stage ends, keeps the finished
    stage's model readable in the state.
    """
    return jnp.any(step == jnp.asarray(restarts, dtype=step.dtype))


def reset(is_reset, value, fresh):
    """`fresh` where `is_reset`, else `value`, leaf by leaf in value's dtypes; None for never."""
    if is_reset is None:
        return value
    return jax.tree.map(lambda v, f: jnp.where(is_reset, jnp.asarray(f, v.dtype), v), value, fresh)


def zeros_for_sums(params):
    """Zeros of the parameters' shapes in the dtype of sums."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=sums_dtype(p.dtype)), params)


def copy(params):
    """A copy of the parameters that shares no buffer with them, so that both can be donated together."""

    def copy_leaf(p):
        # What `jax.eval_shape` returns has no values to copy: zeros have the right type.
        return jnp.zeros_like(p) if isinstance(p, jax.ShapeDtypeStruct) else jnp.copy(p)

    return jax.tree.map(copy_leaf, params)
