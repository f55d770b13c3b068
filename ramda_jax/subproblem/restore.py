"""The last solution, restored from the state."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.structure.paths import named_leaves
from ramda_jax.subproblem.checks import check_model
from ramda_jax.subproblem.leaf_problems import LeafProblem, leaf_problems
from ramda_jax.subproblem.running.eager import compiled_if_eager
from ramda_jax.subproblem.state import ProximalPointState
from ramda_jax.subproblem.strengths.law import psi_weight
from ramda_jax.typing import Tree
from ramda_jax.validation import check_params


def restore_solution(state: ProximalPointState, model: QuadraticModel, params: Tree) -> list[tuple[str, jax.Array]]:
    """The solution of the last step, for the same model, as a list of (path, W_hat).

    If the state has the radii of a leaf, the result is the step's own solution, with the same zeros. Otherwise, as for
    proximal gradient, the subproblem is solved again, starting from `params`.
    """
    values = []
    for path, leaf_model, regularized, _ in last_problems(state, model, params):
        if regularized is None:
            values.append((path, leaf_model.center))
            continue
        regularizer, solver, context, keeps_radii = regularized
        radii = state.radii[path] if keeps_radii else None
        value = _restore_leaf(solver, regularizer, leaf_model, context, radii)
        # In a scalar metric the centre is computed outside of the compiled function, as in a step (`running.batches`).
        values.append((path, leaf_model.center_if_weightless(value) if leaf_model.metric.ndim == 0 else value))
    return values


def last_problems(state: ProximalPointState, model: QuadraticModel, params: Tree) -> Iterator[LeafProblem]:
    """The leaves' subproblems of the last step (`leaf_problems`)."""
    last_step = jnp.maximum(state.proximal_step - 1, 0)
    return leaf_problems(state.problem, model, psi_weight(state.strength, model), last_step, params, state.radii)


def restore_by_path(
    state: ProximalPointState, model: QuadraticModel, current: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """The result of `restore_solution` as a dict, from the current parameters by their paths.

    Raises:
        ValueError: the state was made for other parameters.
    """
    check_model(model, model.linear)
    leaves = named_leaves(model.linear)
    missing = [path for path, _ in leaves if path not in current]
    if missing:
        raise ValueError(
            f"`params` must have the leaves that the state was made for, but lacks {missing}; its paths are "
            f"{list(current)}; give the parameters that were given to `init`."
        )
    for path, leaf in leaves:
        if np.shape(leaf) != np.shape(current[path]):
            raise ValueError(
                f"`params` must have the shapes that the state was made for, got {np.shape(current[path])} where "
                f"the state has {np.shape(leaf)} at '{path}'; give the state of these parameters."
            )
    check_params((path, current[path]) for path, _ in leaves)
    return dict(restore_solution(state, model, [current[path] for path, _ in leaves]))


@compiled_if_eager
def _restore_leaf(solver, regularizer, model, context, radii):
    value = solver.restore(model, regularizer.at_step(context.step), context, radii)
    return value if model.metric.ndim == 0 else model.center_if_weightless(value)
