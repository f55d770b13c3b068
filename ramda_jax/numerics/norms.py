"""Euclidean norms of which no square over- or underflows."""

import jax
import jax.numpy as jnp

from ramda_jax.typing import Axes


def group_norms(x: jax.Array, axes: Axes | None) -> jax.Array:
    """`||x_g||` over `axes`, kept as axes of length one; no square over- or underflows.

    The largest entry is divided out before squaring: in float32 the squares of 1e-23 are all zero
    and those of 1e20 are infinite.
    """
    scale, inverse = group_scales(x, axes)
    return scale * jnp.sqrt(jnp.sum(jnp.square(x * inverse), axis=axes, keepdims=True))


def norm(x: jax.Array) -> jax.Array:
    """`||x||` of a whole array, a scalar; as `group_norms`, no square over- or underflows."""
    return jnp.squeeze(group_norms(x, None))


def group_scales(x: jax.Array, axes: Axes | None) -> tuple[jax.Array, jax.Array]:
    """A power of two near each group's largest entry, kept as axes of length one, and its inverse.

    Both are powers of two that are no denormals, so that scaling rounds nothing, and the inverse is there so that
    it is a multiplication: XLA would keep the results of a division in an array of their own.
    """
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0)
    info = jnp.finfo(x.dtype)
    # The bits of the exponent alone; NaN and infinity have the highest and are clipped to a finite one.
    integer = jnp.int32 if info.bits == 32 else jnp.int64
    exponent = jax.lax.bitcast_convert_type(largest, integer) >> info.nmant
    bias = info.maxexp - 1
    # Zeros as they are: XLA may square the inverse first, and 0 * inf is no 0.
    exponent = jnp.where(largest == 0, bias, exponent)
    exponent = jnp.clip(exponent, 2, 2 * bias - 2)
    scale = jax.lax.bitcast_convert_type(exponent << info.nmant, x.dtype)
    inverse = jax.lax.bitcast_convert_type((2 * bias - exponent) << info.nmant, x.dtype)
    return scale, inverse
