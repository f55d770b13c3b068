"""Euclidean norms in which no square over- or underflows."""

import functools

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ramda_jax.typing import Axes
from ramda_jax.xla.one_program import one_program
from ramda_jax.xla.reductions import one_kernel_sums


@one_program("axes")
def group_norms(x: jax.Array, axes: Axes | None) -> jax.Array:
    """`||x_g||` over `axes`, kept as axes of length one; no square over- or underflows.

    The largest entry is divided out before squaring: in float32 the squares of 1e-23 are all zero
    and those of 1e20 are infinite.
    """
    scale, inverse = group_scales(x, axes)
    return scale * jnp.sqrt(jnp.sum(jnp.square(x * inverse), axis=axes, keepdims=True))


@one_program("axes")
def any_nonzero(x: jax.Array, axes: Axes) -> jax.Array:
    """Whether any entry of each group is not zero, with axes of length one for `axes`."""
    return jnp.any(x != 0, axis=axes, keepdims=True)


def one_pass_norms(x: jax.Array, axes: Axes) -> jax.Array:
    """`group_norms` by one pass over the data; `group_norms` itself needs a second pass for the largest entries.

    It is Blue's algorithm: the squares of large, of small and of other entries are summed separately, each in a unit.

    Args:
        x: float32 or float64.
        axes: the axes inside a group.

    References:
        Blue, `A portable Fortran program to find the Euclidean norm of a vector`, 1978.
    """
    info = jnp.finfo(x.dtype)
    small, large = 2.0 ** ((info.minexp - 1) // 2 + 1), 2.0 ** ((info.maxexp - info.nmant) // 2)
    enlarge, reduce = 2.0 ** ((info.nmant - info.minexp) // 2), 2.0 ** -((info.maxexp + info.nmant + 1) // 2)
    size = jnp.abs(x)
    is_small, is_large = size < small, size > large

    def squares(unit, where):
        y = jnp.where(where, size * unit, 0)
        return y * y

    # A NaN is neither small nor large, so it belongs to the other entries.
    terms = squares(enlarge, is_small), squares(1, ~is_small & ~is_large), squares(reduce, is_large)
    few, most, many = one_kernel_sums(terms, axes)
    # If there are large entries, the small ones do not matter. Otherwise small and other entries both count.
    of_large = jnp.sqrt(many + (most * reduce) * reduce) / reduce
    of_small = jnp.hypot(jnp.sqrt(few) / enlarge, jnp.sqrt(most))
    return jnp.where(many > 0, of_large, of_small)


def norms_for_step(x: jax.Array, axes: Axes) -> jax.Array:
    """`group_norms`, by one pass on accelerators. On CPUs three sums at once cost more than the pass that they save."""
    if not isinstance(x, Tracer):
        return group_norms(x, axes)
    return jax.lax.platform_dependent(x, cpu=lambda x: group_norms(x, axes), default=lambda x: one_pass_norms(x, axes))


def differentiable_group_norms(x: jax.Array, axes: Axes | None) -> jax.Array:
    """`group_norms`, with the subgradient 0 where a norm is 0; the derivative of the root is not a number there."""
    return _with_subgradient(x, axes)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _with_subgradient(x, axes):
    return group_norms(x, axes)


@_with_subgradient.defjvp
def _norms_jvp(axes, primals, tangents):
    [x], [tangent] = primals, tangents
    norms = group_norms(x, axes)
    unit = x / jnp.where(norms == 0, 1, norms)
    return norms, jnp.sum(unit * tangent, axis=axes, keepdims=True)


def norm(x: jax.Array) -> jax.Array:
    """`||x||` of a whole array, a scalar; as `group_norms`, no square over- or underflows."""
    return jnp.squeeze(group_norms(x, None))


def group_scales(x: jax.Array, axes: Axes | None) -> tuple[jax.Array, jax.Array]:
    """A power of two near each group's largest entry, kept as axes of length one, and its inverse.

    Both are powers of two and not denormals, so that scaling does not round. The inverse makes scaling a
    multiplication: XLA would store the results of a division in an array (`benchmarks/NOTES.md`).
    """
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0)
    info = jnp.finfo(x.dtype)
    # The bits of the exponent alone; NaN and infinity have the highest and are clipped to a finite one.
    integer = jnp.int32 if info.bits == 32 else jnp.int64
    exponent = jax.lax.bitcast_convert_type(largest, integer) >> info.nmant
    bias = info.maxexp - 1
    # Zeros are scaled by 1: XLA may square the inverse first, and 0 * inf is NaN.
    exponent = jnp.where(largest == 0, bias, exponent)
    exponent = jnp.clip(exponent, 2, 2 * bias - 2)
    scale = jax.lax.bitcast_convert_type(exponent << info.nmant, x.dtype)
    inverse = jax.lax.bitcast_convert_type((2 * bias - exponent) << info.nmant, x.dtype)
    return scale, inverse
