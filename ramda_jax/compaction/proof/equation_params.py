"""Parameters of equations in two traces: which must be equal, and which follow from sizes."""

import numpy as np

#: Sizes that the shapes of the outputs already fix, or that only tell where a jaxpr came from.
_FIXED_BY_SHAPES = {
    "broadcast_in_dim": {"shape", "sharding"},
    "reshape": {"new_sizes", "sharding"},
    "iota": {"shape", "sharding"},
    "split": {"sizes"},
    "dynamic_slice": {"slice_sizes"},
    "slice": {"start_indices", "limit_indices"},
    "gather": {"slice_sizes"},
    "conv_general_dilated": {"feature_group_count", "lhs_shape", "rhs_shape"},
}


def difference(visit, other, masks):
    """What is different in the parameters of two equations of one primitive that work on the whole and on the kept
    indices; "" where nothing is."""
    name = visit.equation.primitive.name
    ours, theirs = visit.equation.params, other.equation.params
    if ours.keys() != theirs.keys():
        return f"has other parameters in the small model: {sorted(ours.keys() ^ theirs.keys())}"
    for key in ours.keys() - _FIXED_BY_SHAPES.get(name, set()):
        if not _is_same(ours[key], theirs[key]):
            return f"has {key}={theirs[key]} in the small model, not {ours[key]}"
    check = _CHECKS.get(name)
    return check(visit, other, masks) if check else ""


def _is_same(one, other):
    # Bodies are compared where they are walked; functions, such as the rule of a custom derivative, do not matter.
    if hasattr(one, "eqns") or hasattr(one, "jaxpr") or (callable(one) and not isinstance(one, type)):
        return True
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(_is_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other) or str(one) == str(other)


def _slice(visit, other, masks):
    ours, theirs = visit.equation.params, other.equation.params
    for axis, label in enumerate(visit.inputs[0].labels):
        mask = masks(label)
        step = ours["strides"][axis] if ours["strides"] else 1
        wanted = np.zeros(len(label), bool)
        wanted[ours["start_indices"][axis] : ours["limit_indices"][axis] : step] = True
        # Of the indices kept, those that the whole slice takes, by their place among all.
        taken = np.flatnonzero(mask)[theirs["start_indices"][axis] : theirs["limit_indices"][axis] : step]
        if not np.array_equal(taken, np.flatnonzero(wanted & mask)):
            start, limit = theirs["start_indices"][axis], theirs["limit_indices"][axis]
            return f"takes {start}:{limit} of axis {axis} in the small model, not what is left of its own slice"
    return ""


def _gather(visit, other, masks):
    ours, theirs = visit.equation.params["slice_sizes"], other.equation.params["slice_sizes"]
    operand, small = visit.inputs[0], other.inputs[0]
    for size, small_size, whole, small_whole in zip(ours, theirs, operand.shape, small.shape, strict=True):
        if small_size != (small_whole if size == whole else size):
            return f"has slice_sizes={theirs} in the small model, not the whole axes that {ours} takes"
    return ""


def _conv(visit, other, masks):
    groups = int(masks(visit.notes["feature_group_count"]).sum())
    found = other.equation.params["feature_group_count"]
    return "" if found == groups else f"must have feature_group_count={groups} in the small model, got {found}"


_CHECKS = {"slice": _slice, "gather": _gather, "conv_general_dilated": _conv}
