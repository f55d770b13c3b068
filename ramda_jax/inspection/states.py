"""The structured point and the solver's report, computed from an optimizer's state.

Both functions find the states of this library inside any of Optax's wrappers.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ramda_jax.builders.preconditioned import PreconditionedState
from ramda_jax.builders.quadratic import ModelState
from ramda_jax.numerics import norm
from ramda_jax.solvers.base import SolverInfo
from ramda_jax.structure.paths import named_leaves
from ramda_jax.subproblem.find_states import find_states, paired_states
from ramda_jax.subproblem.packed import PackedState, leaves_seen
from ramda_jax.subproblem.restore import restore_by_path
from ramda_jax.subproblem.state import ProximalPointState
from ramda_jax.typing import TreeT
from ramda_jax.validation import check_arrays
from ramda_jax.xla.one_program import one_program


def eval_params(state: Any, params: TreeT) -> TreeT:
    """The structured point W_hat: the last step's minimiser, which is exactly structured for every c_t.

    It is not stored: the last step's model is rebuilt from the state and solved again. If the solver keeps radii
    (closed form, secular Newton), the result is the step's own solution, with the same zeros. With proximal gradient it
    is a solution of the same model, starting from `params`.

    Args:
        state: the state of an optimizer that contains one or more methods of this library, in any wrappers: `chain`,
            `inject_hyperparams`, `MultiSteps`, `partition`, `masked`, `nnx.Optimizer` and others.
        params: the current parameters, in any tree that has the paths of those given to `init`. With an optimizer in
            `compaction.Coupling.wrap` they may be the model's own.

    Returns:
        A tree like params, with their dtypes. Leaves that no method trains are those of params, and so are all leaves
        before the first step and for methods with c = 1.

    Raises:
        ValueError: there is no state of this library in `state`, or it belongs to other parameters.

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
    pairs = paired_states(state)
    check_arrays("Parameters", named_leaves(params))
    current = leaves_seen(state, params)
    for model_state, proximal in pairs:
        if model_state is None:
            continue
        for path, value in restore_by_path(proximal, model_state.quadratic_model(), current).items():
            start = current[path]
            values[path] = jnp.where(model_state.model_step == 0, start, value.astype(start.dtype))

    def with_values(tree):
        leaves = [values.get(path, leaf) for path, leaf in named_leaves(tree)]
        return jax.tree.structure(tree).unflatten(leaves)

    structured = with_values(params)
    for _, node in find_states(state, PackedState):
        packed = node.packing.pack(params)
        if packed is not params:
            structured = node.packing.unpack(with_values(packed), structured)
    return structured


@one_program()
def _is_finite(leaf):
    return jnp.all(jnp.isfinite(leaf))


def solver_info(state: Any) -> SolverInfo:
    """How the last step's solves went, over all methods of this library in an optimizer's state.

    Args:
        state: an optimizer's state, as for `eval_params`.

    Returns:
        A `SolverInfo`: the largest number of iterations, the root of the sum of squared residuals, and whether all
        solves converged. Before the first step it is 0, 0 and True. If the model's sums or a solution are not finite,
        nothing has converged, and the residual is infinite.

    Raises:
        ValueError: there is no state of this library in `state`.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), strength=1.0)
        >>> info = ramda_jax.solver_info(optimizer.init({"kernel": jnp.ones((2, 3))}))
        >>> int(info.num_steps), bool(info.converged)
        (0, True)
    """
    infos = [proximal.info for _, proximal in paired_states(state)]
    # Closed forms of single entries do not check their result, but with finite sums it is finite too.
    ours = [node for _, node in find_states(state, (ModelState, PreconditionedState, ProximalPointState))]
    for node in ours:
        check_arrays("A state's leaves", named_leaves(node))
    sums = [leaf for leaf in jax.tree.leaves(ours) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    is_finite = jnp.all(jnp.stack([_is_finite(leaf) for leaf in sums]))
    residual = norm(jnp.stack([info.residual for info in infos]))
    return SolverInfo(
        num_steps=jnp.max(jnp.stack([info.num_steps for info in infos])),
        residual=jnp.where(is_finite, residual, jnp.inf),
        converged=jnp.all(jnp.stack([info.converged for info in infos])) & is_finite,
    )
