"""Which solver solves the subproblem of which leaf."""

import dataclasses
import re
from collections.abc import Mapping

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.null import Null
from ramda_jax.solvers.base import Solver, check_solver
from ramda_jax.structure.assignment import Assignment, check_pattern
from ramda_jax.typing import MetricKind, SolverSpec

_REMEDY = "use for example `SecularNewton()`, or a mapping of path patterns to solvers."


@dataclasses.dataclass(frozen=True)
class SolverRules:
    """A user's specification of solvers, hashable.

    Attributes:
        alone: the solver for all leaves; None for each regularizer's default.
        rules: pairs of a pattern and a solver or None, the first match wins; empty if a solver was given for all.
    """

    alone: Solver | None = None
    rules: tuple[tuple[str, Solver | None], ...] = ()

    def named_for(self, path: str) -> Solver | None:
        """The solver named for a leaf; None for the default of its regularizer."""
        return next((solver for pattern, solver in self.rules if re.search(pattern, path)), self.alone)

    def check_alone(self, assignment: Assignment, metric_kind: MetricKind) -> None:
        """Raises a ValueError if the solver for all leaves cannot solve for a regularizer."""
        if self.alone is None:
            return
        for regularizer in assignment.regularizers:
            if not isinstance(regularizer, Null):
                check_solver(self.alone, regularizer, metric_kind)

    def check_used(self, leaves: list[tuple[str, Regularizer]]) -> None:
        """Raises a ValueError if a pattern matches no regularized leaf, or its solver cannot solve for a regularizer.

        Args:
            leaves: names and regularizers of all regularized leaves.
        """
        for pattern, _ in self.rules if leaves else ():
            if not any(re.search(pattern, path) for path, _ in leaves):
                raise ValueError(
                    f"The solvers' pattern {pattern!r} matches no regularized leaf. These are "
                    f"{[path for path, _ in leaves]}; fix the pattern or remove it."
                )
        for path, regularizer in leaves if self.rules else ():
            solver = self.named_for(path)
            if solver is not None:
                check_solver(solver, regularizer, "scalar")


def solver_rules(solver: SolverSpec) -> SolverRules:
    """Turns a user's specification of solvers into `SolverRules`.

    Raises:
        TypeError: the specification is neither a solver nor None nor a mapping of patterns to these.
        ValueError: a pattern is not a regular expression.
    """
    if isinstance(solver, Mapping):
        for pattern, named in solver.items():
            if not (named is None or isinstance(named, Solver)):
                raise TypeError(f"A solver must be a `Solver` or None, got {named!r} for {pattern!r}; {_REMEDY}")
            check_pattern(pattern)
        return SolverRules(rules=tuple(solver.items()))
    if not (solver is None or isinstance(solver, Solver)):
        raise TypeError(f"`solver` must be a `Solver`, a mapping of these or None, got {solver!r}; {_REMEDY}")
    return SolverRules(alone=solver)
