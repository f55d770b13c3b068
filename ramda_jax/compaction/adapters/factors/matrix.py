"""A matrix as two factors, and the layout of a kernel with more axes as a matrix."""

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
    """A matrix `left @ right` that holds only its factors; `x @ matrix` and `matrix @ x` are two thin products.

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

    # It takes precedence over jax.Array in binary operations, which would otherwise try to convert it to an array.
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
    """The best factors of that rank, each with the roots of the singular values: `left @ right` is near `matrix`.

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
    return Factored(_as_jax(left, matrix.dtype), _as_jax(right, matrix.dtype))


def _as_jax(array, dtype):
    # NumPy converts it, because JAX would compile a program for each shape.
    return jnp.asarray(array.astype(dtype), dtype)


def _factors(matrix, rank):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(s[:rank])
    return u[:, :rank] * root, root[:, None] * vt[:rank]


class Layout(NamedTuple):
    """An array as matrices, one for each index of its first axes.

    Attributes:
        batch: the number of axes before the matrices, such as those of stacked layers.
        split: the first axis that belongs to the columns; the axes from `batch` to there are the rows.
        is_known: whether a known layer reads it. Otherwise the code that reads it gets a `Factored`.
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
        """The largest numerical rank of the matrices; None if two factors of that rank are not smaller."""
        matrices = self.matrices(leaf)
        _, rows, columns = matrices.shape
        singular = np.linalg.svd(matrices, compute_uv=False)
        relative = max(rows, columns) * float(jnp.finfo(leaf.dtype).eps) if rtol is None else rtol
        limits = relative * singular.max(axis=1, keepdims=True)
        rank = max(int(np.sum(~(singular <= limits), axis=1).max()), 1)
        return rank if rank * (rows + columns) < rows * columns else None


class Cut(NamedTuple):
    """How an array is divided into two factors.

    Attributes:
        layout: the array's layout as matrices.
        rank: the rank of the factors.
    """

    layout: Layout
    rank: int

    def factors(self, leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(`[*batch, *rows, rank]`, `[*batch, rank, *columns]`), as `factor` makes them."""
        (batch, split, _), shape = self.layout, leaf.shape
        pairs = [_factors(matrix, self.rank) for matrix in self.layout.matrices(leaf)]
        left = np.stack([left for left, _ in pairs]).reshape(*shape[:split], self.rank)
        right = np.stack([right for _, right in pairs]).reshape(*shape[:batch], self.rank, *shape[split:])
        return _as_jax(left, leaf.dtype), _as_jax(right, leaf.dtype)


#: The layout of a leaf of two axes about which nothing else is known: it may be a factor of a matrix product.
PRODUCT = Layout(0, 1, is_known=False)


def products(variables: Tree) -> dict[str, Layout | str]:
    """The layouts of leaves about which only the number of axes is known."""
    reason = "a leaf of {} axes must be the kernel of a layer that is known, or a matrix"
    return {
        path: PRODUCT if np.ndim(leaf) == 2 else reason.format(np.ndim(leaf)) for path, leaf in named_leaves(variables)
    }


def replace_by_factors(variables: Tree, cuts: Mapping[str, Cut]) -> Tree:
    """The variables, with a `Factored` for each matrix named in `cuts`."""
    leaves = [Factored(*cuts[path].factors(leaf)) if path in cuts else leaf for path, leaf in named_leaves(variables)]
    return jax.tree.structure(variables).unflatten(leaves)
