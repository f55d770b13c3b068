"""The strengths that a user gives, by patterns, and their values in a step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.structure.assignment import Assignment, check_pattern
from ramda_jax.structure.belonging import FRESH
from ramda_jax.subproblem.leaf_problems import LeafProblem
from ramda_jax.subproblem.rules.strengths import ALL, pattern_for
from ramda_jax.subproblem.running.batches import Solved
from ramda_jax.subproblem.strengths.law import after_solving, strength_at_step
from ramda_jax.subproblem.strengths.target import Target, check_target, check_targeted
from ramda_jax.typing import StrengthSpec
from ramda_jax.validation import check_non_negative


def strength_parts(strength: StrengthSpec, assignment: Assignment) -> dict[str | None, Any]:
    """A dict from patterns to numbers, schedules and targets. A strength for all leaves has the pattern `ALL`.

    Raises:
        ValueError: an empty mapping; a key that is not a regular expression; a negative number; a target that does not
            fit the regularizers.
        TypeError: a value of any other kind.
    """
    parts: dict[str | None, Any] = {**strength} if isinstance(strength, Mapping) else {ALL: strength}
    if not parts:
        raise ValueError("A mapping of strengths must have a pattern, got {}; use for example `{'dense': 1e-4}`.")
    for pattern, part in parts.items():
        if isinstance(strength, Mapping):
            check_pattern(pattern)
        if isinstance(part, Target):
            check_target(part, assignment)
        else:
            check_non_negative("strength", part)
    if isinstance(parts.get(ALL), Target):
        for regularizer in assignment.regularizers:
            check_targeted(regularizer)
    return parts


def check_parts_fit(parts: Mapping[str | None, Any], regularized: Sequence[tuple[str, Regularizer]]) -> None:
    """Raises a ValueError if a leaf of a target has a regularizer that does not have more zeros at a larger weight.

    Args:
        parts: from `strength_parts`.
        regularized: paths and regularizers of the leaves.
    """
    for path, regularizer in regularized:
        if isinstance(parts[pattern_for(tuple(parts), path)], Target):
            check_targeted(regularizer)


def within_stages(strength: Any, restarts: Sequence[int]) -> Any:
    """The strength, or the mapping, with its targets in a run of these stages; other values are unchanged."""
    if isinstance(strength, Mapping):
        return {pattern: within_stages(part, restarts) for pattern, part in strength.items()}
    return strength.within(restarts) if isinstance(strength, Target) else strength


class StepStrengths(NamedTuple):
    """The strengths in one step.

    Attributes:
        parts: the given strengths, by pattern.
        now: the strengths in the state, by pattern.
        caps: q_t of each target, by pattern; None for other strengths.
        model: the model, of trees.
        step: the 0-based step.
    """

    parts: Mapping[str | None, Any]
    now: Mapping[str | None, Any]
    caps: Mapping[str | None, jax.Array | None]
    model: QuadraticModel
    step: jax.Array

    @property
    def state(self) -> Any:
        """The strength for the state: that of all leaves, or a dict by pattern."""
        return _as_state(self.now)

    def after_solving(self, problems: list[LeafProblem], solved: Solved) -> Any:
        """The strength for the state after the solution is known. Each target sees its own leaves."""
        return _as_state(
            {
                pattern: after_solving(
                    part,
                    self.now[pattern],
                    self.caps[pattern],
                    self.model,
                    self.step,
                    _of_pattern(pattern, problems),
                    solved,
                )
                for pattern, part in self.parts.items()
            }
        )


def strengths_at_step(
    parts: Mapping[str | None, Any],
    state: Any,
    model: QuadraticModel,
    step: jax.Array,
    problems: Callable[[], list[LeafProblem]],
) -> StepStrengths:
    """The strengths of this step.

    Args:
        parts: the given strengths, by pattern.
        state: the strength in the state after the last step.
        model: the model, of trees.
        step: the 0-based step.
        problems: a function that returns the leaves' problems, with any weight; only a target needs it.

    Raises:
        ValueError: the state is that of other strengths.
    """
    before = {ALL: state} if ALL in parts else state
    if not isinstance(before, dict) or before.keys() != parts.keys():
        raise ValueError(f"The state's `strength` must be a dict by the patterns {list(parts)}, got {state!r}; {FRESH}")
    now, caps = {}, {}
    for pattern, part in parts.items():

        def own(pattern=pattern):
            return _of_pattern(pattern, problems())

        now[pattern], caps[pattern] = strength_at_step(part, before[pattern], model, step, own)
    return StepStrengths(parts, now, caps, model, step)


def _as_state(strengths: Mapping[str | None, Any]) -> Any:
    return strengths[ALL] if ALL in strengths else dict(strengths)


def _of_pattern(pattern, problems):
    return problems if pattern is ALL else [problem for problem in problems if problem.pattern == pattern]
