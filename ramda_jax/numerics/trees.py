"""Trees like the parameters."""

import jax
import jax.numpy as jnp

from ramda_jax.numerics.dtypes import sums_dtype
from ramda_jax.typing import Tree, TreeT


def zeros_for_sums(params: Tree) -> Tree:
    """Zeros of the parameters' shapes in the dtype of sums."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=sums_dtype(p.dtype)), params)


def copy(params: TreeT) -> TreeT:
    """A copy of the parameters that shares no buffer with them, so that both can be donated together."""

    def copy_leaf(p):
        # What `jax.eval_shape` returns has no values to copy: zeros have the right type.
        return jnp.zeros_like(p) if isinstance(p, jax.ShapeDtypeStruct) else jnp.copy(p)

    return jax.tree.map(copy_leaf, params)
