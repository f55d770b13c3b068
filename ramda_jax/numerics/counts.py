"""Counts that may be larger than an int32."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# The most entries that one int32 counts.
MOST = 2**31 - 1


def pieces(mask: jax.Array) -> list[jax.Array]:
    """`mask` cut along its longest axes into parts of at most `MOST` entries; uncut if it has no more."""
    if mask.size <= MOST:
        return [mask]
    axis = max(range(mask.ndim), key=lambda axis: mask.shape[axis])
    half = mask.shape[axis] // 2
    before = jax.lax.slice_in_dim(mask, 0, half, axis=axis)
    after = jax.lax.slice_in_dim(mask, half, mask.shape[axis], axis=axis)
    return [*pieces(before), *pieces(after)]


def count(mask: jax.Array) -> jax.Array:
    """The number of True entries of the boolean `mask`, a scalar.

    It is an exact int32. For more than `MOST` entries it is a float32: each part is counted exactly, and each doubling
    beyond `MOST` adds one rounding error. (A float32 that counts by ones would stop at 2^24.)
    """
    return total([jnp.sum(part) for part in pieces(mask)], mask.size)


def exact_count(mask: jax.Array) -> int:
    """`count`, as a Python int of any size; not under `jax.jit`."""
    return sum(int(jnp.sum(part)) for part in pieces(mask))


def total(counts: Sequence[jax.Array], most: int) -> jax.Array:
    """The sum of scalar counts, which is at most `most`: an exact int32 if `most` fits into one, else a float32."""
    if most <= MOST:
        return jnp.asarray(sum(counts, jnp.zeros([], jnp.int32)))
    values: list = [jnp.asarray(number).astype(jnp.float32) for number in counts]
    # In pairs, so that the roundings do not add up.
    while len(values) > 1:
        values = [sum(values[i : i + 2]) for i in range(0, len(values), 2)]
    return jnp.asarray(values[0])
