"""How the moves change if a value is written into another one, such as a cache of keys and values."""

from collections.abc import Callable, Mapping
from typing import Any

from ramda_jax.compaction.symmetry.moves import ANY, CannotMove, State, agreed, moved_axes, put
from ramda_jax.compaction.tracing.rules import indexing


def _written(operand: State, update: State, whole: Mapping[int, int]) -> list[State]:
    """The state of the result of writing an update into an operand.

    Args:
        operand, update: the states of both.
        whole: maps the operand's axes that the update covers whole to the update's axes. Along the other axes nothing
            may move, and no move may depend on them, because positions in the update differ there from those in the
            operand.
    """
    before = moved_axes(operand, {axis: axis for axis in whole})
    new = moved_axes(update, {own: axis for axis, own in whole.items()})
    result: State = {}
    for axis in whole:
        put(result, axis, agreed([before.get(axis), new.get(axis)]))
    return [result]


def _dynamic_update_slice(visit, states):
    sizes = zip(visit.inputs[0].shape, visit.inputs[1].shape, strict=True)
    return _written(states[0], states[1], {axis: axis for axis, (n, part) in enumerate(sizes) if n == part})


def _scatter(visit, states):
    operand, _, updates = visit.inputs
    numbers = visit.equation.params["dimension_numbers"]
    if any(found is not ANY for found in states[1].values()):
        raise CannotMove("its positions are in another order")
    batch = [axis for axis in range(len(updates.shape)) if axis not in numbers.update_window_dims]
    pairs = zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
    whole = {axis: batch[number] for axis, number in pairs}
    without_window = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window = [axis for axis in range(len(operand.shape)) if axis not in without_window]
    for axis, own in zip(window, numbers.update_window_dims, strict=True):
        if operand.shape[axis] == updates.shape[own]:
            whole[axis] = own
    return _written(states[0], states[2], whole)


TRANSFERS: dict[str, Callable[..., Any]] = {"dynamic_update_slice": _dynamic_update_slice} | {
    name: _scatter for name in indexing.RULES if name.startswith("scatter")
}
