"""How the outputs of an equation move, given how its inputs move, for the primitives for which this is known."""

from collections.abc import Callable
from typing import Any

from ramda_jax.compaction.symmetry import contractions, shapes, updates
from ramda_jax.compaction.symmetry.moves import ANY, CannotMove, State, agreed, moved_axes, put
from ramda_jax.compaction.tracing.jaxprs import axes_without_change
from ramda_jax.compaction.tracing.program import Value, Visit
from ramda_jax.compaction.tracing.rules import elementwise, reductions


def constant_state(value: Value) -> State:
    """The state of a constant: the axes along which it is constant."""
    if not value.shape or getattr(value.literal, "size", 0) > 10**6:
        return {}
    return {axis: ANY for axis in axes_without_change(value.literal) if value.shape[axis] > 1}


def _elementwise(visit, states):
    if len(visit.outputs) > 1:  # as many copies as outputs
        return states
    shape, result = visit.outputs[0].shape, {}
    if any(value.shape and len(value.shape) != len(shape) for value in visit.inputs):
        raise CannotMove("its inputs have different numbers of axes")
    for axis, size in enumerate(shape):
        along = [
            state.get(axis) if value.shape[axis] == size else ANY
            for value, state in zip(visit.inputs, states, strict=True)
            if value.shape
        ]
        put(result, axis, agreed(along))
    return [result]


def _without(axes_of):
    def transfer(visit, states):
        removed = axes_of(visit.equation.params)
        left = [axis for axis in range(len(visit.inputs[0].shape)) if axis not in removed]
        agreed_state = _elementwise_state(states)
        return [moved_axes(agreed_state, {axis: place for place, axis in enumerate(left)}) for _ in visit.outputs]

    return transfer


def _elementwise_state(states):
    result: State = {}
    for axis in sorted(set().union(*states)):
        put(result, axis, agreed(state.get(axis) for state in states))
    return result


def _window(visit, states):
    """Pooling: axes along which the window has length 1 pass."""
    params, ndim = visit.equation.params, len(visit.outputs[0].shape)
    whole = {
        axis: axis
        for axis in range(ndim)
        if params["window_dimensions"][axis] == params["window_strides"][axis] == 1
        and tuple(params["padding"][axis]) == (0, 0)
        and params["base_dilation"][axis] == params["window_dilation"][axis] == 1
    }
    state = _elementwise_state(states[: len(visit.outputs)])
    return [moved_axes(state, whole) for _ in visit.outputs]


def _along(parameter):
    def transfer(visit, states):
        state, axis = _elementwise_state(states), visit.equation.params[parameter]
        if state.pop(axis, ANY) is not ANY:
            raise CannotMove("it runs over an axis in another order")
        if any(("axis", axis) in found.sources for found in state.values()):
            raise CannotMove("it mixes layers")
        return [dict(state) for _ in visit.outputs]

    return transfer


def _is_reduction(name):
    return name.startswith(("reduce_", "arg")) and not name.startswith("reduce_window")


_REDUCED = {"axes": lambda params: params["axes"], "dimensions": lambda params: params["dimensions"]}

#: For each primitive a function of a visit and the states of its inputs. It returns the states of its outputs.
TRANSFERS: dict[str, Callable[[Visit, list[State]], Any]] = (
    {name: _elementwise for name in elementwise.RULES}
    | {name: _without(_REDUCED["axes"]) for name in reductions.RULES if _is_reduction(name)}
    | {name: _window for name in reductions.RULES if name.startswith("reduce_window")}
    | {name: _along("axis") for name in reductions.RULES if name.startswith("cum")}
    | {
        "sort": _along("dimension"),
        "squeeze": _without(_REDUCED["dimensions"]),
    }
    | contractions.TRANSFERS
    | shapes.TRANSFERS
    | updates.TRANSFERS
)
