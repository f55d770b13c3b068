"""One kernel for a function of tiles: every array is read once and written once (Pallas).

The function sees arrays of whole groups and knows nothing of the leaf around them. How the tiles come onto the chip and
back is written twice, once for each kind of chip: `_tpu_call` by block specifications, which Mosaic turns into a
pipeline of copies, and `_gpu_call` by masked loads, because the lengths of Triton's arrays are powers of two.
"""

import dataclasses
import functools
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ramda_jax.xla.bounded_jit import BoundedJit
from ramda_jax.xla.tile_plans import Chip, TilePlan


class TileValues(NamedTuple):
    """What a function of tiles takes or returns.

    Attributes:
        entries: arrays of the tile's shape.
        groups: arrays of one number per group, with length one along the axes inside a group.
    """

    entries: tuple[jax.Array, ...]
    groups: tuple[jax.Array, ...]


_BACKENDS: dict[Chip, str] = {"tpu": "tpu", "gpu": "triton"}

#: From scalars and a tile's arrays to the tile's results.
TileFunction: TypeAlias = Callable[[tuple[jax.Array, ...], TileValues], TileValues]


@dataclasses.dataclass(frozen=True)
class TileKernel:
    """A kernel, without its arrays; hashable.

    Attributes:
        plan: the tiles.
        function: what is computed of each tile; hashable, so that leaves of one kind share a program.
        entries: the dtypes of the results with the leaf's shape.
        groups: the number of results with one float32 per group.
        in_place: pairs of an argument and a result, counted among the entries, that share their memory if the argument
            is donated.
        interpret: whether Pallas's interpreter runs it, on any device, slowly.
    """

    plan: TilePlan
    function: TileFunction
    entries: tuple[np.dtype, ...]
    groups: int
    in_place: tuple[tuple[int, int], ...] = ()
    interpret: bool = False

    def __call__(self, scalars: Sequence[Any], values: TileValues) -> TileValues:
        """The results for a leaf.

        Args:
            scalars: real numbers, which the function gets as float32.
            values: arrays of the leaf's shape, and of one number per group.
        """
        # Two axes, so that under `vmap` the last two are whole in a block, as Mosaic demands.
        return _run_compiled(self, jnp.stack([jnp.asarray(x, jnp.float32) for x in scalars])[None], values)


def _run(kernel, scalars, values):
    plan = kernel.plan
    entries = [x.transpose(plan.order).reshape(plan.shape) for x in values.entries]
    groups = [x.transpose(plan.order).reshape(plan.groups) for x in values.groups]
    call = _tpu_call if plan.chip == "tpu" else _gpu_call
    results = call(kernel, scalars, entries, groups)
    number = len(kernel.entries)
    return TileValues(
        tuple(_as_stored_by_jax(x, values.entries[0].shape, plan.order) for x in results[:number]),
        tuple(_as_stored_by_jax(x, values.groups[0].shape, plan.order) for x in results[number:]),
    )


def _as_stored_by_jax(x, shape, order):
    return x.reshape([shape[axis] for axis in order]).transpose([order.index(axis) for axis in range(len(order))])


#: In eager use a kernel is compiled once for a plan, a function and the kinds of its arrays.
_run_compiled = BoundedJit(_run, num_static=1, size=256)


@functools.cache
def has_backend(chip: Chip) -> bool:
    """Whether this JAX has the part of Pallas by which a kernel is written. (JAX 0.12 says that Triton's will go.)"""
    return importlib.util.find_spec(f"jax.experimental.pallas.{_BACKENDS[chip]}") is not None


def by_chip(default: Callable[[], Any], kernels: Callable[[Chip], Any], like: jax.Array) -> Any:
    """`kernels(chip)` if the program runs on TPUs or NVIDIA's GPUs, else `default()`: trees of the same arrays.

    Args:
        default: a function without arguments.
        kernels: a function of the chip.
        like: an array that the functions use; outside of `jit` its device decides.
    """
    if isinstance(like, Tracer):
        return jax.lax.platform_dependent(tpu=lambda: kernels("tpu"), cuda=lambda: kernels("gpu"), default=default)
    platforms = {device.platform for device in like.devices()}
    return kernels("tpu") if platforms == {"tpu"} else kernels("gpu") if platforms == {"gpu"} else default()


def _out_shapes(kernel):
    plan = kernel.plan
    entries = [jax.ShapeDtypeStruct(plan.shape, dtype) for dtype in kernel.entries]
    return entries + [jax.ShapeDtypeStruct(plan.groups, jnp.float32)] * kernel.groups


def _aliases(kernel):
    """The arguments that share memory with results; the first argument has the scalars."""
    return {argument + 1: result for argument, result in kernel.in_place}


def _tpu_call(kernel, scalars, entries, groups):
    # Imported here, because few use it: Pallas takes a while to import.
    from jax.experimental import pallas
    from jax.experimental.pallas import tpu

    plan = kernel.plan

    def body(scalars_ref, *refs):
        reads, writes = refs[: len(entries) + len(groups)], refs[len(entries) + len(groups) :]
        values = TileValues(
            tuple(ref[...] for ref in reads[: len(entries)]), tuple(ref[...] for ref in reads[len(entries) :])
        )
        results = kernel.function(tuple(scalars_ref[0, i] for i in range(scalars.size)), values)
        for ref, value in zip(writes, (*results.entries, *results.groups), strict=True):
            ref[...] = value

    def specs(num_entries, num_groups):
        shapes = [plan.tile] * num_entries + [plan.of_groups(plan.tile)] * num_groups
        return [pallas.BlockSpec(shape, lambda *index: index) for shape in shapes]

    return pallas.pallas_call(
        body,
        grid=plan.grid,
        in_specs=[pallas.BlockSpec(memory_space=tpu.SMEM), *specs(len(entries), len(groups))],
        out_specs=specs(len(kernel.entries), kernel.groups),
        out_shape=_out_shapes(kernel),
        input_output_aliases=_aliases(kernel),
        interpret=kernel.interpret,
        compiler_params=tpu.CompilerParams(
            dimension_semantics=("parallel",) * len(plan.grid), vmem_limit_bytes=64 * 2**20
        ),
    )(scalars, *entries, *groups)


def _gpu_call(kernel, scalars, entries, groups):
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    plan = kernel.plan

    def where(number, lengths, tile):
        """The slices of the tile of that number, and a mask of what lies within the leaf."""
        slices, mask = [], None
        for axis in reversed(range(len(lengths))):
            # Also where there is one tile: a slice with a known start must end within the array.
            size = jnp.int32(plan.grid[axis])
            number, start = jax.lax.div(number, size), jax.lax.rem(number, size) * tile[axis]
            slices.insert(0, pallas.ds(start, tile[axis]))
            if lengths[axis] % tile[axis]:
                within = jax.lax.broadcasted_iota(jnp.int32, tile, axis) < lengths[axis] - start
                mask = within if mask is None else mask & within
        return tuple(slices), mask

    def body(scalars_ref, *refs):
        number = pallas.program_id(0)
        of_entries = where(number, plan.shape, plan.tile)
        of_groups = where(number, plan.groups, plan.of_groups(plan.tile))

        def read(ref, at):
            slices, mask = at
            # Zeros beyond the leaf's end: a zero adds nothing to the sums over a group.
            return triton.load(ref.at[slices], mask=mask, other=None if mask is None else 0)

        reads, writes = refs[: len(entries) + len(groups)], refs[len(entries) + len(groups) :]
        values = TileValues(
            tuple(read(ref, of_entries) for ref in reads[: len(entries)]),
            tuple(read(ref, of_groups) for ref in reads[len(entries) :]),
        )
        results = kernel.function(tuple(scalars_ref[0, i] for i in range(scalars.size)), values)
        places = [of_entries] * len(results.entries) + [of_groups] * len(results.groups)
        for ref, value, (slices, mask) in zip(writes, (*results.entries, *results.groups), places, strict=True):
            triton.store(ref.at[slices], value, mask=mask)

    num_entries = math.prod(plan.tile)
    return pallas.pallas_call(
        body,
        grid=(math.prod(plan.grid),),
        out_shape=_out_shapes(kernel),
        input_output_aliases=_aliases(kernel),
        interpret=kernel.interpret,
        # 8 entries for a thread; at most 1,024 threads.
        compiler_params=triton.CompilerParams(num_warps=min(max(num_entries // 256, 1), 32), num_stages=1),
    )(scalars, *entries, *groups)
