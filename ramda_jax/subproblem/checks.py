"""Checks that need regularizer, strength, solver and the kind of metric together."""

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.regularizers.null import Null
from ramda_jax.structure.assignment import assignment
from ramda_jax.structure.belonging import FRESH, check_belongs, check_real
from ramda_jax.subproblem.solver_rules import solver_rules
from ramda_jax.typing import MetricKind, RegularizerSpec, SolverSpec, StrengthSpec, Tree


def checked_strength(regularizer: RegularizerSpec, strength: StrengthSpec | None) -> StrengthSpec:
    """The strength to use: the one given, or 0 where there is no regularizer.

    Raises:
        ValueError: a regularizer without strength.
    """
    named = [given for given in assignment(regularizer).regularizers if not isinstance(given, Null)]
    if strength is not None:
        return strength
    if named:
        raise ValueError(
            f"`strength` (lambda) must be given with the regularizer {named[0]!r}: no default is right for all "
            "networks; start from 1e-4 and see `ramda_jax.metrics` for what it does."
        )
    return 0.0


def check_solvable(regularizer: RegularizerSpec, solver: SolverSpec, metric_kind: MetricKind) -> None:
    """Raises a ValueError where a solver is given for all leaves that cannot solve a regularizer in such a metric."""
    solver_rules(solver).check_alone(assignment(regularizer), metric_kind)


def check_model(model: QuadraticModel, params: Tree) -> None:
    """Raises unless a model's trees are those of the parameters, and of real numbers."""
    for name in ("linear", "anchor"):
        check_belongs(f"The model's `{name}`", getattr(model, name), "the parameters", params, FRESH)
    if any(jnp.ndim(metric) for metric in jax.tree.leaves(model.metric)):
        # Numbers alone are the metric of any shape.
        filled = jax.tree.map(lambda m, v: m if jnp.ndim(m) else v, model.metric, model.linear)
        check_belongs(
            "The model's `metric`", filled, "the parameters", params, "give a number or an array of a leaf's shape."
        )
    for name in ("linear", "anchor", "metric"):
        check_real(f"The model's `{name}`", getattr(model, name), FRESH)
