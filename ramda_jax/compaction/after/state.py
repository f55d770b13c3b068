"""Makes the states of optimizers small."""

from typing import Any

import jax
import numpy as np
import optax

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.grouping.parts import COUPLED, REST
from ramda_jax.compaction.grouping.small_coupling import compact_coupling
from ramda_jax.compaction.planning.plan import Plan
from ramda_jax.compaction.planning.slicing import compact
from ramda_jax.structure.paths import flatten_with_paths, named_leaves, path_name
from ramda_jax.subproblem.packed import PackedState
from ramda_jax.validation import check_arrays


def compact_state(plan: Plan, state: Any, optimizer: optax.GradientTransformation, small_params: Any) -> Any:
    """The state of an optimizer for the small model, to continue training in the same stage.

    The arrays of the state are cut as by `compact`. Everything else comes from `optimizer`, such as the regularizer in
    the states of this library. Give RAMDA and the other methods the regularizer from `keep_group_weights`, so that a
    group keeps its weight although it has fewer entries. If the state belongs to an optimizer in a `Coupling`, wrap
    `optimizer` in the coupling from `compact_coupling`.

    Args:
        plan: the plan from `plan_compaction`, or the packed plan of `compact_coupling`.
        state: the state of an optimizer like `optimizer` for the whole parameters.
        optimizer: the optimizer for the small parameters.
        small_params: the small parameters.

    Returns:
        A state with the tree structure and the shapes of `optimizer.init(small_params)`.

    Raises:
        CompactionError: the two do not fit, or the state holds something of a shape that cannot be sliced.
        TypeError: `optimizer` is not an optimizer, or the parameters are not arrays.

    Example:
        >>> import optax
        >>> from ramda_jax import compaction
        >>> import jax, jax.numpy as jnp
        >>> def mlp(params, x):
        ...     return jax.nn.relu(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 8)), "out": jnp.ones((8, 3)).at[2:].set(0)}
        >>> small = compaction.compact_model(mlp, jnp.ones((4, 5)), variables=params)
        >>> optimizer = optax.adam(1e-3)
        >>> state = compact_state(small.plan, optimizer.init(params), optimizer, small.variables)
        >>> jax.tree.map(jnp.shape, state[0].mu)
        {'in': (5, 2), 'out': (2, 3)}
    """
    if not hasattr(optimizer, "init"):
        raise TypeError(
            f"`optimizer` must be an Optax transformation, got {optimizer!r}; give one for the small model."
        )
    check_arrays("The small parameters", named_leaves(small_params))
    fresh = jax.eval_shape(optimizer.init, small_params)
    leaves = flatten_with_paths(_compact(plan, state))[0]
    expected = jax.tree.leaves(fresh)
    if len(leaves) != len(expected):
        raise CompactionError(
            f"`optimizer` must be of the kind that made the state, but its own has {len(expected)} leaves and the "
            f"state {len(leaves)}; give the same chain, with the regularizer of `keep_group_weights`."
        )
    names, own = [path_name(path) for path, _ in leaves], [name for name, _ in named_leaves(fresh)]
    kinds, own_kinds = _kinds(state), _kinds(fresh)
    if names != own or (kinds and kinds != own_kinds):
        found, wanted = next(
            (pair for pair in zip(names + kinds, own + own_kinds, strict=False) if pair[0] != pair[1]), ("", "")
        )
        raise CompactionError(
            f"`optimizer` must be of the kind that made the state, but the state has '{found}' where its own has "
            f"'{wanted}'; give the same chain, with the regularizer of `keep_group_weights`."
        )
    for (path, leaf), wanted in zip(leaves, expected, strict=True):
        if getattr(leaf, "dtype", wanted.dtype) != wanted.dtype:
            raise CompactionError(
                f"The state at '{path_name(path)}' is of {leaf.dtype}, but `optimizer` wants {wanted.dtype}; give "
                "parameters of the dtype that the state was made for."
            )
        if np.shape(leaf) != wanted.shape:
            raise CompactionError(
                f"The state at '{path_name(path)}' has shape {np.shape(leaf)} once it is compact, but `optimizer` "
                f"wants {wanted.shape}; start with a fresh state by `optimizer.init`."
            )
    return jax.tree.unflatten(jax.tree.structure(fresh), [leaf for _, leaf in leaves])


def _compact(plan, state):
    """`compact`; state that is kept in the order of a coupling is cut by the plan of that order."""

    def is_packed(node):
        return isinstance(node, PackedState)

    def cut(node):
        own = set(plan.leaves)
        is_of_packed = any(path.startswith((f"{COUPLED}/", f"{REST}/")) for path in own)
        packed = plan if is_of_packed else compact_coupling(plan, node.packing)[1]
        return PackedState(compact(packed, node.inner), node.packing)

    nodes, treedef = jax.tree.flatten(state, is_leaf=is_packed)
    if not any(map(is_packed, nodes)):
        return compact(plan, state)
    others = compact(plan, treedef.unflatten([None if is_packed(node) else node for node in nodes]))
    rest = iter(jax.tree.leaves(others))
    return treedef.unflatten([cut(node) if is_packed(node) else next(rest) for node in nodes])


def _kinds(state):
    """The names of the classes of the states in a state; none if a checkpoint was read without them."""
    kinds = []

    def note(node):
        if isinstance(node, tuple) and hasattr(node, "_fields"):
            kinds.append(type(node).__name__)
        return False

    jax.tree.leaves(state, is_leaf=note)
    return kinds
