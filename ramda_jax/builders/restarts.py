"""Stages: the steps at which dual averaging restarts from the current parameters, and the anchor it starts from."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.numerics import copy
from ramda_jax.typing import Tree, TreeT


def starts_stage(step: jax.Array, restarts: Sequence[int]) -> jax.Array:
    """Whether the step number `step` (0-based, traced) is the first one after a stage's end.

    `restarts` are 1-based counts of steps after which a stage ends, so that the 0-based step of that number is the
    first of the next stage. The sums are reset then, and not when the stage ends: so the state still has the finished
    stage's model after its last step.
    """
    return jnp.any(step == jnp.asarray(restarts, dtype=step.dtype))


def reset(is_reset: jax.Array | None, value: TreeT, fresh: Tree) -> TreeT:
    """`fresh` if `is_reset`, else `value`, leaf by leaf in the dtypes of `value`; an `is_reset` of None means never."""
    if is_reset is None:
        return value
    return jax.tree.map(lambda v, f: jnp.where(is_reset, jnp.asarray(f, v.dtype), v), value, fresh)


def first_anchor(params: Tree, dtype: np.dtype | None) -> Tree:
    """W_0 of the first stage: a copy of the parameters, in `dtype` where that has fewer bytes."""

    def narrowed(p):
        return p if dtype is None or dtype.itemsize >= p.dtype.itemsize else p.astype(dtype)

    return jax.tree.map(narrowed, copy(params))
