"""Stages: the steps at which dual averaging starts again from where it is."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ramda_jax.typing import Tree, TreeT


def starts_stage(step: jax.Array, restarts: Sequence[int]) -> jax.Array:
    """Whether the step number `step` (0-based, traced) is the first one after a stage's end.

    `restarts` are 1-based counts of steps after which a stage ends, so the 0-based step of that number
    is the first of the next stage. Resetting then, and not when the stage ends, keeps the finished
    stage's model readable in the state.
    """
    return jnp.any(step == jnp.asarray(restarts, dtype=step.dtype))


def reset(is_reset: jax.Array | None, value: TreeT, fresh: Tree) -> TreeT:
    """`fresh` where `is_reset`, else `value`, leaf by leaf in value's dtypes; None for never."""
    if is_reset is None:
        return value
    return jax.tree.map(lambda v, f: jnp.where(is_reset, jnp.asarray(f, v.dtype), v), value, fresh)
