"""Sums over long runs, in which a single term becomes smaller than a rounding error of the sum."""

import jax
import jax.numpy as jnp


def add_evenly(total: jax.Array, term: jax.Array, count: jax.Array) -> jax.Array:
    """`total + term`, scalars, rounded up or down in such an order that the errors of many steps cancel.

    A plain float32 sum of a stage's step sizes is off by 5 % after 1e7 steps (`python -m benchmarks.long_stages`) and
    soon stops growing. The reason is that the terms hardly change, so that all are rounded in the same direction. Here
    a sum between two floats is rounded up with a frequency equal to its distance from the lower one, by a sequence that
    fills [0, 1) evenly (`count` times the golden ratio). So the errors do not add up, and no compensation has to be
    kept from step to step. In float64 no stage is that long, and the sum is plain.

    Args:
        total: the sum so far, >= 0.
        term: the next term, >= 0; with 0 the sum does not change by a bit.
        count: int32 `[]`, the number of the term.
    """
    plain = total + term
    if jnp.finfo(plain.dtype).bits > 32:
        return plain
    # The exact rounding error (Knuth's TwoSum).
    added = plain - total
    missing = (total - (plain - added)) + (term - added)
    neighbour = jnp.nextafter(plain, jnp.where(missing > 0, jnp.inf, -jnp.inf).astype(plain.dtype))
    # 32 bits of count / golden ratio, of which the 24 upper ones are a float32 in [0, 1).
    turn = (count.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)) >> 8
    threshold = turn.astype(plain.dtype) * 2.0**-24
    return jnp.where(jnp.abs(missing) > threshold * jnp.abs(neighbour - plain), neighbour, plain)
