"""How the moves change if axes are transposed, joined and cut."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ramda_jax.compaction.symmetry.moves import (
    ANY,
    CannotMove,
    Move,
    State,
    agreed,
    at_places,
    joined_sources,
    move,
    moved_axes,
    of_sources,
    put,
    spread,
    with_sources,
)
from ramda_jax.compaction.tracing.rules.shapes import runs


def _broadcast(visit, states):
    axes = dict(enumerate(visit.equation.params["broadcast_dimensions"]))
    value, shape = visit.inputs[0], visit.outputs[0].shape
    result = moved_axes(states[0], axes)
    stays = {target for axis, target in axes.items() if value.shape[axis] == shape[target]}
    return [result | {axis: ANY for axis in range(len(shape)) if axis not in stays}]


def _transpose(visit, states):
    permutation = visit.equation.params["permutation"]
    return [moved_axes(states[0], {axis: place for place, axis in enumerate(permutation)})]


def _at(state: State, ndim: int, places: Sequence[np.ndarray | None]) -> State:
    """The state of the entries at some positions of each axis (None: all positions)."""
    result: State = {}
    for axis in range(ndim):
        found: Move | None = state.get(axis)
        own = places[axis]
        if found is not None and found is not ANY:
            found = found if own is None else at_places(found, own)
            for other, there in enumerate(places):
                if there is not None and found is not None:
                    found = of_sources(found, ("axis", other), there)
        put(result, axis, found)
    return result


def _slice(visit, states):
    params, shape = visit.equation.params, visit.inputs[0].shape
    strides = params["strides"] or [1] * len(shape)
    cuts = zip(shape, params["start_indices"], params["limit_indices"], strides, strict=True)
    places = [None if (a, b, step) == (0, n, 1) else np.arange(a, b, step) for n, a, b, step in cuts]
    return [_at(states[0], len(shape), places)]


def _split(visit, states):
    axis, sizes = visit.equation.params["axis"], visit.equation.params["sizes"]
    ends = np.cumsum([0, *sizes])
    ndim = len(visit.inputs[0].shape)
    pieces = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
    return [_at(states[0], ndim, [piece if i == axis else None for i in range(ndim)]) for piece in pieces]


def _concatenate(visit, states):
    dimension = visit.equation.params["dimension"]
    result: State = {}
    for axis in range(len(visit.outputs[0].shape)):
        moves = [state.get(axis) for state in states]
        if axis != dimension:
            put(result, axis, agreed(moves))
            continue
        lengths = joined_sources(moves)
        tables, start = [], 0
        for value, found in zip(visit.inputs, moves, strict=True):
            size = value.shape[axis]
            tables.append(start + spread(found, tuple(lengths), tuple(lengths.values()), size))
            start += size
        put(result, axis, move(np.concatenate(tables, -1), lengths))
    if any(("axis", dimension) in found.sources for found in result.values()):
        raise CannotMove("it joins layers")
    return [result]


def _whole_slices(visit, states):
    """A slice whose start is data. Only axes that it takes whole may move."""
    sizes = visit.equation.params["slice_sizes"]
    whole = {axis: axis for axis, (n, size) in enumerate(zip(visit.inputs[0].shape, sizes, strict=True)) if n == size}
    return [moved_axes(states[0], whole)]


def _pad(visit, states):
    whole = {axis: axis for axis, cut in enumerate(visit.equation.params["padding_config"]) if tuple(cut) == (0, 0, 0)}
    return [moved_axes(states[0], whole)]


def _reshape(visit, states):
    state, before, after = states[0], visit.inputs[0].shape, visit.outputs[0].shape
    if visit.equation.params.get("dimensions") is not None or math.prod(after) == 0:
        raise CannotMove("it reads axes in another order")
    old = [axis for axis, n in enumerate(before) if n != 1]
    new = [axis for axis, n in enumerate(after) if n != 1]
    pairs = [
        ([old[i] for i in sources], [new[j] for j in targets])
        for sources, targets in runs([before[axis] for axis in old], [after[axis] for axis in new])
    ]
    plain = {sources[0]: targets[0] for sources, targets in pairs if len(sources) == len(targets) == 1}
    result: State = {}

    def rename(source):
        return source if source[0] == "step" else ("axis", plain[source[1]]) if source[1] in plain else None

    for sources, targets in pairs:
        if len(sources) == len(targets) == 1:
            # After a source is merged with other axes, its positions are known only from the merged axis.
            put(result, targets[0], with_sources(state.get(sources[0]), rename))
        elif all(state.get(axis) is ANY for axis in sources):
            result |= dict.fromkeys(targets, ANY)
        elif any(state.get(axis, ANY) is not ANY for axis in sources):
            _regroup(result, state, before, after, sources, targets, rename)
    return [result]


def _regroup(result, state, before, after, sources, targets, rename):
    """Records the moves of the new axes: which entry comes to each position of all of them together."""
    moves = {axis: state.get(axis) for axis in sources}
    inside = {("axis", axis): axis for axis in sources}
    outside = {key: n for key, n in joined_sources(moves.values()).items() if key not in inside}
    lengths, sizes = tuple(outside.values()), tuple(before[axis] for axis in sources)
    places = np.indices((*lengths, *sizes), sparse=True)
    comes_from = []
    for number, axis in enumerate(sources):
        found, own = moves[axis], places[len(lengths) + number]
        if found is None or found is ANY:
            comes_from.append(own)
            continue
        index = [
            places[len(lengths) + sources.index(inside[key])] if key in inside else places[list(outside).index(key)]
            for key in found.sources
        ]
        comes_from.append(found.table[(*index, own)])
    flat = np.ravel_multi_index(np.broadcast_arrays(*comes_from), sizes)
    flat = np.broadcast_to(flat, (*lengths, *sizes)).reshape(*lengths, math.prod(sizes))
    shape = tuple(after[axis] for axis in targets)
    parts = np.unravel_index(flat.reshape(*lengths, *shape), shape)
    names = [*map(rename, outside), *(("axis", axis) for axis in targets)]
    if None in names:
        raise CannotMove("it removes the axis that tells the layers apart")
    for number, axis in enumerate(targets):
        last = len(lengths) + number
        table = np.moveaxis(parts[number], last, -1)
        put(result, axis, move(table, [name for place, name in enumerate(names) if place != last]))


TRANSFERS: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "concatenate": _concatenate,
    "dynamic_slice": _whole_slices,
    "pad": _pad,
}
