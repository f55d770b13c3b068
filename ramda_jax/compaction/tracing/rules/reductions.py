"""Primitives that look along an axis: sums, maxima, windows, sorting. The axis stays; the others pass."""

from ramda_jax.compaction.tracing.recipes import Applied
from ramda_jax.compaction.tracing.rules.contractions import read
from ramda_jax.compaction.tracing.rules.rule import Rule


def _freeze(walk, visit, value, axis):
    walk.indices.freeze(value.labels[axis], f"{visit.name} runs over it")


def _without(labels, axes):
    return [label for axis, label in enumerate(labels) if axis not in axes]


def _unify_all(walk, values):
    for value in values[1:]:
        walk.unify(values[0], value)


def _reduce(walk, visit):
    axes = visit.equation.params["axes"]
    [value] = visit.inputs
    for axis in axes:
        _freeze(walk, visit, value, axis)
    return [_without(value.labels, axes)]


def _sum(walk, visit):
    """A norm of parameters, a sum of squares or magnitudes, is a reader like a contraction: zeros add nothing to it."""
    [value] = visit.inputs
    if not _is_magnitude(value.recipe):
        return _reduce(walk, visit)
    axes = visit.equation.params["axes"]
    read(walk, visit, [(value, axes)])
    return [_without(value.labels, axes)]


def _is_magnitude(recipe):
    if not isinstance(recipe, Applied):
        return False
    name, params = recipe.equation.primitive.name, recipe.equation.params
    if name == "convert_element_type":
        return _is_magnitude(recipe.inputs[0])
    is_square = name == "mul" and recipe.inputs[0] is recipe.inputs[1]
    return is_square or name in ("square", "abs") or (name == "integer_pow" and params["y"] in (2, 4))


def _generic_reduce(walk, visit):
    axes = visit.equation.params["dimensions"]
    operands = visit.inputs[: len(visit.inputs) // 2]
    _unify_all(walk, operands)
    for axis in axes:
        _freeze(walk, visit, operands[0], axis)
    return [_without(value.labels, axes) for value in operands]


def _along_axis(parameter):
    def rule(walk, visit):
        _unify_all(walk, visit.inputs)
        _freeze(walk, visit, visit.inputs[0], visit.equation.params[parameter])
        return [visit.inputs[0].labels for _ in visit.equation.outvars]

    return rule


def _top_k(walk, visit):
    [value] = visit.inputs
    params = visit.equation.params
    axis = params.get("axis", params.get("reduction_dimension", len(value.shape) - 1))
    _freeze(walk, visit, value, axis)
    # An approximate top-k may return more than k.
    chosen = walk.indices.axis(visit.equation.outvars[0].aval.shape[axis], f"chosen by {visit.name}")
    return [[chosen if i == axis else label for i, label in enumerate(value.labels)] for _ in visit.equation.outvars]


def _window(walk, visit):
    """Pooling: an axis along which the window has length 1 passes."""
    params = visit.equation.params
    shapes = [variable.aval.shape for variable in visit.equation.outvars]
    operands = visit.inputs[: len(shapes)]
    _unify_all(walk, operands)
    labels = []
    for axis, label in enumerate(operands[0].labels):
        untouched = (
            params["window_dimensions"][axis] == params["window_strides"][axis] == 1
            and tuple(params["padding"][axis]) == (0, 0)
            and params["base_dilation"][axis] == params["window_dilation"][axis] == 1
        )
        if untouched:
            labels.append(label)
            continue
        _freeze(walk, visit, operands[0], axis)
        labels.append(walk.indices.axis(shapes[0][axis], f"{visit.name} runs over it"))
    return [labels for _ in shapes]


def _unpooled(walk, visit):
    """The transpose of pooling, which returns to the shape of its second input."""
    source, operand = visit.inputs
    params = visit.equation.params
    for axis, (label, part) in enumerate(zip(operand.labels, source.labels, strict=True)):
        if params["window_dimensions"][axis] == params["window_strides"][axis] == 1 and len(label) == len(part):
            walk.indices.unify(label, part)
            continue
        _freeze(walk, visit, operand, axis)
        _freeze(walk, visit, source, axis)
    return [operand.labels]


_REDUCTIONS = ("sum", "max", "min", "prod", "and", "or", "xor")

RULES = (
    {f"reduce_{name}": Rule(_reduce) for name in _REDUCTIONS}
    | {"reduce_sum": Rule(_sum)}
    | {name: Rule(_reduce) for name in ("argmax", "argmin")}
    | {f"cum{name}": Rule(_along_axis("axis")) for name in ("sum", "max", "min", "prod", "logsumexp")}
    | {f"reduce_window{name}": Rule(_window) for name in ("", "_sum", "_max", "_min")}
    | {"select_and_gather_add": Rule(_window), "select_and_scatter_add": Rule(_unpooled), "approx_top_k": Rule(_top_k)}
    | {"reduce": Rule(_generic_reduce), "sort": Rule(_along_axis("dimension")), "top_k": Rule(_top_k)}
)
