"""The states of this library in an optimizer's state, wherever Optax's wrappers have put them."""

from typing import Any

import jax

from ramda_jax.builders.quadratic import ModelState
from ramda_jax.solvers.base import SolverInfo
from ramda_jax.structure.belonging import check_state
from ramda_jax.structure.paths import named_leaves
from ramda_jax.subproblem.state import ProximalPointState
from ramda_jax.subproblem.strengths.law import TargetState
from ramda_jax.validation import check_arrays


def find_states(state: Any, kinds: Any) -> list[tuple[Any, Any]]:
    """The states of these kinds in `state`, as a list of (path, state)."""
    flat, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda node: isinstance(node, kinds))
    return [(path, node) for path, node in flat if isinstance(node, kinds)]


def paired_states(state: Any) -> list[tuple[Any, Any]]:
    """Each `ProximalPointState` with the model builder's state of its chain, or None for methods with c = 1.

    The states of a chain's parts are siblings, or nearly so in a chain of chains. So the two that share the longest
    path belong together.
    """
    models = find_states(state, ModelState)
    proximals = find_states(state, ProximalPointState)
    if not proximals:
        raise ValueError(
            f"The state must contain one of ramda_jax, got none in a state of type {type(state).__name__}; give the "
            "state of `ramda`, `rmda` or of a chain with `proximal_point` in it."
        )

    for _, node in (*models, *proximals):
        check_arrays("A state's leaves", named_leaves(node))
        check_state(type(node), plain_state(node))

    def shared_path(a, b):
        return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

    def fits(proximal, model):
        # A builder may also come before a user's own step. It then has no partner.
        radii = proximal.radii
        if not isinstance(radii, dict):
            return True
        linear = jax.eval_shape(lambda: plain_state(model).quadratic_model().linear)
        return radii.keys() <= dict(named_leaves(linear)).keys()

    candidates = [
        (-shared_path(path, model_path), i, j)
        for i, (path, proximal) in enumerate(proximals)
        for j, (model_path, model) in enumerate(models)
        if fits(proximal, model)
    ]
    partner = {}
    for _, i, j in sorted(candidates):
        if i not in partner and j not in partner.values():
            partner[i] = j
    return [
        (plain_state(models[partner[i]][1]) if i in partner else None, plain_state(proximal))
        for i, (_, proximal) in enumerate(proximals)
    ]


def plain_state(state: Any) -> Any:
    """A state of this library with bare arrays as numbers, which nnx wraps in its variables."""

    def unwrap(field) -> Any:
        if isinstance(field, dict):
            return {key: unwrap(value) for key, value in field.items()}
        if isinstance(field, TargetState):
            return TargetState(*map(unwrap, field))
        leaves = named_leaves(field)
        return leaves[0][1] if [name for name, _ in leaves] == [""] else field

    fields = {name: unwrap(value) for name, value in state._asdict().items() if name not in ("info", "problem")}
    if isinstance(state, ProximalPointState):
        fields["info"] = SolverInfo(*map(unwrap, state.info))
    return state._replace(**fields)
