"""Primitives whose indices are data: what is indexed stays, what comes along whole passes."""

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
}
