"""What an optimizer's state knows: the structured point and how its solver fares.

Both find our states wherever Optax's wrappers have put them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ramda_jax.builders.preconditioned import PreconditionedState
from ramda_jax.builders.quadratic import ModelState
from ramda_jax.numerics import norm
from ramda_jax.solvers.base import SolverInfo
from ramda_jax.structure.paths import named_leaves
from ramda_jax.subproblem.restore import restore_solution
from ramda_jax.subproblem.state import ProximalPointState
from ramda_jax.typing import TreeT


def _find(state, kinds):
    """Our states in `state`, as a list of (path, state)."""
    flat, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda node: isinstance(node, kinds))
    return [(path, node) for path, node in flat if isinstance(node, kinds)]


def _pairs(state):
    """Each `ProximalPointState` with the model's state of its chain, None for methods with c = 1.

    A chain's parts are siblings, or nearly so in a chain of chains: those that share the longest path
    belong together.
    """
    models = _find(state, ModelState)
    proximals = _find(state, ProximalPointState)
    if not proximals:
        raise ValueError(
            f"No state of ramda_jax in a state of type {type(state).__name__}; give the state of `ramda`, `rmda` or of "
            "a chain with `proximal_point` in it."
        )

    def shared_path(a, b):
        return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

    def fits(proximal, model):
        # A builder may also stand before a user's own step, and have no partner.
        radii = proximal.radii
        if not isinstance(radii, dict):
            return True
        linear = jax.eval_shape(lambda: _plain(model).quadratic_model().linear)
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
        (_plain(models[partner[i]][1]) if i in partner else None, _plain(proximal))
        for i, (_, proximal) in enumerate(proximals)
    ]


def _plain(state) -> Any:
    """One of our states with bare arrays for single numbers, which nnx wraps in variables of its own."""

    def unwrap(field) -> Any:
        if isinstance(field, dict):
            return {key: unwrap(value) for key, value in field.items()}
        leaves = named_leaves(field)
        return leaves[0][1] if [name for name, _ in leaves] == [""] else field

    fields = {name: unwrap(value) for name, value in state._asdict().items() if name not in ("info", "problem")}
    if isinstance(state, ProximalPointState):
        fields["info"] = SolverInfo(*map(unwrap, state.info))
    return state._replace(**fields)


def eval_params(state: Any, params: TreeT) -> TreeT:
    """The structured point W_hat: the last step's minimiser, exactly structured whatever c_t is.

    Nothing is stored for it: the last step's model is rebuilt from the state and solved again. Where the
    solver keeps radii (closed form, secular Newton) it is the step's own solution, zeros included; with
    proximal gradient a solution of the same model, found from `params`.

    Args:
        state: an optimizer's state, ours or one in which `chain`, `inject_hyperparams`, `MultiSteps`,
            `partition`, `masked`, `nnx.Optimizer` or any other wrapper holds ours, several if need be.
        params: the current parameters; of any tree that has the paths of those given to `init`.

    Returns:
        A tree like params, with their dtypes. Leaves that no state of ours holds, and all leaves before the
        first step and for methods with c = 1, are those of params.

    Raises:
        ValueError: no state of ours in `state`, or one of other parameters.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"kernel": jnp.array([[1.0, 1.0], [0.1, 0.1]])}
        >>> optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), strength=1.0, averaging=0.01)
        >>> grads = {"kernel": jnp.array([[-9.0, -9.0], [0.0, 0.0]])}
        >>> _, state = optimizer.update(grads, optimizer.init(params), params)
        >>> ramda_jax.eval_params(state, params)["kernel"].round(2)
        Array([[1.4, 1.4],
               [0. , 0. ]], dtype=float32)
    """
    values = {}
    current = dict(named_leaves(params))
    for model_state, proximal in _pairs(state):
        if model_state is None:
            continue
        model = model_state.quadratic_model()
        paths = [path for path, _ in named_leaves(model.linear)]
        missing = [path for path in paths if path not in current]
        if missing:
            raise ValueError(
                f"`params` must have the leaves that the state was made for, but lacks {missing}; its paths are "
                f"{list(current)}."
            )
        for path, leaf in named_leaves(model.linear):
            if jnp.shape(leaf) != jnp.shape(current[path]):
                raise ValueError(
                    f"`params` must have the shapes that the state was made for, got {jnp.shape(current[path])} where "
                    f"the state has {jnp.shape(leaf)} at '{path}'; give the state of these parameters."
                )
        starts = [current[path] for path in paths]
        for path, value in restore_solution(proximal, model, starts):
            start = current[path]
            values[path] = jnp.where(model_state.model_step == 0, start, value.astype(start.dtype))
    leaves = [values.get(path, leaf) for path, leaf in named_leaves(params)]
    return jax.tree.structure(params).unflatten(leaves)


def solver_info(state: Any) -> SolverInfo:
    """How the last step's solves went, over all of our states in an optimizer's state.

    Args:
        state: an optimizer's state, as for `eval_params`.

    Returns:
        A `SolverInfo`: the most iterations, the root of the sum of squared residuals, and whether all solves converged.
        Before the first step 0, 0 and True. Where the model's sums or a solution are not finite nothing has converged,
        and the residual is infinite.

    Raises:
        ValueError: no state of ours in `state`.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), strength=1.0)
        >>> info = ramda_jax.solver_info(optimizer.init({"kernel": jnp.ones((2, 3))}))
        >>> int(info.num_steps), bool(info.converged)
        (0, True)
    """
    infos = [proximal.info for _, proximal in _pairs(state)]
    # Closed forms of single entries do not look at what they find; but from finite sums it is finite too.
    ours = [node for _, node in _find(state, (ModelState, PreconditionedState, ProximalPointState))]
    sums = [leaf for leaf in jax.tree.leaves(ours) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    is_finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in sums]))
    residual = norm(jnp.stack([info.residual for info in infos]))
    return SolverInfo(
        num_steps=jnp.max(jnp.stack([info.num_steps for info in infos])),
        residual=jnp.where(is_finite, residual, jnp.inf),
        converged=jnp.all(jnp.stack([info.converged for info in infos])) & is_finite,
    )
