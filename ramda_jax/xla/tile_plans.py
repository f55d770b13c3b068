"""How a leaf is cut into tiles of whole groups, each of which fits on an accelerator's chip."""

import dataclasses
import math
from typing import Literal, TypeAlias

from ramda_jax.typing import Axes, Shape

#: The chips that there are kernels for: TPUs (Mosaic) and NVIDIA's GPUs (Triton).
Chip: TypeAlias = Literal["tpu", "gpu"]
#: The most entries of a tile. A TPU's kernel has some 16 arrays of a tile in 64 MiB, a GPU's some 5 in the registers of
#: a multiprocessor, 65,536 in all.
MOST: dict[Chip, int] = {"tpu": 2**19, "gpu": 2**14}
#: Entries of a tile where groups allow the choice: enough for long transfers, and enough tiles for all units.
WANTED: dict[Chip, int] = {"tpu": 2**17, "gpu": 2**12}


@dataclasses.dataclass(frozen=True)
class TilePlan:
    """How the groups of a leaf are cut into tiles.

    Attributes:
        chip: that the tiles are for.
        order: the axes of the leaf in the order of the chip's memory (`_stored_order`).
        shape: of the leaf as the kernel sees it, in that order; neighbouring axes of one kind may be one axis.
        inside: the axes of `shape` inside a group.
        tile: the lengths of a tile along the axes of `shape`. Along the axes inside a group it has at least their
            lengths. Along the others it need not divide them: the last tile is then beyond the leaf's end.
    """

    chip: Chip
    order: Axes
    shape: Shape
    inside: Axes
    tile: Shape

    @property
    def grid(self) -> Shape:
        """The number of tiles along each axis."""
        return tuple(-(-length // part) for length, part in zip(self.shape, self.tile, strict=True))

    @property
    def groups(self) -> Shape:
        """Shape of one number per group."""
        return self.of_groups(self.shape)

    def of_groups(self, lengths: Shape) -> Shape:
        """`lengths` with one along the axes inside a group."""
        return tuple(1 if axis in self.inside else length for axis, length in enumerate(lengths))


def plan_tiles(shape: Shape, inside: Axes, itemsize: int, chip: Chip) -> TilePlan | str:
    """The plan for a leaf, or why there is none.

    Args:
        shape: of the leaf.
        inside: its axes inside a group.
        itemsize: bytes of an entry of the narrowest array.
        chip: what the tiles are for.
    """
    if not math.prod(shape):
        return "it is empty"
    if math.prod(shape) >= 2**31:
        return "it has 2^31 entries or more, beyond the range of a kernel's indices"
    order = _stored_order(shape) if chip == "tpu" else tuple(range(len(shape)))
    inside = tuple(place for place, axis in enumerate(order) if axis in inside)
    shape, inside = _merged([shape[axis] for axis in order], inside, kept=2 if chip == "tpu" else 0)
    tile = [
        _whole(length, chip) if axis in inside else _least(length, axis - len(shape), itemsize, chip)
        for axis, length in enumerate(shape)
    ]
    least = _entries(tile, chip)
    if least > MOST[chip]:
        size = math.prod(shape[axis] for axis in inside)
        return f"groups of {size:,} entries: the least tile has {least:,}, of which a chip holds {MOST[chip]:,}"
    for axis in reversed(range(len(shape))):
        while tile[axis] < shape[axis]:
            longer = [*tile[:axis], min(2 * tile[axis], _whole(shape[axis], chip)), *tile[axis + 1 :]]
            if _entries(longer, chip) > WANTED[chip]:
                break
            tile = longer
    return TilePlan(chip, order, shape, inside, tuple(tile))


def _stored_order(shape):
    """The axes of an array in the order in which XLA for TPUs stores it.

    The last two axes are padded to whole tiles of 8 x 128. XLA takes for them the axes with the least padding, and in
    doubt the last ones (found by compiling for a v5e). If this were not so, XLA would copy the array for the kernel.
    """
    axes = range(len(shape))
    if len(shape) < 2:
        return tuple(axes)

    def padding(pair):
        second, last = (shape[axis] for axis in pair)
        rows = next((few for few in (1, 2, 4) if second <= few), 8)
        return (-(-second // rows) * rows / max(second, 1)) * (-(-last // 128) * 128 / max(last, 1))

    pairs = [(second, last) for last in reversed(axes) for second in reversed(axes) if second != last]
    chosen = min(pairs, key=padding)
    return (*(axis for axis in axes if axis not in chosen), *chosen)


def _merged(shape, inside, kept):
    """Shape and inner axes with neighbours of one kind as one axis, but for the last `kept` axes, which stay.

    A TPU keeps the last two axes of an array in tiles, so that to merge them is to copy it.
    """
    missing = max(2 - len(shape), 0)
    shape, inside = (*(1,) * missing, *shape), [axis + missing for axis in inside]
    lengths, kinds = [], []
    for axis, length in enumerate(shape):
        kind = axis in inside
        is_kept = axis >= len(shape) - kept
        if lengths and not is_kept and (kinds[-1] == kind or 1 in (length, lengths[-1])):
            kinds[-1] = kind if lengths[-1] == 1 else kinds[-1]
            lengths[-1] *= length
        else:
            lengths.append(length)
            kinds.append(kind)
    return tuple(lengths), tuple(axis for axis, kind in enumerate(kinds) if kind)


def _whole(length, chip):
    """The length of a tile that has all of an axis. In Triton it is a power of two."""
    return length if chip == "tpu" else 1 << (length - 1).bit_length()


def _least(length, axis, itemsize, chip):
    """The least length of a tile along an axis between groups; `axis` is counted from the end."""
    if chip == "tpu":  # whole hardware tiles of 8 x 128 numbers of 32 bits, or the whole axis
        least = {-1: 128, -2: 32 // itemsize}.get(axis, 1)
    else:  # memory is read in sectors of 32 bytes, and most arrays are float32
        least = {-1: 8}.get(axis, 1)
    return min(least, _whole(length, chip))


def _entries(tile, chip):
    """The entries of a tile in the chip's memory."""
    if chip == "tpu":
        *rest, rows, columns = tile
        tile = (*rest, -(-rows // 8) * 8, -(-columns // 128) * 128)
    return math.prod(tile)
