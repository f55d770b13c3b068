"""Whether a program computes the same when the units of each layer of a stack are put in another order.

The order of hidden units is free in each layer: if all parameters that make and read them are permuted alike, the
outputs are the same. The permutation is followed through the program. For each value this shows that it has the same
entries as before, moved as its state says. If an equation is unknown, or mixes layers in different orders, nothing is
shown.
"""

from collections.abc import Callable, Iterable, Mapping

from ramda_jax.compaction.symmetry.equations import TRANSFERS, constant_state
from ramda_jax.compaction.symmetry.moves import (
    ANY,
    CannotMove,
    Move,
    Source,
    State,
    agreed,
    check,
    is_by_group,
    put,
    with_sources,
)
from ramda_jax.compaction.tracing.rules import elementwise
from ramda_jax.compaction.tracing.trace import Dims

_CONTROL = ("scan", "while", "cond")
#: Primitives that keep rows at their positions, and so in their groups of a ragged product.
_KEEP_ROWS = {*elementwise.RULES, "ragged_dot_general"}


def why_not_symmetric(dims: Dims, moves: Mapping[str, State]) -> str:
    """Why it cannot be shown that the program computes the same with moved leaves, or "" if it is shown.

    Args:
        dims: the trace.
        moves: a mapping from the paths of leaves to the moves of their axes.
    """
    try:
        _Follow(dims, moves).run()
    except CannotMove as error:
        return str(error)
    return ""


class _Follow:
    def __init__(self, dims, moves):
        self.dims = dims
        self.states: dict[int, State] = {
            value.number: check(dict(moves.get(path, {})), len(value.shape)) for path, value in dims.leaves.items()
        }
        #: The states of carried values that differ from those at the loop's begin, by the positions of loop and value.
        self.carried: dict[tuple[int, int], State] = {}

    def state(self, value) -> State:
        if value.number not in self.states and value.literal is not None:
            self.states[value.number] = constant_state(value)
        return self.states.get(value.number, {})

    def run(self):
        visits = self.dims.walk.visits
        place, open_loops = 0, []
        while place < len(visits):
            visit = visits[place]
            if visit.equation.primitive.name not in _KEEP_ROWS and is_by_group(map(self.state, visit.inputs)):
                raise CannotMove(f"{visit.name} may move rows to other groups")
            if visit.equation.primitive.name not in _CONTROL:
                self._equation(visit)
            elif open_loops and visits[open_loops[-1]].equation is visit.equation:
                start = open_loops.pop()
                if self._leave(visits[start], visit, start):
                    # The loop carries a value whose state differs from that at its begin: follow the loop again from
                    # there.
                    place = start
                    continue
            else:
                open_loops.append(place)
                self._enter(visit, place)
            place += 1
        for value in self.dims.outputs:
            if any(found is not ANY for found in self.state(value).values()):
                raise CannotMove("an output of the model would be in another order")

    def _equation(self, visit):
        states = [self.state(value) for value in visit.inputs]
        transfer = TRANSFERS.get(visit.equation.primitive.name)
        if not any(found is not ANY for state in states for found in state.values()):
            # No input moves. Only values that are constant along an axis have a state to pass on.
            if transfer is None or not (any(states) or visit.equation.primitive.name == "broadcast_in_dim"):
                return
            try:
                results = transfer(visit, states)
            except CannotMove:
                return
        elif transfer is None:
            raise CannotMove(f"it is not known how {visit.name} moves entries")
        else:
            try:
                results = transfer(visit, states)
            except CannotMove as error:
                raise CannotMove(f"{visit.name}: {error}") from None
        for value, state in zip(visit.outputs, results, strict=True):
            self.states[value.number] = check(state, len(value.shape))

    def _enter(self, visit, place):
        carry, steps = _parts(visit)
        for number, (outside, inside) in enumerate(carry):
            known = self.carried.get((place, number))
            begins = self.state(outside)
            self.states[inside.number] = begins if known is None else _agreed_states([begins, known])
        for outside, inside in steps:
            self.states[inside.number] = _into_step(self.state(outside), place)

    def _leave(self, begin, visit, place):
        """Records the states of the results of a loop or a condition; True if the loop must be followed again."""
        name = visit.equation.primitive.name
        count = len(visit.outputs)
        if name == "cond":
            for number, value in enumerate(visit.outputs):
                branches = [self.state(result) for result in visit.inputs[number::count]]
                self.states[value.number] = _agreed_states(branches)
            return False
        carry, _ = _parts(begin)
        results = visit.inputs[len(visit.inputs) - count :]
        again = False
        for number, ((_, inside), result) in enumerate(zip(carry, results, strict=False)):
            before, after = self.state(inside), self.state(result)
            if any(("step", place) in found.sources for found in after.values()):
                raise CannotMove("a loop passes on a value whose order differs from step to step")
            # A value that is constant along an axis may be in any order, and so in the order of later steps.
            known = _agreed_states([before, after])
            if known != before:
                self.carried[place, number] = known
                again = True
        if again:
            return True
        for value, result, number in zip(visit.outputs, results, range(count), strict=True):
            state = self.state(carry[number][1]) if number < len(carry) else _out_of_step(self.state(result), place)
            self.states[value.number] = check(state, len(value.shape))
        return False


def _parts(visit):
    """The values that a loop carries and those that it iterates over, as pairs (outside, inside)."""
    name, inputs, inside = visit.equation.primitive.name, visit.inputs, visit.outputs
    pairs = list(zip(inputs[len(inputs) - len(inside) :], inside, strict=True))
    if name == "scan":
        # The values that a scan iterates over have an axis fewer inside.
        steps = sum(len(b.shape) < len(a.shape) for a, b in pairs)
        return pairs[: len(pairs) - steps], pairs[len(pairs) - steps :]
    return pairs, []


def _agreed_states(states: Iterable[State]) -> State:
    states = list(states)
    result: State = {}
    for axis in sorted(set().union(*states)):
        put(result, axis, agreed(state.get(axis) for state in states))
    return result


def _into_step(state, place):
    if state.get(0, ANY) is not ANY:
        raise CannotMove("the layers of a scan would be in another order")

    def rename(source: Source) -> Source:
        if source == ("axis", 0):
            return ("step", place)
        return ("axis", source[1] - 1) if source[0] == "axis" else source

    return _renamed({axis - 1: found for axis, found in state.items() if axis}, rename)


def _out_of_step(state, place):
    def rename(source: Source) -> Source:
        if source == ("step", place):
            return ("axis", 0)
        return ("axis", source[1] + 1) if source[0] == "axis" else source

    return _renamed({axis + 1: found for axis, found in state.items()}, rename)


def _renamed(state: Mapping[int, Move], rename: Callable[[Source], Source]) -> State:
    result: State = {}
    for axis, found in state.items():
        put(result, axis, with_sources(found, rename))
    return result
