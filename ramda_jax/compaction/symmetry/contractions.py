"""How sums over products move."""

from collections.abc import Callable
from typing import Any

from ramda_jax.compaction.symmetry.moves import ANY, GROUP, CannotMove, State, agreed, put, with_sources


def _dot_general(visit, states):
    (contracted, batch) = visit.equation.params["dimension_numbers"]
    sides = [
        (value, state, own, both)
        for value, state, own, both in zip(visit.inputs, states, contracted, batch, strict=True)
    ]
    return [_contract(sides)]


def _contract(sides):
    """The state of a sum over products. `sides` has for both factors (value, state, summed axes, common axes)."""
    named, out = [], []
    for side, (value, state, summed, common) in enumerate(sides):
        names = {axis: ("sum", n) for n, axis in enumerate(summed)} | {
            axis: ("axis", n) for n, axis in enumerate(common)
        }
        free = [axis for axis in range(len(value.shape)) if axis not in names]
        out.append(free)
        names |= {axis: ("free", 1000 * side + axis) for axis in free}

        def rename(source, names=names):
            return names[source[1]] if source[0] == "axis" else source

        named.append({names[axis]: with_sources(found, rename) for axis, found in state.items()})
    result: State = {}
    places = {("axis", n): n for n in range(len(sides[0][3]))}
    for side, free in enumerate(out):
        places |= {("free", 1000 * side + axis): len(places) + n for n, axis in enumerate(free)}
    for n in range(len(sides[0][2])):
        agreed(moves.get(("sum", n)) for moves in named)

    def renumber(source):
        if source[0] == "step":
            return source
        return ("axis", places[source]) if source in places else None

    for name, place in places.items():
        found = [moves.get(name) for moves in named]
        move = agreed(found) if name[0] == "axis" else found[name[1] // 1000]
        put(result, place, with_sources(move, renumber))
    return result


def _ragged_dot(visit, states):
    """Multiplies each row of `[m, k]` by the matrix of its group, in `[groups, k, n]`."""
    numbers = visit.equation.params["ragged_dot_dimension_numbers"]
    ((summed,), (into,)), batch = numbers.dot_dimension_numbers
    groups, place = tuple(numbers.rhs_group_dimensions), visit.inputs[2].number
    if any(batch) or len(groups) != 1 or tuple(numbers.lhs_ragged_dimensions) != (1 - summed,):
        raise CannotMove("its groups are not groups of rows")
    by = (states[0].get(1 - summed), states[1].get(groups[0]), states[2].get(0))
    if any(found is not None and found is not ANY for found in by):
        raise CannotMove("the layers themselves are in another order")
    rows, columns = states[0].get(summed), states[1].get(into)
    if rows is not None and rows is not ANY and any(kind == "axis" for kind, _ in rows.sources):
        raise CannotMove("it removes the axis that tells the layers apart")

    def of_group(source):
        return (GROUP, place) if source == ("axis", groups[0]) else None if source[0] == "axis" else source

    agreed([rows, with_sources(columns, of_group)])
    [out] = {0, 1, 2} - {into, *groups}
    result: State = {}
    put(result, 1, with_sources(states[1].get(out), of_group))
    return [result]


def _convolution(visit, states):
    numbers, groups = visit.equation.params["dimension_numbers"], visit.equation.params["feature_group_count"]
    lhs, rhs = visit.inputs
    (batch, feature, *_), (out, into, *_) = numbers.lhs_spec, numbers.rhs_spec
    is_depthwise = groups == lhs.shape[feature] == rhs.shape[out] and rhs.shape[into] == 1
    if (groups > 1 and not is_depthwise) or visit.equation.params["batch_group_count"] > 1:
        raise CannotMove("it has groups")
    if any(found is not ANY for state, own in zip(states, ((batch, feature), (out, into)), strict=True)
           for axis, found in state.items() if axis not in own):  # fmt: skip
        raise CannotMove("it slides over an axis in another order")
    to_batch, to_out, *_ = numbers.out_spec
    summed, channels = states[0].get(feature), states[1].get(out)
    for found in (summed, channels, states[1].get(into), states[0].get(batch)):
        if found is not None and found is not ANY and any(kind == "axis" for kind, _ in found.sources):
            raise CannotMove("it removes the axis that tells the layers apart")
    channels = agreed([summed, channels]) if is_depthwise else channels
    if not is_depthwise:
        agreed([summed, states[1].get(into)])
    result: State = {}
    # Padding differs from the entries beside it, so nothing is known about the window's axes.
    put(result, to_batch, states[0].get(batch))
    put(result, to_out, channels)
    return [result]


TRANSFERS: dict[str, Callable[..., Any]] = {
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "ragged_dot_general": _ragged_dot,
}
