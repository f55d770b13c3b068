"""A matrix as two factors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.structure.paths import named_leaves
from ramda_jax.typing import Tree


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Factored:
    """A matrix `left @ right` of which only the factors are held; `x @ matrix` and `matrix @ x` are two thin products.

    Attributes:
        left: `[m, r]`.
        right: `[r, n]`.

    Example:
        >>> import jax.numpy as jnp
        >>> matrix = Factored(jnp.ones((3, 1)), jnp.ones((1, 2)))
        >>> matrix.shape, jnp.ones(3) @ matrix, matrix.T @ jnp.ones(3)
        ((3, 2), Array([3., 3.], dtype=float32), Array([3., 3.], dtype=float32))
    """

    left: Any
    right: Any

    # Before jax.Array in binary operations, which would otherwise try to make an array of it.
    __array_priority__ = 1000

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        return (self.left, self.right), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: tuple[Any, Any]) -> "Factored":
        return cls(*children)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.left.shape[0], self.right.shape[1])

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> np.dtype:
        return self.left.dtype

    @property
    def T(self) -> "Factored":
        return Factored(self.right.T, self.left.T)

    def __rmatmul__(self, other: jax.Array) -> jax.Array:
        return (other @ self.left) @ self.right

    def __matmul__(self, other: jax.Array) -> jax.Array:
        return self.left @ (self.right @ other)


def factor(matrix: jax.Array, rank: int) -> Factored:
    """The best factors of that rank, each with half of the singular values: `left @ right` is near `matrix`.

        matrix = U S V^T,   left = U_r sqrt(S_r),   right = sqrt(S_r) V_r^T

    Args:
        matrix: `[m, n]`.
        rank: r, from 1 to min(m, n).

    Returns:
        `Factored`, in the dtype of `matrix`.

    Example:
        >>> import jax.numpy as jnp
        >>> factored = factor(jnp.ones((4, 6)), rank=1)
        >>> factored.left.shape, factored.right.shape
        ((4, 1), (1, 6))
    """
    u, s, vt = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    root = np.sqrt(s[:rank])
    return Factored(jnp.asarray(u[:, :rank] * root, matrix.dtype), jnp.asarray(root[:, None] * vt[:rank], matrix.dtype))


def replace_by_factors(variables: Tree, ranks: Mapping[str, int]) -> Tree:
    """The variables with the matrices named in `ranks` (from paths to ranks) as `Factored`."""
    leaves = [factor(leaf, ranks[path]) if path in ranks else leaf for path, leaf in named_leaves(variables)]
    return jax.tree.structure(variables).unflatten(leaves)
