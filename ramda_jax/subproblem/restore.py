"""The last solution, from what the state keeps of it."""

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.subproblem.leaf_problems import leaf_problems
from ramda_jax.subproblem.running.eager import compiled_if_eager
from ramda_jax.subproblem.state import ProximalPointState
from ramda_jax.subproblem.strength import psi_weight
from ramda_jax.typing import Tree


def restore_solution(state: ProximalPointState, model: QuadraticModel, params: Tree) -> list[tuple[str, jax.Array]]:
    """The solution that `state` has last found, for the same model, as a list of (path, W_hat).

    Where radii are kept it is the step's own solution, its zero pattern included; with proximal gradient it
    is a solution of the same model, found again from `params`.
    """
    values = []
    last_step = jnp.maximum(state.proximal_step - 1, 0)
    for path, leaf_model, regularized in leaf_problems(
        state.problem, model, psi_weight(state.strength, model), last_step, params, state.radii
    ):
        if regularized is None:
            values.append((path, leaf_model.center))
            continue
        regularizer, solver, context, keeps_radii = regularized
        radii = state.radii[path] if keeps_radii else None
        values.append((path, _restore_leaf(solver, regularizer, leaf_model, context, radii)))
    return values


@compiled_if_eager
def _restore_leaf(solver, regularizer, model, context, radii):
    return model.center_if_weightless(solver.restore(model, regularizer, context, radii))
