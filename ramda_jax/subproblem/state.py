"""The state of `proximal_point`."""

import dataclasses
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import Grouped
from ramda_jax.solvers.base import Solver, SolverInfo, check_solver
from ramda_jax.solvers.select import default_solver
from ramda_jax.structure.assignment import Assignment, assign
from ramda_jax.structure.belonging import FRESH, is_same_setting
from ramda_jax.subproblem.rules.solvers import SolverRules
from ramda_jax.subproblem.rules.strengths import ALL


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ProximalProblem:
    """The settings of the subproblem, as a static part of the state; they do not depend on the parameters.

    Attributes:
        assignment: which leaf gets which regularizer.
        solvers: which leaf gets which solver.
        patterns: the patterns of leaves that share a strength; the first match wins. `ALL` alone if all leaves share
            it.
    """

    assignment: Assignment
    solvers: SolverRules
    patterns: tuple[str | None, ...] = (ALL,)

    def solver_for(self, path: str, regularizer: Regularizer, metric: jax.Array) -> Solver:
        """The solver of a leaf whose metric is an array: one number or one per entry."""
        kind = "scalar" if metric.ndim == 0 else "diagonal"
        named = self.solvers.named_for(path)
        if named is None:
            return default_solver(regularizer, kind)
        check_solver(named, regularizer, kind)
        return named

    def keeps_radii(self, path: str, regularizer: Regularizer) -> bool:
        """Whether the state keeps the norms of the leaf's groups."""
        named = self.solvers.named_for(path)
        return isinstance(regularizer, Grouped) and (named is None or named.keeps_radii)


def check_same_problem(given: ProximalProblem, own: ProximalProblem, model: QuadraticModel) -> None:
    """Raises a ValueError if a state belongs to another regularizer or solver; the message has both settings.

    Solvers are the same if every leaf gets the same solver: naming the default solver makes no difference.

    Args:
        given: the problem in the state.
        own: the problem of the optimizer.
        model: the model that the optimizer is given.
    """
    if given.patterns != own.patterns:
        raise ValueError(
            f"The state must be one of this optimizer's strengths, got {_strengths(given)} in the state and "
            f"{_strengths(own)} in the optimizer; {FRESH}"
        )
    if is_same_setting(given, own) or (
        is_same_setting(given.assignment, own.assignment) and _has_same_solvers(given, own, model)
    ):
        return
    name = "solver" if given.assignment == own.assignment else "regularizer"
    of_state, of_optimizer = (problem.solvers if name == "solver" else problem.assignment for problem in (given, own))
    raise ValueError(
        f"The state must be one of this optimizer's {name}, got {_as_written(of_state)} in the state and "
        f"{_as_written(of_optimizer)} in the optimizer; {FRESH}"
    )


def _has_same_solvers(given, own, model):
    leaves = zip(assign(own.assignment, model.linear), jax.tree.leaves(model.metric), strict=True)
    return all(
        is_same_setting(*(problem.solver_for(path, regularizer, jnp.asarray(metric)) for problem in (given, own)))
        and given.keeps_radii(path, regularizer) == own.keeps_radii(path, regularizer)
        for (path, _, regularizer), metric in leaves
        if regularizer is not None
    )


def _strengths(problem):
    return "one for all leaves" if problem.patterns == (ALL,) else f"the patterns {list(problem.patterns)}"


def _as_written(setting):
    """Solvers or an assignment as the user wrote them."""
    if isinstance(setting, Assignment):
        return repr({rule.key: rule.regularizer for rule in setting.rules} if setting.rules else setting.alone)
    return repr(dict(setting.rules) if setting.rules else setting.alone)


def serialize_with_flax(kind: type[Any]) -> None:
    """Tells `flax.serialization`, if it has been imported, that `kind` contains nothing to store."""
    serialization = sys.modules.get("flax.serialization")
    if serialization is not None and not serialization.is_serializable(kind):
        serialization.register_serialization_state(kind, lambda problem: {}, lambda problem, stored: problem)


class _ProximalPointFields(NamedTuple):
    proximal_step: jax.Array
    strength: Any
    radii: Any
    info: SolverInfo
    problem: ProximalProblem


class ProximalPointState(_ProximalPointFields):
    """State of `proximal_point`.

    Attributes:
        proximal_step: int32 `[]`, the number of steps taken, with which schedules are called.
        strength: `[]`, lambda of the last step; a `TargetState` with a `Target`; a dict of these by pattern if
            a mapping was given.
        radii: a dict by the leaf's path of the groups' norms in the last solution, one number per group and exactly 0
            for a zero group; only for leaves whose solver computes them. (For a tree without leaves it is a scalar 0,
            which shows `optax.tree.map_params` that it does not have the parameters' shapes.)
        info: how the last solves went.
        problem: the settings of the subproblem; static.
    """

    __slots__ = ()

    if not TYPE_CHECKING:  # a type checker sees a plain field

        @property
        def problem(self) -> ProximalProblem:
            # flax.serialization reads every field by its name before it looks up how to store it. At that moment Flax
            # is imported, and the type can still be registered. So this library need not import Flax.
            serialize_with_flax(ProximalProblem)
            return self[-1]
