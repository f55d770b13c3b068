"""Masks of the values in loops: a fact about a carried value must hold at the start and be kept by each step."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ramda_jax.compaction.tracing.jaxprs import scan_counts
from ramda_jax.compaction.tracing.program import Value, Visit

_LOOPS = ("scan", "while", "cond")

#: For each axis of a value a boolean for each index, such as whether it is zero. A number has one axis with one index.
Masks = list[np.ndarray]


class Known(Protocol):
    """The masks of the values of a trace."""

    def of(self, value: Value) -> Masks:
        """The masks of a value."""
        ...

    def set(self, value: Value, masks: Masks) -> None:
        """Sets the masks of a value, and replaces earlier ones."""
        ...

    def visit(self, visit: Visit) -> None:
        """Finds the masks of the outputs of an equation."""
        ...


class Loops:
    """Visits the equations of a trace in order, and the bodies of loops until the masks no longer change.

    Args:
        known: the masks of the values so far.
        visits: the visits of the trace. A loop has two: one where it begins, with the arguments of its body, and one
            where it ends.
    """

    def __init__(self, known: Known, visits: Sequence[Visit]) -> None:
        self._known, self._visits = known, visits
        self._ends: dict[int, int] = {}
        open_loops: list[int] = []
        for place, visit in enumerate(visits):
            if visit.equation.primitive.name not in _LOOPS:
                continue
            if open_loops and visits[open_loops[-1]].equation is visit.equation:
                self._ends[open_loops.pop()] = place
            else:
                open_loops.append(place)

    def run(self) -> None:
        """Finds the masks of all values."""
        self._run(0, len(self._visits))

    def _run(self, place, end):
        while place < end:
            if place in self._ends:
                last = self._ends[place]
                branches = self._visits[place].equation.primitive.name == "cond"
                (self._cond if branches else self._loop)(place, last)
                place = last + 1
            else:
                self._known.visit(self._visits[place])
                place += 1

    def _cond(self, first, last):
        self._run(first + 1, last)
        leave = self._visits[last]
        count = len(leave.outputs)
        for number, value in enumerate(leave.outputs):
            every = [self._known.of(result) for result in leave.inputs[number::count]]
            self._known.set(value, [np.logical_and.reduce(masks) for masks in zip(*every, strict=True)])

    def _loop(self, first, last):
        enter, leave = self._visits[first], self._visits[last]
        known = self._known
        if enter.equation.primitive.name == "scan":
            constants, count = scan_counts(enter.equation.params)
            scanned, results = enter.inputs[constants + count :], leave.inputs
        else:
            count, scanned = len(enter.outputs), []
            constants = len(enter.inputs) - count
            results = leave.inputs[len(leave.inputs) - count :]  # the results of the condition come first
        carry = [known.of(value) for value in enter.inputs[constants : constants + count]]
        steps = [known.of(value)[1:] or [np.zeros(1, bool)] for value in scanned]
        while True:
            for value, masks in zip(enter.outputs, [*carry, *steps], strict=True):
                known.set(value, masks)
            for visit in self._visits[first + 1 : last]:
                for value in visit.outputs:
                    known.set(value, [])
            self._run(first + 1, last)
            # A fact that a step breaks is not known of the carried value. Facts are only removed, so this loop ends.
            kept = [
                [before & after for before, after in zip(own, known.of(result), strict=True)]
                for own, result in zip(carry, results, strict=False)
            ]
            if all(np.array_equal(a, b) for pair in zip(carry, kept, strict=True) for a, b in zip(*pair, strict=True)):
                break
            carry = kept
        for value, masks in zip(leave.outputs, carry, strict=False):
            known.set(value, masks)
        for value, result in zip(leave.outputs[count:], results[count:], strict=True):
            own = known.of(result) if result.shape else []
            is_all = any(mask.all() for mask in known.of(result) if mask.size)
            known.set(value, [np.full(value.shape[0], is_all), *own])
