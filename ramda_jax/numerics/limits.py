"""Finite numbers stay finite: gradients, sums and parameters at the ends of their dtypes.

All of it is entry by entry, without memory of its own, and moves no bit of an ordinary number. What is not finite when
it comes in stays so: it is a fault of the model or the data, and must be seen.
"""

import jax
import jax.numpy as jnp

from ramda_jax.numerics.dtypes import promoted


def gradient_limit(dtype: jax.typing.DTypeLike) -> float:
    """The largest gradient entry that sums of `dtype` take as it is: half of the root of the largest float, 2^63 in
    float32. Its square is a quarter of the largest float, which leaves room for a bias correction's rounding."""
    return 2.0 ** (jnp.finfo(dtype).maxexp // 2 - 1)


def limited(grad: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`grad` in `dtype`, that of a sum, its finite entries cut at `gradient_limit`; NaN and infinity as they are."""
    limit = gradient_limit(dtype)
    if not jnp.issubdtype(grad.dtype, jnp.floating):  # whole numbers, none of them beyond 2^64
        grad = grad.astype(dtype)
    if float(jnp.finfo(grad.dtype).max) > limit:
        # In the wider of both: a finite float64 may be infinite in float32.
        wide = grad.astype(promoted(grad.dtype, dtype))
        grad = jnp.where(jnp.isfinite(wide) & (jnp.abs(wide) > limit), jnp.sign(wide) * limit, wide)
    return grad.astype(dtype)


def saturated(total: jax.Array, *terms: jax.Array) -> jax.Array:
    """`total`, a sum made of finite `terms`, at the largest float where it has overflowed."""
    limit = jnp.finfo(total.dtype).max
    is_finite = jnp.isfinite(terms[0])
    for term in terms[1:]:
        is_finite &= jnp.isfinite(term)
    return jnp.where(is_finite, jnp.clip(total, -limit, limit), total)


def reachable(point: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`point` with its finite entries within what parameters of `dtype` hold, where that is less than it holds.

    The bound is the largest float less a few roundings, so that an update, itself rounded, does not end beyond it.
    """
    info = jnp.finfo(dtype)
    limit = float(info.max) * (1 - 2 * float(info.eps))
    if float(jnp.finfo(point.dtype).max) <= float(info.max):
        return point
    return jnp.where(jnp.isfinite(point), jnp.clip(point, -limit, limit), point)
