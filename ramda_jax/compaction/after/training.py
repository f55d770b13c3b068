"""Training after the structure is found: with the zeros held, or with the small arrays alone."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.regularizers.hard import HardTarget
from ramda_jax.regularizers.scaled import Scaled
from ramda_jax.structure.alone import is_selected_alone
from ramda_jax.structure.assignment import assign, regularized_leaves
from ramda_jax.structure.belonging import FRESH, check_belongs, check_numbers, check_state
from ramda_jax.structure.packing import packing_of
from ramda_jax.structure.paths import hidden_paths, named_leaves
from ramda_jax.validation import check_arrays, require_params


class FreezeStructureState(NamedTuple):
    """State of `freeze_structure`.

    Attributes:
        alive: a tree like the parameters of booleans that broadcast to them; where False, the parameter is held at 0.
    """

    alive: Any


def freeze_structure(params: Any, regularizer: Any = None) -> optax.GradientTransformationExtraArgs:
    """Keeps the zeros that were found while any optimizer trains the remaining entries.

        update_i = alive_i ? update_i : -params_i

    The regularizer has found the zeros, but it also shrinks the other entries. Once the structure has settled, training
    without a regularizer and with the zeros held removes that bias. Put this last in a chain:
    `optax.chain(optax.adam(1e-4), freeze_structure(structured))`.

    Args:
        params: parameters with the structure: the current ones, or the result of `eval_params`.
        regularizer: the specification that the optimizer was given, to hold its zero groups. None to hold every single
            zero of the leaves that a regularizer given alone would take; biases are not among them, because they may
            have started at zero.

    Returns:
        A `GradientTransformationExtraArgs`; the first update sets entries to zero that are not zero yet.

    Raises:
        ValueError: the structure of a regularizer is a rank; in `init`, the parameters lack leaves that are held, or
            have other shapes; in `update`, params are missing, or the updates or the state do not belong to them.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> params = {"kernel": jnp.array([[1.0, 2.0], [0.0, 0.0]])}
        >>> optimizer = optax.chain(optax.sgd(0.5), freeze_structure(params))
        >>> updates, _ = optimizer.update({"kernel": jnp.ones((2, 2))}, optimizer.init(params), params)
        >>> optax.apply_updates(params, updates)["kernel"]
        Array([[0.5, 1.5],
               [0. , 0. ]], dtype=float32)
    """
    check_arrays("Parameters", named_leaves(params))
    alive = alive_masks(params, regularizer)
    shapes = {path: tuple(np.shape(leaf)) for path, leaf in named_leaves(params)}

    def init(params):
        check_arrays("Parameters", named_leaves(params))
        _check_held({path: shapes[path] for path in alive}, params)
        # Copy the masks, because a state may be donated and `init` called again.
        return FreezeStructureState(jax.tree.map(jnp.copy, masks_like(params, alive)))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        require_params(params)
        check_state(FreezeStructureState, state)
        for what, tree in (("Updates", updates), ("Parameters", params), ("The state's masks", state.alive)):
            check_arrays(what, named_leaves(tree))
        check_numbers("Updates", updates, "take gradients with respect to real floating-point parameters.")
        check_belongs("Updates", updates, "the parameters", params, "take gradients with respect to these parameters.")
        shapes_now = {name: np.shape(leaf) for name, leaf in named_leaves(params)}
        masks = [_filled(mask, shapes_now.get(name, ())) for name, mask in named_leaves(state.alive)]
        alive_now = jax.tree.structure(state.alive).unflatten(masks)
        check_belongs("The state's masks", alive_now, "the parameters", params, FRESH)
        return held_updates(updates, params, state.alive), state

    return optax.GradientTransformationExtraArgs(init, update)


def alive_masks(params: Any, regularizer: Any = None) -> dict[str, jax.Array]:
    """A dict from the paths of the leaves that can be held to masks of nonzeros, which broadcast to the leaf."""
    if regularizer is None:
        return {path: leaf != 0 for path, leaf in named_leaves(params) if is_selected_alone(path, leaf.ndim)}
    alive = {path: _is_not_zero(path, leaf, own) for path, leaf, own in regularized_leaves(regularizer, params)}
    return _unpacked(regularizer, alive, params)


def _is_not_zero(path, leaf, regularizer):
    if regularizer.support_counts == "singular values":
        raise ValueError(
            f"What is held must be zeros of the parameters, got {regularizer!r} for '{path}', whose structure is a "
            "rank; leave it out, or train the thin matrices of `low_rank_model`."
        )
    # The structure of single entries may also be a bound or a level, which is not a zero.
    return regularizer.support(leaf) if regularizer.support_counts == "groups" else leaf != 0


def masks_like(params: Any, alive: dict[str, jax.Array]) -> Any:
    """The masks as a tree like the parameters; leaves without a mask are alive."""
    leaves = [alive.get(path, jnp.ones((1,) * jnp.ndim(leaf), bool)) for path, leaf in named_leaves(params)]
    return jax.tree.structure(params).unflatten(leaves)


def held_updates(updates: Any, params: Any, alive: Any) -> Any:
    """The updates, changed so that entries that are not alive become zero."""
    return jax.tree.map(lambda u, p, a: jnp.where(a, u, -p.astype(u.dtype)), updates, params, alive)


def _unpacked(regularizer, alive, params):
    """Masks by the paths of `params`, from masks by the packed paths of the regularizer."""
    packing = packing_of(regularizer)
    packed = params if packing is None else packing.pack(params)
    if packing is None or packed is params:
        return alive
    masks = [jnp.broadcast_to(alive.get(path, True), leaf.shape) for path, leaf in named_leaves(packed)]
    everything = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    return dict(named_leaves(packing.unpack(jax.tree.structure(packed).unflatten(masks), everything)))


def _check_held(shapes, params):
    """Raises unless all leaves that are held are among `params`, with the same shapes."""
    found = {path: tuple(np.shape(leaf)) for path, leaf in named_leaves(params)}
    # Leaves that `optax.masked` hides are unknown, and so are those of the empty tree from `optax.tree.map_params`.
    _, masked = hidden_paths(params)
    for path, shape in shapes.items() if found else ():
        if path not in found and masked:
            continue
        if found.get(path) != shape:
            raise ValueError(
                f"`freeze_structure` must be given the parameters that are trained, but what it holds at '{path}' has "
                f"shape {shape} where they have {found.get(path)} (None: no such leaf); their paths are {list(found)}; "
                "give `freeze_structure` these parameters, and `coupling.regularizer()` where they were coupled."
            )


def _filled(mask, shape):
    """The shape of a mask, with the parameter's length along axes of length one."""
    if len(np.shape(mask)) != len(shape):
        return jax.ShapeDtypeStruct(np.shape(mask), bool)
    lengths = [n if m == 1 else m for m, n in zip(np.shape(mask), shape, strict=True)]
    return jax.ShapeDtypeStruct(tuple(lengths), bool)


def keep_group_weights(regularizer: Any, params: Any) -> dict[str, Regularizer]:
    """The regularizer for a small model in which every group has the weight that it has in the whole model.

    A group's weight is the root of its size, and in the small model a group has fewer entries. With the result instead
    of `regularizer`, the small model trains like the whole model with the deleted entries held at zero.

    Args:
        regularizer: the specification that the optimizer was given.
        params: the *whole* parameters.

    Returns:
        A mapping from patterns, one for each regularized leaf, to regularizers with numbers as weights.

    Raises:
        ValueError: a hard target, which counts what the whole model has; an array as `group_weight`.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> keep_group_weights(ramda_jax.GroupLasso(), {"kernel": jnp.ones((3, 4))})
        {'^kernel$': GroupLasso(groups=(0,), group_weight=2.0, non_negative=False)}
    """
    result = {}
    for path, leaf, own in assign(regularizer, params):
        if own is None:
            continue
        if isinstance(own.regularizer if isinstance(own, Scaled) else own, HardTarget):
            raise ValueError(
                f"`keep_group_weights` cannot keep {own!r} for '{path}': it counts the zeros of the whole model, "
                "of which the small model lacks some; train that without it, or with `freeze_structure`."
            )
        if isinstance(own, GroupRegularizer) and jnp.ndim(own.weights(leaf.shape)) > 0:
            raise ValueError(
                f"`keep_group_weights` cannot keep {own!r} for '{path}': it has a weight for each group of the whole "
                "model; give the small one a `group_weight` of its own, such as `structure.adaptive_weights` makes."
            )
        result[f"^{re.escape(path)}$"] = own
    return result
