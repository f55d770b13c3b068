"""Finite numbers stay finite: gradients, sums and parameters at the ends of their dtypes.

All functions work entry by entry, need no memory, and change no bit of an ordinary number. A NaN or an infinity in the
input stays: it is a fault of the model or the data, and must be seen.
"""

import jax
import jax.numpy as jnp

from ramda_jax.numerics.dtypes import promoted
from ramda_jax.xla.one_program import one_program


def gradient_limit(dtype: jax.typing.DTypeLike) -> float:
    """The largest gradient entry that sums of `dtype` do not clip: half the root of the largest float, 2^63 in float32.

    Its square is a quarter of the largest float, which leaves room for the rounding of a bias correction.
    """
    return 2.0 ** (jnp.finfo(dtype).maxexp // 2 - 1)


@one_program("dtype")
def limited(grad: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`grad` in the `dtype` of a sum, with finite entries clipped at `gradient_limit`; NaN and infinity stay."""
    limit = gradient_limit(dtype)
    if not jnp.issubdtype(grad.dtype, jnp.floating):  # whole numbers, none of them beyond 2^64
        grad = grad.astype(dtype)
    if float(jnp.finfo(grad.dtype).max) > limit:
        # In the wider of both dtypes, because a finite float64 may be infinite in float32.
        wide = grad.astype(promoted(grad.dtype, dtype))
        # No `jnp.sign`: in a kernel for a TPU that is not here Pallas cannot compile it.
        cut = jnp.where(wide > 0, limit, -limit)
        grad = jnp.where(jnp.isfinite(wide) & (jnp.abs(wide) > limit), cut, wide)
    return grad.astype(dtype)


@one_program()
def saturated(total: jax.Array, *terms: jax.Array) -> jax.Array:
    """`total`, the sum of `terms`; the largest float if it has overflowed although the terms are finite."""
    limit = jnp.finfo(total.dtype).max
    is_finite = jnp.isfinite(terms[0])
    for term in terms[1:]:
        is_finite &= jnp.isfinite(term)
    return jnp.where(is_finite, jnp.clip(total, -limit, limit), total)


def reachable(point: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`point` with finite entries clipped to the range of parameters of `dtype`, if that is smaller than its own range.

    The bound is the largest float less a few roundings, so that a rounded update does not lead beyond it.
    """
    info = jnp.finfo(dtype)
    limit = float(info.max) * (1 - 2 * float(info.eps))
    if float(jnp.finfo(point.dtype).max) <= float(info.max):
        return point
    return jnp.where(jnp.isfinite(point), jnp.clip(point, -limit, limit), point)
