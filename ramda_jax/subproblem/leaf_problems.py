"""The subproblem of a tree as one subproblem for each leaf."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import Grouped
from ramda_jax.solvers.base import Context, Solver
from ramda_jax.structure.assignment import assign
from ramda_jax.structure.belonging import FRESH
from ramda_jax.subproblem.coupling import uncoupled
from ramda_jax.subproblem.rules.strengths import ALL, pattern_for
from ramda_jax.subproblem.state import ProximalProblem


class RegularizedLeaf(NamedTuple):
    """How a leaf is solved.

    Attributes:
        regularizer: the regularizer, resolved for the leaf.
        solver: the regularizer's solver in the leaf's metric.
        context: what the solver gets in addition to the model.
        keeps_radii: whether the state keeps the radii that the solver finds.
    """

    regularizer: Regularizer
    solver: Solver
    context: Context
    keeps_radii: bool


class LeafProblem(NamedTuple):
    """The subproblem of one leaf.

    Attributes:
        path: the leaf's name.
        model: the leaf's quadratic model, with the strength in its weight.
        regularized: how it is solved; None if psi is 0, so that the solution is the model's centre.
        pattern: the pattern of the leaves that share its strength.
    """

    path: str
    model: QuadraticModel
    regularized: RegularizedLeaf | None
    pattern: str | None = ALL

    def as_regularized(self) -> RegularizedLeaf:
        """`regularized`, for a leaf of which it is not None."""
        assert self.regularized is not None
        return self.regularized


def leaf_problems(
    problem: ProximalProblem, model: QuadraticModel, weight: Any, step: Any, params: Any, radii: Any
) -> Iterator[LeafProblem]:
    """The subproblems of all leaves, in flattening order. The minimiser of a leaf is its part of the whole minimiser.

    Args:
        problem: the static settings of the subproblem.
        model: the model, of trees.
        weight: the weight of psi, including the strength; or a dict of these by the patterns of `problem`.
        step: the 0-based step.
        params: the current parameters, leaves in the model's order.
        radii: a dict of the last radii by path; anything else means that none are known.

    Raises:
        ValueError: the radii are not those of the parameters' groups.
    """
    leaves = assign(problem.assignment, model.linear)
    if isinstance(radii, dict):
        _check_radii(problem, leaves, radii)
    radii = radii if isinstance(radii, dict) else {}
    regularized = sum(math.prod(leaf.shape) for _, leaf, regularizer in leaves if regularizer is not None)
    models = model.leaves() if isinstance(weight, dict) else model._replace(weight=weight).leaves()
    problems = _by_leaf(problem, leaves, models, step, params, radii, regularized)
    if problem.patterns != (ALL,):
        problems = (_of_pattern(problem, leaf, weight) for leaf in problems)
    is_coupled = any(regularizer is not None and regularizer.coupling is not None for *_, regularizer in leaves)
    return _decoupled(list(problems), step) if is_coupled else problems


def _of_pattern(problem, leaf, weight):
    """The leaf's problem with its own strength."""
    if leaf.regularized is None:
        return leaf
    pattern = pattern_for(problem.patterns, leaf.path)
    if not isinstance(weight, dict):  # any weight
        return leaf._replace(pattern=pattern)
    own = jnp.asarray(weight[pattern], leaf.model.weight.dtype)
    return leaf._replace(model=leaf.model._replace(weight=own), pattern=pattern)


def _by_leaf(problem, leaves, models, step, params, radii, regularized):
    for (path, leaf, regularizer), leaf_model, start in zip(leaves, models, jax.tree.leaves(params), strict=True):
        if regularizer is None:
            yield LeafProblem(path, leaf_model, None)
            continue
        share = math.sqrt(leaf.size / max(regularized, 1))
        context = Context(start.astype(leaf_model.linear.dtype), step, share, radii.get(path))
        solver = problem.solver_for(path, regularizer, leaf_model.metric)
        keeps_radii = problem.keeps_radii(path, regularizer)
        yield LeafProblem(path, leaf_model, RegularizedLeaf(regularizer, solver, context, keeps_radii))


def _decoupled(problems, step):
    """The problems, with regularizers that do not couple leaves instead of those that do."""
    subproblems = [
        (None if regularized is None else regularized.regularizer, model.rhs, model.metric)
        for _, model, regularized, _ in problems
    ]
    for problem, regularizer in zip(problems, uncoupled(subproblems, step), strict=True):
        if problem.regularized is not None:
            problem = problem._replace(regularized=problem.regularized._replace(regularizer=regularizer))
        yield problem


def _check_radii(problem, leaves, radii):
    wanted = {
        path: (regularizer.radii_shape(tuple(leaf.shape)), leaf.dtype)
        for path, leaf, regularizer in leaves
        if isinstance(regularizer, Grouped) and problem.keeps_radii(path, regularizer)
    }
    found = {path: (tuple(np.shape(norms)), getattr(norms, "dtype", None)) for path, norms in radii.items()}
    if found != wanted:
        path = min(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
        one, other = (" ".join(map(str, kinds[path])) if path in kinds else None for kinds in (found, wanted))
        raise ValueError(
            f"The state's radii must be those of the parameters' groups, got {one} where they have "
            f"{other} at '{path}' (None: no such leaf); {FRESH}"
        )
