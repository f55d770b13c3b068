"""Primitives whose indices are data. An axis that is indexed stays; an axis that is copied whole passes.

A slice that is the whole axis always starts at 0: with another start, JAX clamps it to 0 or drops it, whatever the size
of the axis.
"""

import numpy as np

from ramda_jax.compaction.tracing.rules.rule import Rule

_INDEXED = "indexed by data"


def _gather(walk, visit):
    operand, indices = visit.inputs
    params = visit.equation.params
    numbers = params["dimension_numbers"]
    sizes = params["slice_sizes"]
    shape = visit.equation.outvars[0].aval.shape
    batching = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    dropped = set(numbers.collapsed_slice_dims) | set(batching)
    window = []
    for axis, label in enumerate(operand.labels):
        if axis in batching:
            walk.indices.unify(label, indices.labels[batching[axis]])
            continue
        whole = sizes[axis] == operand.shape[axis]
        if not whole:
            walk.indices.freeze(label, _INDEXED)
        if axis not in dropped:
            window.append(label if whole else walk.indices.axis(sizes[axis], _INDEXED))
    # The last axis of the indices holds the coordinates.
    walk.indices.freeze(indices.labels[-1], "coordinates of a gather")
    batch, window = iter(indices.labels[:-1]), iter(window)
    return [[next(window) if axis in numbers.offset_dims else next(batch) for axis in range(len(shape))]]


def _dynamic_slice(walk, visit):
    operand = visit.inputs[0]
    labels = []
    for axis, (label, size) in enumerate(zip(operand.labels, visit.equation.params["slice_sizes"], strict=True)):
        if size == len(label):
            visit.ignored.add(1 + axis)
            labels.append(label)
            continue
        walk.indices.freeze(label, _INDEXED)
        labels.append(walk.indices.axis(size, _INDEXED))
    return [labels]


def _dynamic_update_slice(walk, visit):
    operand, update = visit.inputs[:2]
    for axis, (label, part) in enumerate(zip(operand.labels, update.labels, strict=True)):
        if len(label) == len(part):
            visit.ignored.add(2 + axis)
            walk.indices.unify(label, part)
            continue
        walk.indices.freeze(label, _INDEXED)
        walk.indices.freeze(part, _INDEXED)
    return [operand.labels]


def _scatter(walk, visit):
    operand, indices, updates = visit.inputs
    numbers = visit.equation.params["dimension_numbers"]
    batching = dict(zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True))
    window = iter(numbers.update_window_dims)
    batch = [axis for axis in range(len(updates.shape)) if axis not in numbers.update_window_dims]
    start = _fixed_start(visit)
    for number, axis in enumerate(batch):
        walk.indices.unify(updates.labels[axis], indices.labels[number])
        if number not in batching.values():
            # The entries of the operand to which it is written are data.
            walk.indices.freeze(updates.labels[axis], "scattered")
    walk.indices.freeze(indices.labels[-1], "coordinates of a scatter")
    for axis, label in enumerate(operand.labels):
        if axis in batching:
            walk.indices.unify(label, indices.labels[batching[axis]])
            continue
        if axis in numbers.inserted_window_dims:
            walk.indices.freeze(label, _INDEXED)
            continue
        part = updates.labels[next(window)]
        if len(part) == len(label):
            walk.indices.unify(label, part)
        elif axis in start:
            walk.indices.unify(label[start[axis] : start[axis] + len(part)], part)
        else:
            walk.indices.freeze(label, _INDEXED)
            walk.indices.freeze(part, _INDEXED)
    return [operand.labels]


def _fixed_start(visit):
    """From each axis of a scatter's operand to the start of its single window, if this is a number in the program."""
    operand, indices, updates = visit.inputs
    numbers = visit.equation.params["dimension_numbers"]
    recipe = indices.recipe
    if recipe is None or recipe.paths() or recipe.scans or len(indices.shape) != 1:
        return {}
    place = np.asarray(recipe.evaluate({}, {})).tolist()
    start = dict(zip(numbers.scatter_dims_to_operand_dims, place, strict=True))
    window = [axis for axis in range(len(operand.shape)) if axis not in numbers.inserted_window_dims]
    sizes = {axis: updates.shape[part] for axis, part in zip(window, numbers.update_window_dims, strict=True)}
    places = {axis: (start.get(axis, 0), sizes.get(axis, 1)) for axis in range(len(operand.shape))}
    fits = all(0 <= first <= operand.shape[axis] - size for axis, (first, size) in places.items())
    return {axis: first for axis, (first, _) in places.items()} if fits else {}


def _check_scatter(visit, small, masks):
    """Checks that a window whose start is a number of the program is written to the same indices."""
    theirs = _fixed_start(small)
    for axis, first in _fixed_start(visit).items():
        wanted = int(masks(visit.inputs[0].labels[axis])[:first].sum())
        if theirs.get(axis) != wanted:
            return f"must begin at {wanted} of axis {axis} in the small model, got {theirs.get(axis)}"
    return ""


def _check_gather(visit, small, masks):
    ours, theirs = visit.equation.params["slice_sizes"], small.equation.params["slice_sizes"]
    shapes = visit.inputs[0].shape, small.inputs[0].shape
    for size, small_size, whole, small_whole in zip(ours, theirs, *shapes, strict=True):
        if small_size != (small_whole if size == whole else size):
            return f"has slice_sizes={theirs} in the small model, not the whole axes that {ours} takes"
    return ""


RULES = {
    "gather": Rule(_gather, frozenset({"slice_sizes"}), _check_gather),
    "dynamic_slice": Rule(_dynamic_slice, frozenset({"slice_sizes"})),
    "dynamic_update_slice": Rule(_dynamic_update_slice),
} | {
    name: Rule(_scatter, check=_check_scatter)
    for name in ("scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max")
}
