"""Dtypes of sums, numbers that may be schedules, and counts of steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ramda_jax.typing import Scalar, Tree

# Where counters of steps stay: the end of int32.
LAST_COUNT = 2**31 - 1


def promoted(*dtypes: jax.typing.DTypeLike) -> np.dtype:
    """The dtype that can hold all of these, also if `jax_numpy_dtype_promotion` is "strict"."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


def sums_dtype(dtype: jax.typing.DTypeLike) -> np.dtype:
    """The dtype in which sums over steps are kept for parameters of `dtype`: at least float32.

    In bfloat16 a sum of ones stops at 256, because from there on the summand is rounded away.
    """
    return promoted(dtype, jnp.float32)


def scalars_dtype(tree: Tree) -> np.dtype:
    """The dtype of step counts, sums of step sizes and weights: the widest sums' dtype in `tree`."""
    return promoted(jnp.float32, *(sums_dtype(x.dtype) for x in jax.tree.leaves(tree)))


def at_step(value: optax.ScalarOrSchedule, step: jax.typing.ArrayLike, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`value` as a scalar of `dtype`; a schedule is called with `step`."""
    return jnp.asarray(value(step) if callable(value) else value, dtype=dtype)


def next_count(count: jax.Array) -> jax.Array:
    """count + 1; at the end of int32 the count stays the same instead of wrapping around."""
    return jnp.asarray(optax.safe_increment(count))


def weight_of_average(decay: Scalar, count: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`1 - decay^count`, the sum of the weights of a moving average of `count` values; a scalar of `dtype`.

    The exponent is a float, because outside of `jit` JAX compiles a new program for every value of an integer exponent.
    """
    if isinstance(decay, float) and decay < 1 and np.asarray(decay, dtype) == 1:
        # A decay that rounds to 1 would leave nothing to divide by.
        return -jnp.expm1(count.astype(dtype) * math.log(decay))
    return 1 - jnp.asarray(decay, dtype) ** count.astype(dtype)
