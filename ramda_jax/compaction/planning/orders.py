"""The order of the units in each layer of a stack, so that as many as possible can be deleted.

The layers of a stack share an array, so an index is deleted in all layers or in none. But the order of hidden units is
free in each layer. So dead units of all layers can be moved to the same indices, and as many can be deleted as the
layer with the fewest dead units has. `symmetry` proves that the order is free.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from ramda_jax.compaction.planning.plan import AxisOrder
from ramda_jax.compaction.symmetry.follow import why_not_symmetric
from ramda_jax.compaction.symmetry.moves import Move, State, joined_sources, move, spread
from ramda_jax.compaction.tracing.trace import Dims
from ramda_jax.compaction.tracing.widths import Width

#: The largest number of stack axes that are considered together.
_MOST = 3
#: The axis of a stack: its label, or its position and its length.
_Key = tuple[Any, ...]


def find_orders(
    dims: Dims, leaves: Mapping[str, Any], alive: np.ndarray, threshold: float = 0.0, keep: Collection[str] = ()
) -> dict[str, tuple[AxisOrder, ...]]:
    """Orders that allow more deletions, by leaf; {} if there are none.

    Args:
        dims: the trace.
        leaves: the variables by path.
        alive: a boolean for each node, if all layers have the same order.
        threshold, keep: as in `plan_compaction`.
    """
    widths = [w for w in dims.widths if not w.reason and w.readers and w.name not in keep and w.size > 1]
    proposed = []
    for width in widths:
        options = _options(dims, width, leaves, alive, threshold)
        if first := next(options, None):
            proposed.append((first, options))
    moves = _all_moves(first for first, _ in proposed)
    if moves and why_not_symmetric(dims, moves):
        # Not all together: add width by width, as long as the orders are compatible.
        moves = {}
        for first, options in proposed:
            for own in itertools.chain([first], options):
                together = _all_moves([moves, own])
                if not why_not_symmetric(dims, together):
                    moves = together
                    break
    return {
        path: tuple(_order(axis, found) for axis, found in sorted(state.items()))
        for path, state in moves.items()
        if state
    }


def _options(dims, width, leaves, alive, threshold):
    """Yields moves of the leaves that allow more of a width to be deleted, the most effective ones first."""
    without = []
    for stacks in _stacks(dims, width):
        chosen = set(map(id, stacks))
        if any(chosen <= more for more in without):
            continue  # fewer axes do not allow more deletions
        own = _moves(dims, width, stacks, leaves, alive, threshold)
        if own:
            yield own
        else:
            without.append(chosen)


def _all_moves(every: Iterable[Mapping[str, State]]) -> dict[str, State]:
    result: dict[str, State] = {}
    for moves in every:
        for path, state in moves.items():
            result[path] = _composed(result.get(path, {}), state)
    return result


def _order(axis, found):
    by = tuple(number for _, number in found.sources)
    return AxisOrder(axis, by, _nested(found.table))


def _nested(table):
    return tuple(table.tolist()) if table.ndim == 1 else tuple(map(_nested, table))


def _stacks(dims, width):
    """Yields tuples of axes that may be those of layers, the longest first; an axis is a dict from leaf to position."""
    common = None
    for path in {member.path for member in width.members}:
        own = {member.axis for member in width.members if member.path == path}
        value = dims.leaves[path]
        keys = {}
        for axis, label in enumerate(value.labels):
            if axis not in own and len(label) > 1:
                keys[_label_key(dims, label)] = axis
                keys[("place", axis, len(label))] = axis
        common = {key: {} for key in keys} if common is None else {key: common[key] for key in common if key in keys}
        for key, axes in common.items():
            axes[path] = keys[key]
    # Labels come before positions; two keys for the same axes count once.
    found = [axes for _, axes in sorted((common or {}).items(), key=lambda entry: entry[0][0])]
    distinct = list({tuple(sorted(axes.items())): axes for axes in found}.values())[:_MOST]
    for count in range(len(distinct), 0, -1):
        for chosen in itertools.combinations(distinct, count):
            # Two keys may mean the same axis of a leaf, one by its label and one by its position.
            if all(len({axes[path] for axes in chosen}) == count for path in chosen[0]):
                yield chosen


def _label_key(dims, label):
    return ("label", dims.nodes.roots[label].tobytes())


def _moves(dims: Dims, width: Width, stacks, leaves, alive, threshold) -> dict[str, State]:
    """Moves of the leaves of a width that allow more of it to be deleted; {} if there are none."""
    if any(isinstance(leaves[member.path], jax.ShapeDtypeStruct) for member in width.members):
        return {}  # nothing is known to be dead
    path = width.members[0].path
    lengths = [dims.leaves[path].shape[axes[path]] for axes in stacks]
    living = np.zeros((*lengths, width.size), bool)
    for member in width.readers:
        living |= _read(
            dims, member, [axes[member.path] for axes in stacks], leaves[member.path], alive, threshold, width
        )
    living = living.reshape(-1, width.size)
    most = max(1, int(living.sum(1).max()))
    if most >= max(1, int(living.any(0).sum())):
        return {}
    # Keep the positions at which most layers already have a living unit.
    stays = np.zeros(width.size, bool)
    stays[np.argsort(-living.sum(0), kind="stable")[:most]] = True
    table = np.tile(np.arange(width.size), (len(living), 1))
    for row, own in zip(table, living, strict=True):
        strays = np.flatnonzero(own & ~stays)
        holes = np.flatnonzero(~own & stays)[: len(strays)]
        row[holes], row[strays] = strays, holes
    table = table.reshape(*lengths, width.size)
    result: dict[str, State] = {}
    for member in width.members:
        positions = [np.flatnonzero(member.index == index) for index in range(width.size)]
        if len({len(own) for own in positions}) > 1:
            return {}
        places = np.array(positions)  # [size, copies]
        whole = np.broadcast_to(np.arange(len(member.index)), (*lengths, len(member.index))).copy()
        whole[..., places.ravel()] = places[table].reshape(*lengths, -1)
        found = move(whole, [("axis", axes[member.path]) for axes in stacks])
        if found is not None:
            result.setdefault(member.path, {})[member.axis] = found
    return result


def _read(dims, member, by, leaf, alive, threshold, width):
    """Whether a nonzero entry at living indices reads each unit of each layer: booleans `[*by, size]`."""
    read = ~(np.abs(np.asarray(leaf)) <= threshold)
    for axis, label in enumerate(dims.leaves[member.path].labels):
        if axis not in (member.axis, *by):
            read = read.any(axis, keepdims=True, where=_along(dims.nodes.mask(label, alive), axis, read.ndim))
    read = np.moveaxis(read, (*by, member.axis), range(len(by) + 1)).reshape(*(read.shape[axis] for axis in by), -1)
    result = np.zeros((*read.shape[:-1], width.size), bool)
    for position in np.flatnonzero(member.index >= 0):
        result[..., member.index[position]] |= read[..., position]
    return result


def _along(mask, axis, ndim):
    return mask.reshape([-1 if i == axis else 1 for i in range(ndim)])


def _composed(first: State, second: State) -> State:
    """The state of a leaf that is moved by one state and then by another."""
    result = dict(first)
    for axis, found in second.items():
        before = result.pop(axis, None)
        lengths = joined_sources([before, found])
        size = found.table.shape[-1]
        tables = [spread(table, tuple(lengths), tuple(lengths.values()), size) for table in (before, found)]
        both = move(np.take_along_axis(tables[0], tables[1], -1), lengths)
        if both is not None:
            result[axis] = both
    return result


def moves_of(orders: tuple[AxisOrder, ...]) -> dict[int, Move]:
    """The orders of a leaf as moves."""
    return {order.axis: Move(np.asarray(order.indices), tuple(("axis", axis) for axis in order.by)) for order in orders}
