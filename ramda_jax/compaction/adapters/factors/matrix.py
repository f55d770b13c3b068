"""A matrix as two factors, and which matrix a kernel of more axes is."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

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
    left, right = _factors(np.asarray(matrix, np.float64), rank)
    return Factored(jnp.asarray(left, matrix.dtype), jnp.asarray(right, matrix.dtype))


def _factors(matrix, rank):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(s[:rank])
    return u[:, :rank] * root, root[:, None] * vt[:rank]


class Layout(NamedTuple):
    """Which matrices an array is: one for each index of its first axes.

    Attributes:
        batch: how many axes are before the matrices, as of stacked layers.
        split: the first axis that belongs to the columns; the axes from `batch` to there are the rows.
        is_known: whether a layer that is known reads it. Else whatever reads it gets a `Factored`.
    """

    batch: int
    split: int
    is_known: bool = True

    def matrices(self, leaf: jax.Array) -> np.ndarray:
        """`[prod batch, m, n]`, in float64."""
        shape, (batch, split, _) = leaf.shape, self
        sizes = math.prod(shape[:batch]), math.prod(shape[batch:split]), math.prod(shape[split:])
        return np.asarray(leaf, np.float64).reshape(sizes)

    def rank(self, leaf: jax.Array, rtol: float | None = None) -> int | None:
        """The largest numerical rank of the matrices, None where two factors of that rank are no smaller."""
        matrices = self.matrices(leaf)
        _, rows, columns = matrices.shape
        singular = np.linalg.svd(matrices, compute_uv=False)
        relative = max(rows, columns) * float(jnp.finfo(leaf.dtype).eps) if rtol is None else rtol
        limits = relative * singular.max(axis=1, keepdims=True)
        rank = max(int(np.sum(~(singular <= limits), axis=1).max()), 1)
        return rank if rank * (rows + columns) < rows * columns else None


class Cut(NamedTuple):
    """How an array is to be two.

    Attributes:
        layout: the matrices it is.
        rank: that of the factors.
    """

    layout: Layout
    rank: int

    def factors(self, leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(`[*batch, *rows, rank]`, `[*batch, rank, *columns]`), as `factor` makes them."""
        (batch, split, _), shape = self.layout, leaf.shape
        pairs = [_factors(matrix, self.rank) for matrix in self.layout.matrices(leaf)]
        left = np.stack([left for left, _ in pairs]).reshape(*shape[:split], self.rank)
        right = np.stack([right for _, right in pairs]).reshape(*shape[:batch], self.rank, *shape[split:])
        return jnp.asarray(left, leaf.dtype), jnp.asarray(right, leaf.dtype)


#: What a leaf of two axes is where nothing else is known of it: it may be a factor of a matrix product.
PRODUCT = Layout(0, 1, is_known=False)


def products(variables: Tree) -> dict[str, Layout | str]:
    """The layouts of leaves of which nothing is known but how many axes they have."""
    reason = "a leaf of {} axes must be the kernel of a layer that is known, or a matrix"
    return {
        path: PRODUCT if np.ndim(leaf) == 2 else reason.format(np.ndim(leaf)) for path, leaf in named_leaves(variables)
    }


def replace_by_factors(variables: Tree, cuts: Mapping[str, Cut]) -> Tree:
    """The variables with the matrices named in `cuts` as `Factored`."""
    leaves = [Factored(*cuts[path].factors(leaf)) if path in cuts else leaf for path, leaf in named_leaves(variables)]
    return jax.tree.structure(variables).unflatten(leaves)
