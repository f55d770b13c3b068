"""Checks that need regularizer, strength, solver and the kind of metric together."""

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.regularizers.null import Null
from ramda_jax.structure.assignment import assignment
from ramda_jax.structure.belonging import FRESH, check_belongs, check_real
from ramda_jax.subproblem.rules.solvers import solver_rules
from ramda_jax.typing import MetricKind, RegularizerSpec, SolverSpec, StrengthSpec, Tree


def checked_strength(regularizer: RegularizerSpec, strength: StrengthSpec | None) -> StrengthSpec:
    """The strength to use: the given one, or 0 without a regularizer.

    Raises:
        ValueError: there is a regularizer, but strength is None.
    """
    named = [given for given in assignment(regularizer).regularizers if not isinstance(given, Null)]
    if strength is not None:
        return strength
    if named:
        raise ValueError(
            f"`strength` (lambda) must be given with the regularizer {named[0]!r}, because no default is right for all "
            "networks; use `Target(0.9)` for a share of zeros, or start from 1e-4 and look at `ramda_jax.metrics`."
        )
    return 0.0


def check_solvable(regularizer: RegularizerSpec, solver: SolverSpec, metric_kind: MetricKind) -> None:
    """Raises a ValueError if a solver given for all leaves cannot solve for a regularizer in such a metric."""
    solver_rules(solver).check_alone(assignment(regularizer), metric_kind)


def check_model(model: QuadraticModel, params: Tree) -> None:
    """Raises unless a model's trees fit the parameters and consist of real numbers."""
    for name in ("linear", "anchor"):
        check_belongs(f"The model's `{name}`", getattr(model, name), "the parameters", params, FRESH)
    if any(jnp.ndim(metric) for metric in jax.tree.leaves(model.metric)):
        # A number is a metric for a leaf of any shape.
        filled = jax.tree.map(lambda m, v: m if jnp.ndim(m) else v, model.metric, model.linear)
        check_belongs(
            "The model's `metric`", filled, "the parameters", params, "give a number or an array of a leaf's shape."
        )
    for name in ("linear", "anchor", "metric"):
        check_real(f"The model's `{name}`", getattr(model, name), FRESH)
