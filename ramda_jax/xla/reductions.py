"""Several sums over the same axes: by one reduction each, by one kernel, or by one pass over data in the cache."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ramda_jax.typing import Axes
from ramda_jax.xla.one_program import one_program


def plain_sums(terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
    """The sums of several arrays of one shape over `axes`, kept as axes of length one."""
    return tuple(jnp.sum(x, axis=axes, keepdims=True) for x in terms)


def is_on_several_devices(x: jax.Array) -> bool:
    """Whether `x` may be sharded. Its type names the mesh, but does not always say how `x` is placed on it."""
    return jax.typeof(x).sharding.mesh.size > 1


def one_kernel_sums(terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
    """`plain_sums` for accelerators: on one device a single reduction of several operands, which is a single kernel.

    On NVIDIA's GPUs the operands are complex numbers that hold two terms each. For each operand of a reduction XLA's
    cost model counts everything that it is computed from once more. With four or five operands it would rather write
    arrays that they share to memory, and read these: 77 bytes a parameter instead of 60 for RAMDA's step of a decoder
    on an H100 (`benchmarks/NOTES.md`, "On accelerators").

    On several devices it is `plain_sums` itself. XLA's partitioner gathers the parts of a reduction of several
    operands, with a gather for each sum of each leaf, but adds the parts of all plain sums in one all-reduce
    (`python -m benchmarks.compiled`).
    """
    if is_on_several_devices(terms[0]):
        return plain_sums(terms, axes)
    return _one_reduction(tuple(terms), axes)


@one_program("axes")
def _one_reduction(terms, axes):
    return jax.lax.platform_dependent(
        *terms,
        cuda=lambda *terms: _sums_in_pairs(terms, axes),
        default=lambda *terms: _kept(_reduce(terms, axes), axes),
    )


def _reduce(terms, axes):
    zeros = tuple(jnp.zeros([], x.dtype) for x in terms)
    return jax.lax.reduce(tuple(terms), zeros, lambda x, y: tuple(a + b for a, b in zip(x, y, strict=True)), axes)


def _kept(sums, axes):
    return tuple(jnp.expand_dims(x, axes) for x in sums)


def _sums_in_pairs(terms, axes):
    """`plain_sums` by a reduction of complex numbers, and of one real number if the number of terms is odd."""
    pairs = [jax.lax.complex(*pair) for pair in zip(terms[::2], terms[1::2], strict=False)]
    alone = terms[2 * len(pairs) :]
    sums = _kept(_reduce([*pairs, *alone], axes), axes)
    return *(part for x in sums[: len(pairs)] for part in (x.real, x.imag)), *sums[len(pairs) :]


def fused_sums(terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
    """`plain_sums` in one pass on CPUs, if the sums are long enough to make that faster.

    XLA for CPUs makes a reduction of several operands one loop, in which it also computes the operands. But it
    vectorises that loop only if few numbers go into a sum and neighbours go into different sums. So an axis is cut in
    two. The short part is summed first, and the rest, which is a fraction of the entries, is summed one array after the
    other. This is faster only if the operands are computed from arrays in a core's cache. From memory, its order of
    access makes one pass slower than several.

    Args:
        terms: arrays of one shape and dtype.
        axes: to sum over, in increasing order.
    """
    cut = _cut(jax.typeof(terms[0]), axes)
    if cut is None:
        return plain_sums(terms, axes)

    def cut_first(*terms):
        shape, axis = cut
        return plain_sums(_reduce([x.reshape(shape) for x in terms], (axis,)), axes)

    return jax.lax.platform_dependent(*terms, cpu=cut_first, default=lambda *terms: plain_sums(terms, axes))


def _cut(kind, axes):
    """The shape with the last of `axes` cut in two, and the axis of the short part; None if it is not worth it."""
    shape = kind.shape
    if math.prod(shape) < 2**13 or not axes or shape[-1] < 64 or any(kind.sharding.spec):
        return None
    axis = axes[-1]
    is_last = axis == len(shape) - 1
    # At least 8 neighbours go into different sums, and few enough numbers into each sum for the compiler to unroll.
    few = max(n for n in range(1, 17) if shape[axis] % n == 0 and (not is_last or shape[axis] >= 8 * n))
    if few == 1:
        return None
    rest = (few, shape[axis] // few) if is_last else (shape[axis] // few, few)
    return (*shape[:axis], *rest, *shape[axis + 1 :]), axis if is_last else axis + 1
