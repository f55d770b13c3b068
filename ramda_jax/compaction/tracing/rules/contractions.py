"""Primitives that sum over products. They read indices, possibly by zeros."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ramda_jax.compaction.tracing.program import Reader, Value, Visit
from ramda_jax.compaction.tracing.rules.rule import Rule

if TYPE_CHECKING:
    from ramda_jax.compaction.tracing.walk import Walk

_WITH_ACTIVATION = "contracted with something that depends on the input"


def _dot_general(walk, visit):
    lhs, rhs = visit.inputs
    numbers = visit.equation.params["dimension_numbers"]
    (lhs_contracted, rhs_contracted), (lhs_batch, rhs_batch) = numbers
    _unify_sums(walk, lhs, rhs, numbers)
    read(walk, visit, [(lhs, lhs_contracted), (rhs, rhs_contracted)])
    labels = [lhs.labels[axis] for axis in lhs_batch]
    for value, contracted, batch in ((lhs, lhs_contracted, lhs_batch), (rhs, rhs_contracted, rhs_batch)):
        labels += [label for axis, label in enumerate(value.labels) if axis not in (*contracted, *batch)]
    return [labels]


def _unify_sums(walk, lhs, rhs, numbers):
    (lhs_contracted, rhs_contracted), (lhs_batch, rhs_batch) = numbers
    for i, j in [*zip(lhs_contracted, rhs_contracted, strict=True), *zip(lhs_batch, rhs_batch, strict=True)]:
        walk.indices.unify(lhs.labels[i], rhs.labels[j])


def read(walk: "Walk", visit: Visit, factors: Sequence[tuple[Value, Sequence[int]]]) -> None:
    """Records the axes that are summed over. `factors` has (value, its contracted axes in the order of the sum)."""
    contracted = [factors[0][0].labels[axis] for axis in factors[0][1]]
    sides, own, activations = [], [], []
    for value, axes in factors:
        if value.recipe is None:
            activations.append((value, tuple(axes)))
            continue
        others = {axis: label for axis, label in enumerate(value.labels) if axis not in axes}
        sides.append((value.recipe, tuple(axes), others))
        own.append([value.labels[axis] for axis in axes])
    if contracted:  # an outer product sums over nothing
        walk.readers.append(Reader(visit.name, contracted, sides, own, activations))


def _ragged_dot_general(walk, visit):
    """The rows lie group after group, and each group has its own matrix. Which row is in which group is data."""
    lhs, rhs, sizes = visit.inputs
    numbers = visit.equation.params["ragged_dot_dimension_numbers"]
    (lhs_contracted, rhs_contracted), (lhs_batch, rhs_batch) = numbers.dot_dimension_numbers
    ragged = tuple(numbers.lhs_ragged_dimensions)
    _unify_sums(walk, lhs, rhs, numbers.dot_dimension_numbers)
    reason = "groups of a ragged product"
    for label in [
        *(lhs.labels[axis] for axis in ragged),
        *(rhs.labels[axis] for axis in numbers.rhs_group_dimensions),
        *sizes.labels,
    ]:
        walk.indices.freeze(label, reason)
    read(walk, visit, [(lhs, lhs_contracted), (rhs, rhs_contracted)])
    labels = [lhs.labels[axis] for axis in lhs_batch]
    if set(ragged) & set(lhs_contracted):
        labels = [walk.indices.axis(sizes.shape[-1], reason), *labels]
    inside = (*rhs_contracted, *rhs_batch, *numbers.rhs_group_dimensions)
    labels += [label for axis, label in enumerate(lhs.labels) if axis not in (*lhs_contracted, *lhs_batch)]
    labels += [label for axis, label in enumerate(rhs.labels) if axis not in inside]
    return [labels]


def _conv_general_dilated(walk, visit):
    lhs, rhs = visit.inputs
    params = visit.equation.params
    numbers = params["dimension_numbers"]
    groups = params["feature_group_count"]
    if params["batch_group_count"] != 1:
        return None
    indices = walk.indices
    batch, feature, *space = numbers.lhs_spec
    out, into, *window = numbers.rhs_spec
    for value, axes in ((lhs, space), (rhs, window)):
        for axis in axes:
            indices.freeze(value.labels[axis], f"{visit.name} slides over it")

    # A grouped convolution is a batch of plain convolutions: both sides have (groups, features of a group).
    per_group = len(rhs.labels[into])
    lhs_groups, features = indices.split(lhs.labels[feature], (groups, per_group))
    rhs_groups, _ = indices.split(rhs.labels[out], (groups, len(rhs.labels[out]) // groups))
    indices.unify(lhs_groups, rhs_groups)
    indices.unify(features, rhs.labels[into])
    visit.notes["feature_group_count"] = lhs_groups
    if rhs.recipe is not None:
        others = {axis: label for axis, label in enumerate(rhs.labels) if axis != into}
        own = [rhs.labels[into]]
        # In a grouped convolution an index of the sum stands for an index of every group.
        activations = [(lhs, (feature,))] if groups == 1 and lhs.recipe is None else []
        walk.readers.append(Reader(visit.name, own, [(rhs.recipe, (into,), others)], [own], activations))
    else:
        indices.freeze(features, f"{visit.name}: {_WITH_ACTIVATION}")

    shape = visit.equation.outvars[0].aval.shape
    labels = [indices.always(size) for size in shape]
    out_batch, out_feature, *_ = numbers.out_spec
    labels[out_batch] = lhs.labels[batch]
    labels[out_feature] = rhs.labels[out]
    return [labels]


def _check_groups(visit, small, masks):
    ours, found = (each.equation.params["feature_group_count"] for each in (visit, small))
    label = visit.notes.get("feature_group_count")
    # Without a note the form of the convolution is unknown, and nothing that it touches is deleted.
    groups = ours if label is None else int(masks(label).sum())
    return "" if found == groups else f"must have feature_group_count={groups} in the small model, got {found}"


RULES = {
    "dot_general": Rule(_dot_general),
    "ragged_dot_general": Rule(_ragged_dot_general),
    "conv_general_dilated": Rule(_conv_general_dilated, frozenset({"feature_group_count"}), _check_groups),
}
