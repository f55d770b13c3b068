"""How the entries of a value move when the units of each layer of a stack are put in another order.

A *move* of an axis says which entry comes to each position: entry `table[..., j]` comes to `j`. The leading axes of the
table are the move's *sources*, on which it depends: other axes of the value, or the steps of scans around it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

#: What a move depends on: ("axis", number), ("step", number of the scan), or (`GROUP`, number of the value with the
#: groups' sizes). The last is the group of a ragged product in which a row is.
Source = tuple[str, int]
GROUP = "group"


class CannotMove(Exception):
    """An equation is not known to return moved values for moved inputs; the message says which equation."""


@dataclasses.dataclass(frozen=True, eq=False)
class Move:
    """A move of an axis.

    Attributes:
        table: int array `[n_1, ..., n_k, size]`.
        sources: the sources of its leading axes, in order.
    """

    table: np.ndarray[Any, Any]
    sources: tuple[Source, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Move) and self.sources == other.sources and np.array_equal(self.table, other.table)

    def __hash__(self) -> int:
        raise TypeError("A move is not hashable: it holds an array.")


#: The move of an axis along which all entries are the same. It agrees with every move.
ANY = Move(np.zeros(0, np.int64), (("any", 0),))

#: The moves of the axes that move, or along which all entries are the same; the other axes do not move.
State = dict[int, Move]


def move(table: np.ndarray[Any, Any], sources: Iterable[Source]) -> Move | None:
    """A move with its sources in order, without those on which it does not depend; None if nothing moves."""
    given = list(sources)
    order = sorted(range(len(given)), key=lambda number: given[number])
    table, left = table.transpose(*order, len(given)), [given[number] for number in order]
    for axis in reversed(range(len(left))):
        if (table == table.take([0], axis)).all():
            table = table.take(0, axis)
            del left[axis]
    is_still = not left and np.array_equal(table, np.arange(len(table)))
    return None if is_still else Move(table, tuple(left))


def with_sources(found: Move | None, rename: Callable[[Source], Source | None]) -> Move | None:
    """A move with other names for its sources; raises if a source has no new name."""
    if found is None or found is ANY:
        return found
    sources = [rename(source) for source in found.sources]
    if None in sources:
        raise CannotMove("it removes the axis that tells the layers apart")
    return move(found.table, [source for source in sources if source is not None])


def is_by_group(states: Iterable[State]) -> bool:
    """Whether a move depends on the groups of rows. It is then valid only while the rows keep their positions."""
    moves = (found for state in states for found in state.values() if found is not ANY)
    return any(kind == GROUP for found in moves for kind, _ in found.sources)


def agreed(moves: Iterable[Move | None]) -> Move | None:
    """The common move of axes that are combined entry by entry; raises if they move differently."""
    result = ANY
    for found in moves:
        if found is ANY:
            continue
        if result is not ANY and found != result:
            raise CannotMove("its inputs are in different orders")
        result = found
    return result


def moved_axes(state: Mapping[int, Move], axes: Mapping[int, int]) -> State:
    """The state of a value with the axes of another one; `axes` maps old to new numbers. Other axes must not move."""

    def rename(source: Source) -> Source | None:
        kind, number = source
        if kind != "axis":
            return source
        return ("axis", axes[number]) if number in axes else None

    result = {}
    for axis, found in state.items():
        if axis in axes:
            put(result, axes[axis], with_sources(found, rename))
        elif found is not ANY:
            raise CannotMove("it runs over an axis in another order")
    return result


def put(state: State, axis: int, found: Move | None) -> None:
    """Records the move of an axis, if there is a move."""
    if found is not None:
        state[axis] = found


def check(state: State, ndim: int) -> State:
    """Returns the state; raises if a move depends on an axis that itself moves."""
    for found in state.values():
        for kind, number in found.sources if found is not ANY else ():
            if kind == "axis" and (number >= ndim or state.get(number, ANY) is not ANY):
                raise CannotMove("the layers themselves are in another order")
    return state


def at_places(found: Move, places: np.ndarray) -> Move | None:
    """The move of the entries at some positions of an axis. It must map these positions to themselves."""
    back = np.full(found.table.shape[-1], -1)
    back[places] = np.arange(len(places))
    table = back[found.table[..., places]]
    if (table < 0).any():
        raise CannotMove("it takes a part of an axis in another order")
    return move(table, found.sources)


def of_sources(found: Move, source: Source, places: np.ndarray) -> Move | None:
    """The move if only some positions of a source are kept."""
    if source not in found.sources:
        return found
    return move(found.table.take(places, found.sources.index(source)), found.sources)


def spread(found: Move | None, sources: tuple[Source, ...], shape: tuple[int, ...], size: int) -> np.ndarray:
    """The table of a move over more sources, whose lengths are `shape`."""
    if found is None or found is ANY:
        return np.broadcast_to(np.arange(size), (*shape, size))
    own = [found.sources.index(source) for source in sources if source in found.sources]
    table = found.table.transpose(*own, len(own))
    lengths = [n if source in found.sources else 1 for source, n in zip(sources, shape, strict=True)]
    return np.broadcast_to(table.reshape(*lengths, size), (*shape, size))


def joined_sources(moves: Iterable[Move | None]) -> dict[Source, int]:
    """All sources of the moves, in order, with their lengths."""
    lengths: dict[Source, Any] = {}
    for found in moves:
        if found is not None and found is not ANY:
            lengths |= dict(zip(found.sources, found.table.shape, strict=False))
    return dict(sorted(lengths.items()))
