"""Many small leaves as one array, so that an operation on all of them is compiled once, and not once per leaf."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ramda_jax.typing import Shape, TreeT
from ramda_jax.xla.hints import opaque_zero

# A leaf of fewer entries costs less as a part of a vector than as a kernel of its own.
SMALL = 2**14
# The number of small leaves from which on this is worthwhile for a function of single entries.
MANY = 16


def map_entries(function: Callable[[jax.Array], jax.Array], tree: TreeT, scalar: jax.Array) -> TreeT:
    """`jax.tree.map` of a function of single entries; on CPUs with one device many small leaves are computed at once.

    Args:
        function: maps an array, entry by entry, to an array of the same shape and dtype.
        tree: a pytree of arrays.
        scalar: a scalar of any real dtype, with a value that the compiler does not know. The program is smaller if all
            calls in it pass the same scalar.
    """
    leaves, structure = jax.tree.flatten(tree)
    together = {}
    for number, leaf in enumerate(leaves):
        if 0 < leaf.size < SMALL:
            together.setdefault(jnp.dtype(leaf.dtype), {}).setdefault(leaf.shape, []).append(number)
    values = {}
    # On several devices a leaf may be sharded, and would have to be gathered.
    for by_shape in together.values() if jax.device_count() == 1 else ():
        if sum(map(len, by_shape.values())) >= MANY:
            equal = [[leaves[number] for number in numbers] for numbers in by_shape.values()]
            for numbers, mapped in zip(by_shape.values(), _map_at_once(function, equal, scalar), strict=True):
                values |= zip(numbers, mapped, strict=True)
    mapped = [values[number] if number in values else function(leaf) for number, leaf in enumerate(leaves)]
    return structure.unflatten(mapped)


def _map_at_once(function, equal, scalar):
    """The values for lists of leaves of equal shape."""

    def at_once(equal, scalar):
        vector = function(jnp.concatenate([leaf.ravel() for leaves in equal for leaf in leaves]))
        indices, start, values = _indices(max(map(len, equal)), scalar), 0, []
        for leaves in equal:
            shape, size = leaves[0].shape, leaves[0].size
            values.append([_at(vector, start + i * size, size).reshape(shape) for i in indices[: len(leaves)]])
            start += len(leaves) * size
        return values

    def one_by_one(equal, scalar):
        del scalar
        return jax.tree.map(function, equal)

    return jax.lax.platform_dependent(equal, scalar, cpu=at_once, default=one_by_one)


def unstack(tree: TreeT, length: int, scalar: jax.Array) -> list[TreeT]:
    """The `length` trees along the first axis of all leaves.

    Args:
        tree: a pytree of arrays.
        length: the length of their first axes.
        scalar: as in `map_entries`.
    """

    def at(tree, indices):
        return [jax.tree.map(lambda x, i=index: jnp.squeeze(_at(x, i, 1), 0), tree) for index in indices]

    return jax.lax.platform_dependent(
        tree,
        scalar,
        cpu=lambda tree, scalar: at(tree, _indices(length, scalar)),
        default=lambda tree, scalar: at(tree, range(length)),
    )


def join(arrays: Sequence[jax.Array]) -> jax.Array:
    """All entries of several arrays as one vector; a single array is returned unchanged.

    Use it for numbers per group: an operation on one vector is a kernel or two, and not as many for each leaf.
    """
    return arrays[0] if len(arrays) == 1 else jnp.concatenate([x.ravel() for x in arrays])


def splitter(
    shapes: Sequence[Shape], hidden: Callable[[Sequence[int]], Sequence[Any]]
) -> Callable[[jax.Array], list[jax.Array]]:
    """The function that makes arrays of these shapes of a vector that `join` has made.

    A slice at a known start is a kernel of its own, but at unknown starts all slices of a shape are one kernel: for two
    layers of a decoder on an H100 66 kernels instead of 82 (`benchmarks/NOTES.md`, "On accelerators"). So the starts
    are hidden from the compiler, unless all shapes differ.

    Args:
        shapes: those of the arrays.
        hidden: returns whole numbers as scalars that the compiler does not know, or as they are if it may know them
            (`Execution.hidden`).
    """
    if len(shapes) == 1:
        return lambda vector: [vector]
    sizes = [math.prod(shape) for shape in shapes]
    starts = [0, *itertools.accumulate(sizes)][:-1]
    if len(set(shapes)) < len(shapes):
        starts = hidden(starts)

    def split(vector):
        return [_at(vector, i, size).reshape(shape) for i, size, shape in zip(starts, sizes, shapes, strict=True)]

    return split


def _at(x, start, size):
    # Allowing negative indices would take three more operations for every leaf.
    return jax.lax.dynamic_slice_in_dim(x, start, size, allow_negative_indices=False)


def _indices(length, scalar):
    """The numbers 0, 1, ..., as int32 `[]`, with values that the compiler does not know.

    XLA for CPUs compiles identical kernels once, but a slice at a constant offset is a new kernel for each offset, some
    12 ms (`benchmarks/NOTES.md`). With unknown offsets all leaves of a shape share a kernel. A division hides that each
    index is its predecessor plus 1, and it is so expensive in XLA's cost model that its result is stored.
    """
    indices = [opaque_zero(scalar)]
    one = indices[0] + 1
    while len(indices) < length:
        indices.append(jax.lax.div(indices[-1] + one, one))
    return indices
