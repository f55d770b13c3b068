"""The bias that is added to a sum of products before anything else reads the sum, and the steps in between."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp

from ramda_jax.compaction.folding.moved import CASTS, MOVES, moved_leaf
from ramda_jax.compaction.tracing.program import Value, Visit
from ramda_jax.compaction.tracing.trace import Dims


@dataclasses.dataclass(frozen=True)
class Bias:
    """A leaf that is added to a sum.

    Attributes:
        path: the leaf.
        value: the added value, which consists of the leaf's entries.
        sign: 1 or -1, the sign with which terms removed from the sum must be added to the leaf.
        steps: the equations between the sum and the bias, as (visit, the position of the sum among its inputs).
    """

    path: str
    value: Value
    sign: int
    steps: tuple[tuple[Visit, int], ...]


class Biases:
    """Finds the biases of a trace.

    Args:
        dims: the trace.
        uses: the number of uses of each leaf.
        allowed: the paths of the leaves that may be changed.
    """

    def __init__(self, dims: Dims, uses: Mapping[str, int], allowed: Collection[str]) -> None:
        self._uses, self._allowed = uses, allowed
        self._outputs = {value.number for value in dims.outputs}
        self._readers: dict[int, list[Visit]] = {}
        for visit in dims.walk.visits:
            for number in {value.number for value in visit.inputs}:
                self._readers.setdefault(number, []).append(visit)

    def of(self, value: Value) -> Bias | str:
        """The bias that is added to a value, or the reason why there is none."""
        steps = []
        while True:
            readers = self._readers.get(value.number, [])
            if value.number in self._outputs or len(readers) != 1:
                return "no bias is added to the sum before it is read"
            [visit] = readers
            name = visit.equation.primitive.name
            places = [place for place, given in enumerate(visit.inputs) if given.number == value.number]
            if len(places) != 1:
                return f"{visit.name} reads the sum twice before a bias is added"
            [place] = places
            others = [given for given in visit.inputs if given.number != value.number]
            if name in ("add", "add_any", "sub"):
                [other] = others
                path = moved_leaf(other.recipe)
                if path is not None and path in self._allowed:
                    if self._uses[path] > 1:
                        return f"'{path}' is added to the sum, and used elsewhere too"
                    # In x - b and in b - x, b must lose the terms that the sum x loses.
                    return Bias(path, other, -1 if name == "sub" else 1, tuple(steps))
            elif name in ("mul", "div"):
                [other] = others
                if (other.recipe is None and other.literal is None) or (name == "div" and place == 1):
                    return f"{visit.name}, which does not scale the sum by parameters, comes before a bias"
            elif name not in (*MOVES, *CASTS) or len(visit.inputs) > 1:
                return f"{visit.name} comes before a bias"
            steps.append((visit, place))
            value = visit.outputs[0]


def after(bias: Bias, part: Any, known: Any) -> Any:
    """A part of the sum after the steps before the bias; `known` returns the values that have a recipe."""
    for visit, place in bias.steps:
        name, out = visit.equation.primitive.name, visit.outputs[0]
        if name in ("add", "add_any", "sub"):
            part = jnp.broadcast_to(-part if name == "sub" and place == 1 else part, out.shape)
        elif name in ("mul", "div"):
            [other] = [value for i, value in enumerate(visit.inputs) if i != place]
            part = part * known(other) if name == "mul" else part / known(other)
        else:
            part = visit.equation.primitive.bind(part, **visit.equation.params)
    return part
