"""The largest of many numbers, by counting. A sort would gather sharded arrays."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ramda_jax.numerics.sharding import gathered, with_type_sharding


def sort_keys(x: jax.Array) -> jax.Array:
    """Integers in the order of `|x|`; NaN is the largest (`is_nan_key`)."""
    info = jnp.finfo(x.dtype)
    integer = jnp.int32 if info.bits == 32 else jnp.int64
    # The bits of non-negative floats have the order of the floats. The bits of a NaN may be the greatest integer; but
    # callers need room for a key plus 1, and for a number above that.
    bits = jax.lax.bitcast_convert_type(jnp.abs(x), integer)
    return jnp.minimum(bits, jnp.iinfo(integer).max - 2)


def is_nan_key(keys: jax.Array) -> jax.Array:
    """Which `sort_keys` are those of a NaN."""
    floating = jnp.float32 if keys.dtype == jnp.int32 else jnp.float64
    return keys > jax.lax.bitcast_convert_type(jnp.asarray(jnp.inf, floating), keys.dtype)


# Compiled by itself: outside of a user's `jit` its loop would be compiled again at every call.
@jax.jit
def largest(keys: Sequence[jax.Array], number: jax.typing.ArrayLike) -> list[jax.Array]:
    """The `number` largest of all entries of some arrays; of equal entries the first.

    A range of keys is made smaller until the wanted number of keys is at its lower end or above, or until it is a
    single key. Each step is one pass over the keys.

    Args:
        keys: a list of arrays of non-negative integers below the greatest, of one dtype; in all fewer than 2^31.
        number: an integer from 0 to the number of entries.

    Returns:
        A list of masks of the keys' shapes.
    """
    number = jnp.asarray(number, jnp.int32)
    threshold = _threshold(keys, number)
    left = number - _count([x > threshold for x in keys])
    masks = []
    for x in keys:
        is_tied = x == threshold
        masks.append((x > threshold) | _first(is_tied, left))
        left = jnp.maximum(left - _count([is_tied]), 0)
    return masks


def _count(masks):
    return sum((jnp.sum(mask, dtype=jnp.int32) for mask in masks), jnp.zeros([], jnp.int32))


def _threshold(keys, number):
    """The greatest key, or a number below it, with at least `number` keys at it or above it."""
    dtype = keys[0].dtype
    floating = jnp.float32 if dtype == jnp.int32 else jnp.float64
    total = sum(math.prod(x.shape) for x in keys)

    def body(carry):
        low, high, at_low, at_high, step = carry
        # Alternate between interpolation, which takes few steps if the keys are nearly evenly spread, and the middle,
        # which takes at most as many steps as the keys have bits.
        share = (at_low - number).astype(floating) / jnp.maximum(at_low - at_high, 1).astype(floating)
        share = jnp.where(step % 2 == 0, 0.5, jnp.clip(share, 0.001, 0.999))
        span = high - low
        middle = low + jnp.clip((span.astype(floating) * share).astype(dtype), 1, span - 1)
        found = _count([x >= middle for x in keys])
        is_high = found < number
        low, high = jnp.where(is_high, low, middle), jnp.where(is_high, middle, high)
        return low, high, jnp.where(is_high, at_low, found), jnp.where(is_high, found, at_high), step + 1

    def is_unfinished(carry):
        low, high, at_low, *_ = carry
        return (high - low > 1) & (at_low != number)

    low, high = jnp.zeros([], dtype), jnp.full([], jnp.iinfo(dtype).max, dtype)
    counts = jnp.full([], total, jnp.int32), jnp.zeros([], jnp.int32)
    return jax.lax.while_loop(is_unfinished, body, (low, high, *counts, jnp.zeros([], jnp.int32)))[0]


def _first(mask, number):
    """A mask of the first `number` True entries of a mask, row by row."""
    if mask.ndim == 0:
        return mask & (number > 0)
    kept, inside = False, True
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        sums = jnp.cumsum(gathered(jnp.sum(mask & inside, axis=others, dtype=jnp.int32)), dtype=jnp.int32)
        # This number of slices is taken whole, and a part of the next one.
        whole = jnp.sum(sums <= number, dtype=jnp.int32)
        number -= jnp.max(jnp.where(sums <= number, sums, 0), initial=0)
        index = jax.lax.broadcasted_iota(jnp.int32, mask.shape, axis)
        index = with_type_sharding(index, jax.typeof(mask).sharding)
        kept |= inside & (index < whole)
        inside &= index == whole
    return mask & kept
