"""Primitives that move, join and cut axes."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ramda_jax.compaction.tracing.rules.rule import Rule


def _broadcast_in_dim(walk, visit):
    value = visit.inputs[0]
    shape = visit.equation.outvars[0].aval.shape
    # A broadcast axis has no data of its own, so it may have any length that the other operands have.
    labels = [walk.indices.axis(size) for size in shape]
    for axis, target in enumerate(visit.equation.params["broadcast_dimensions"]):
        if value.shape[axis] == shape[target]:
            labels[target] = value.labels[axis]
    return [labels]


def _transpose(walk, visit):
    labels = visit.inputs[0].labels
    return [[labels[axis] for axis in visit.equation.params["permutation"]]]


def _squeeze(walk, visit):
    dropped = visit.equation.params["dimensions"]
    labels = visit.inputs[0].labels
    for axis in dropped:
        walk.indices.freeze(labels[axis], "one index, taken by its number")
    return [[label for axis, label in enumerate(labels) if axis not in dropped]]


def runs(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[range, range]]:
    """The shortest pairs of runs of axes that have the same number of entries, as pairs of ranges."""
    i = j = 0
    while i < len(before) or j < len(after):
        start_i, start_j = i, j
        size_i = size_j = 1
        while True:
            if size_i <= size_j and i < len(before):
                size_i, i = size_i * before[i], i + 1
            elif j < len(after):
                size_j, j = size_j * after[j], j + 1
            elif i < len(before):
                size_i, i = size_i * before[i], i + 1
            if size_i == size_j and (i > start_i or j > start_j):
                break
            if i == len(before) and j == len(after):
                break
        yield range(start_i, i), range(start_j, j)


def _reshape(walk, visit):
    value = visit.inputs[0]
    shape = visit.equation.outvars[0].aval.shape
    # The order in which the axes are read, if it is not their own, as in a convolution under `vmap`.
    order = visit.equation.params.get("dimensions") or range(len(value.shape))
    # Axes of length 1 may be added and removed freely, and would only separate the runs.
    before = [value.labels[axis] for axis in order if value.shape[axis] != 1]
    after = [axis for axis, size in enumerate(shape) if size != 1]
    labels = [walk.indices.always(1)] * len(shape)
    sizes = [len(label) for label in before], [shape[axis] for axis in after]
    if math.prod(shape) == 0:
        for axis, label in zip(after, before, strict=False):
            labels[axis] = label
        return [labels] if sizes[0] == sizes[1] else None
    for sources, targets in runs(*sizes):
        merged = walk.indices.product([before[i] for i in sources])
        parts = walk.indices.split(merged, tuple(shape[after[j]] for j in targets))
        for j, part in zip(targets, parts, strict=True):
            labels[after[j]] = part
    return [labels]


def _concatenate(walk, visit):
    dimension = visit.equation.params["dimension"]
    labels = list(visit.inputs[0].labels)
    for axis in range(len(labels)):
        if axis != dimension:
            for value in visit.inputs[1:]:
                walk.indices.unify(labels[axis], value.labels[axis])
    labels[dimension] = np.concatenate([value.labels[dimension] for value in visit.inputs])
    return [labels]


def _stack(walk, visit):
    axis = visit.equation.params["axis"]
    labels = list(visit.inputs[0].labels)
    for value in visit.inputs[1:]:
        for first, label in zip(labels, value.labels, strict=True):
            walk.indices.unify(first, label)
    labels.insert(axis, walk.indices.axis(len(visit.inputs), "the axis of a stack"))
    return [labels]


def _unstack(walk, visit):
    axis = visit.equation.params["axis"]
    value = visit.inputs[0]
    walk.indices.freeze(value.labels[axis], "the axis of an unstack")
    kept = [label for i, label in enumerate(value.labels) if i != axis]
    return [kept for _ in visit.equation.outvars]


def _slice(walk, visit):
    params = visit.equation.params
    strides = params["strides"] or [1] * len(params["start_indices"])
    cuts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return [[label[a:b:step] for label, (a, b, step) in zip(visit.inputs[0].labels, cuts, strict=True)]]


def _split(walk, visit):
    axis, sizes = visit.equation.params["axis"], visit.equation.params["sizes"]
    labels = visit.inputs[0].labels
    pieces = np.split(labels[axis], np.cumsum(sizes)[:-1])
    return [[piece if i == axis else label for i, label in enumerate(labels)] for piece in pieces]


def _tile(walk, visit):
    value = visit.inputs[0]
    labels = []
    for label, reps in zip(value.labels, visit.equation.params["reps"], strict=True):
        # As in a broadcast, an axis that repeats an index has no data of its own.
        labels.append(walk.indices.axis(reps) if len(label) == 1 else np.tile(label, reps))
    return [labels]


def _check_tile(visit, small, masks):
    for axis, (ours, theirs) in enumerate(
        zip(visit.equation.params["reps"], small.equation.params["reps"], strict=True)
    ):
        if visit.inputs[0].shape[axis] != 1 and ours != theirs:
            return f"repeats axis {axis} {theirs} times in the small model, not {ours} times"
    return ""


def _pad(walk, visit):
    labels = []
    configs = visit.equation.params["padding_config"]
    for label, (low, high, interior) in zip(visit.inputs[0].labels, configs, strict=True):
        if (low, high, interior) == (0, 0, 0):
            labels.append(label)
            continue
        # Channels of padding may be removed if the channels beside them may. The code determines their number.
        reason = None if walk.indices.is_free(label).any() else "padding"
        if interior:
            # Interior padding does not commute with deleting indices.
            walk.indices.freeze(label, "padding between its indices")
        if min(low, high) < 0:
            walk.indices.freeze(label, "cut by a negative padding")
        spread = walk.indices.new((len(label) - 1) * (interior + 1) + 1 if len(label) else 0, "padding")
        spread[:: interior + 1] = label
        ends = [walk.indices.new(max(width, 0), reason) for width in (low, high)]
        padded = np.concatenate([ends[0], spread, ends[1]])
        labels.append(padded[max(-low, 0) : len(padded) - max(-high, 0)])
    return [labels]


def _check_pad(visit, small, masks):
    pairs = zip(visit.equation.params["padding_config"], small.equation.params["padding_config"], strict=True)
    for axis, (ours, theirs) in enumerate(pairs):
        low, high, interior = ours
        mask = masks(visit.outputs[0].labels[axis])
        wanted = (
            int(mask[:low].sum()) if low > 0 else low,
            int(mask[len(mask) - high :].sum()) if high > 0 else high,
            interior,
        )
        if tuple(theirs) != wanted:
            return f"must pad axis {axis} by {wanted[:2]} in the small model, got {tuple(map(int, theirs[:2]))}"
    return ""


def _rev(walk, visit):
    reversed_axes = visit.equation.params["dimensions"]
    labels = visit.inputs[0].labels
    return [[label[::-1] if axis in reversed_axes else label for axis, label in enumerate(labels)]]


def _iota(walk, visit):
    shape = visit.equation.outvars[0].aval.shape
    counted = visit.equation.params["dimension"]
    return [
        [walk.indices.axis(size, "counted by iota" if axis == counted else None) for axis, size in enumerate(shape)]
    ]


def _empty(walk, visit):
    return [[walk.indices.axis(size) for size in visit.equation.outvars[0].aval.shape]]


def _bitcast(walk, visit):
    """A cast to a dtype of another size adds an axis of the parts, or removes it."""
    labels = visit.inputs[0].labels
    shape = visit.equation.outvars[0].aval.shape
    if len(shape) > len(labels):
        return [[*labels, walk.indices.axis(shape[-1], "parts of an entry")]]
    if len(shape) < len(labels):
        walk.indices.freeze(labels[-1], "parts of an entry")
    return [labels[: len(shape)]]


def _check_slice(visit, small, masks):
    ours, theirs = visit.equation.params, small.equation.params
    for axis, label in enumerate(visit.inputs[0].labels):
        mask = masks(label)
        step = ours["strides"][axis] if ours["strides"] else 1
        wanted = np.zeros(len(label), bool)
        wanted[ours["start_indices"][axis] : ours["limit_indices"][axis] : step] = True
        # The indices that the small model's slice takes, as indices of the whole axis.
        taken = np.flatnonzero(mask)[theirs["start_indices"][axis] : theirs["limit_indices"][axis] : step]
        if not np.array_equal(taken, np.flatnonzero(wanted & mask)):
            start, limit = theirs["start_indices"][axis], theirs["limit_indices"][axis]
            return f"takes {start}:{limit} of axis {axis} in the small model, not what is left of its own slice"
    return ""


RULES = {
    "broadcast_in_dim": Rule(_broadcast_in_dim, frozenset({"shape", "sharding"})),
    "transpose": Rule(_transpose),
    "squeeze": Rule(_squeeze),
    "reshape": Rule(_reshape, frozenset({"new_sizes", "sharding"})),
    "concatenate": Rule(_concatenate),
    "stack": Rule(_stack),
    "unstack": Rule(_unstack),
    "slice": Rule(_slice, frozenset({"start_indices", "limit_indices"}), _check_slice),
    "split": Rule(_split, frozenset({"sizes"})),
    "tile": Rule(_tile, frozenset({"reps"}), _check_tile),
    "pad": Rule(_pad, frozenset({"padding_config"}), _check_pad),
    "rev": Rule(_rev),
    "bitcast_convert_type": Rule(_bitcast),
    "empty": Rule(_empty, frozenset({"shape", "out_sharding"})),
    "iota": Rule(_iota, frozenset({"shape", "sharding"})),
}
