"""Primitives whose indices are data: what is indexed stays, what comes along whole passes."""

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
        # A slice that is the whole axis can only start at 0.
        whole = sizes[axis] == operand.shape[axis] and axis not in numbers.start_index_map
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
    for label, size in zip(operand.labels, visit.equation.params["slice_sizes"], strict=True):
        if size == len(label):
            labels.append(label)
            continue
        walk.indices.freeze(label, _INDEXED)
        labels.append(walk.indices.axis(size, _INDEXED))
    return [labels]


def _dynamic_update_slice(walk, visit):
    operand, update = visit.inputs[:2]
    for label, part in zip(operand.labels, update.labels, strict=True):
        if len(label) == len(part):
            walk.indices.unify(label, part)
            continue
        walk.indices.freeze(label, _INDEXED)
        walk.indices.freeze(part, _INDEXED)
    return [operand.labels]


RULES = {
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
}
