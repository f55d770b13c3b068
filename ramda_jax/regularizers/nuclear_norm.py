"""The nuclear norm: low rank."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from ramda_jax.numerics import gathered, norm, sums_dtype, with_type_sharding
from ramda_jax.regularizers.base import Regularizer, widened
from ramda_jax.regularizers.elementwise import soft_threshold
from ramda_jax.typing import Scalar, Shape
from ramda_jax.validation import check_non_negative


@dataclasses.dataclass(frozen=True)
class NuclearNorm(Regularizer):
    """`psi(w) = factor * sum of the singular values of the matrix w`: drives singular values to zero.

    A leaf of more than two axes is taken as a matrix. Its rows are all axes before `split`, its columns the others:
    with -1 a Flax kernel maps inputs (and offsets) to outputs. The prox soft-thresholds the singular values, which
    takes one SVD. In a diagonal metric there is no closed form. The default solver is then `DouglasRachford` from the
    current parameters with at most 5 SVDs a step, as many as the NeurIPS paper's scripts take. It is not exact: give
    `solver=DouglasRachford(max_steps=20, rtol=1e-5)` where that matters (`docs/tuning.md` has the figures). `support`
    has the singular values above rounding. A sharded leaf is gathered for its SVDs, which every device computes in
    full, and sharded again.

    Args:
        split: the first column axis, an int. None for -1, or 1 for attention's query, key and value of rank 3.
        factor: a number >= 0, the weight relative to other regularizers of the same optimizer.
        gram: whether to take the prox from the eigenvectors of the smaller of `x^T x` and `x x^T` instead of an SVD of
            x. On CPUs this saves a third to a half of the time (`benchmarks/NOTES.md`). The error grows from about eps
            s_1 to eps s_1^2 / threshold, where s_1 is the largest singular value: a singular value closer than that to
            the threshold may become zero or not. Below a threshold of sqrt(eps) s_1, 3e-4 s_1 in float32, the rank is
            meaningless.

    Raises:
        ValueError, TypeError: a negative factor, a split that is not an int, a gram that is not a bool; at `init`, a
            leaf of fewer than two axes, a split that leaves no rows or no columns.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ramda_jax.NuclearNorm().prox(jnp.diag(jnp.array([3.0, 0.5])), 1.0)
        Array([[2., 0.],
               [0., 0.]], dtype=float32)

    References:
        Cai, Candès and Shen, `A singular value thresholding algorithm for matrix completion`, 2010. Huang and Lee,
        NeurIPS 2024, arXiv:2403.14398, appendix E.
    """

    split: int | None = None
    factor: float = 1.0
    gram: bool = False

    expensive_prox = True
    support_counts = "singular values"

    def __post_init__(self) -> None:
        check_non_negative("factor", self.factor, schedules=False)
        if self.split is not None and (isinstance(self.split, bool) or not isinstance(self.split, int)):
            raise TypeError(f"`split` must be an axis or None, got {self.split!r}; use -1 for outputs as columns.")
        if not isinstance(self.gram, bool):
            raise TypeError(f"`gram` must be True or False, got {self.gram!r}; use False for an SVD.")

    def __mul__(self, number: float) -> "NuclearNorm":
        check_non_negative("factor", number, schedules=False)
        return dataclasses.replace(self, factor=float(self.factor * number))

    def resolve(self, path: str, shape: Shape) -> "NuclearNorm":
        ndim = len(shape)
        split = self.split
        if ndim < 2:
            raise ValueError(
                f"`NuclearNorm` must go to a leaf of two axes or more, but '{path}' has shape {shape}; leave it out by "
                "a narrower pattern, such as '.*kernel'."
            )
        if split is None:
            layer = path.split("/")[-2] if "/" in path else ""
            split = 1 if ndim == 3 and layer in ("query", "key", "value") else -1
        if not -ndim <= split < ndim or split % ndim == 0:
            raise ValueError(
                f"`split` must leave rows and columns, got {split} for '{path}' of shape {shape}; use an axis from 1 "
                f"to {ndim - 1}."
            )
        return dataclasses.replace(self, split=split % ndim)

    def matrix(self, w: jax.Array) -> jax.Array:
        """w as a matrix. On a mesh with explicit axes every device gets all of it."""
        split = -1 if self.split is None else self.split
        w = gathered(w)
        return w.reshape(math.prod(w.shape[:split]), math.prod(w.shape[split:]))

    def singular_values(self, w: jax.Array) -> jax.Array:
        """The singular values of w, descending, shape `[min(rows, columns)]`, at least float32."""
        matrix = widened(self.matrix(w))
        if matrix.size == 0:
            return jnp.zeros([0], matrix.dtype)
        return jnp.linalg.svd(matrix, compute_uv=False)

    def value(self, w: jax.Array) -> jax.Array:
        return self.factor * jnp.sum(self.singular_values(w))

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        return self.prox_and_value(x, weight)[0]

    def prox_and_value(self, x: jax.Array, weight: Scalar) -> tuple[jax.Array, jax.Array]:
        matrix = self.matrix(x)
        if matrix.size == 0:
            return x, jnp.zeros([], matrix.dtype)
        threshold = jnp.max(weight) * self.factor  # psi is one block, so all weights are equal
        product, kept = _by_gram(matrix, threshold) if self.gram else _by_svd(matrix, threshold)
        product = jnp.where(product == 0, 0, product)  # 0.0 instead of -0.0
        # Without a weight the result is x itself, not the rounded product of its SVD.
        value = jnp.where(weight > 0, product, matrix).reshape(x.shape)
        return with_type_sharding(value, jax.typeof(x).sharding), self.factor * jnp.sum(kept)

    def screen(self, rhs: jax.Array, weight: Scalar) -> jax.Array:
        # Zero iff the spectral norm is at most the weight; this bound on it costs no SVD.
        matrix = jnp.abs(self.matrix(rhs))
        columns = jnp.max(jnp.sum(matrix, axis=0), initial=0)
        rows = jnp.max(jnp.sum(matrix, axis=1), initial=0)
        is_zero = jnp.minimum(jnp.sqrt(columns) * jnp.sqrt(rows), norm(matrix)) <= weight * self.factor
        return is_zero.reshape((1,) * rhs.ndim)

    def support(self, w: jax.Array, rtol: float | None = None) -> jax.Array:
        """Which singular values are above `rtol` times the largest; None for the rounding error of an SVD."""
        s = self.singular_values(w)
        tolerance = self._rounding(w) if rtol is None else rtol
        # Do not write `>`: with a NaN no singular value counts as zero, and the matrix does not have a low rank.
        return ~(s <= jnp.max(s, initial=0) * tolerance)

    def _rounding(self, w):
        # NumPy's rule for the rank: the rounding of an SVD is eps times the largest value and side.
        dtype = w.dtype if jnp.issubdtype(w.dtype, jnp.floating) else sums_dtype(w.dtype)
        return max(self.matrix(w).shape) * float(jnp.finfo(dtype).eps)

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        lam = weight * self.factor
        u, s, vt = jnp.linalg.svd(self.matrix(w), full_matrices=False)
        alive = s > jnp.max(s, initial=0) * self._rounding(w)
        u, vt = u * alive[None, :], vt * alive[:, None]
        matrix = self.matrix(slope)
        # The subdifferential is U V^T plus matrices that are orthogonal to both and have a spectral norm of at most 1.
        left = matrix - u @ (u.T @ matrix)
        outside = left - (left @ vt.T) @ vt
        inside = matrix - outside - lam * (u @ vt)
        excess = soft_threshold(jnp.linalg.svd(outside, compute_uv=False), lam)
        return jnp.sqrt(jnp.sum(jnp.square(inside)) + jnp.sum(jnp.square(excess)))


def _by_svd(matrix: jax.Array, threshold: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The matrix with soft-thresholded singular values, and these."""
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    kept = jnp.maximum(s - threshold, 0)
    return jnp.matmul(u * kept[None, :], vt, precision="highest"), kept


def _by_gram(matrix: jax.Array, threshold: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`_by_svd` by the eigenvectors v of the smaller Gram matrix G = V S^2 V^T: A V (1 - threshold / S)+ V^T.

    If E is the rounding error of G and of its eigenvectors, that of the result is at most ||E|| / threshold
    (Frobenius). In the eigenbases v of G and w of G + E, with singular values s and s', its entries are

        s (h(s') - h(s)) <v, w>,   h(s) = (1 - threshold / s)+,   (s'^2 - s^2) <v, w> = <v, E w>

    and s |h(s') - h(s)| <= |s'^2 - s^2| / threshold, whichever of s and s' are above the threshold.
    """
    if matrix.shape[0] < matrix.shape[1]:
        product, kept = _by_gram(matrix.T, threshold)
        return product.T, kept
    largest = jnp.max(jnp.abs(matrix))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)  # squares must not underflow or overflow
    scaled = matrix / scale
    squares, v = jnp.linalg.eigh(jnp.matmul(scaled.T, scaled, precision="highest"))
    s = jnp.sqrt(jnp.maximum(squares, 0)) * scale
    kept = jnp.maximum(s - threshold, 0)
    shrinking = jnp.matmul(v * (kept / jnp.where(s == 0, 1, s))[None, :], v.T, precision="highest")
    return jnp.matmul(matrix, shrinking, precision="highest"), kept
