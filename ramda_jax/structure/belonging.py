"""Whether trees belong together: the leaves have the same names, shapes and, if it matters, dtypes.

The checks run while a step is traced, and cost the compiled step nothing. Without them JAX would broadcast, and use the
gradient of one row for every row.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.numerics import promoted, sums_dtype
from ramda_jax.structure.paths import named_leaves
from ramda_jax.typing import Tree
from ramda_jax.validation import check_arrays, check_params

FRESH = "make a state for these parameters by `optimizer.init(params)`."


#: Fields of our states that hold a number.
_NUMBERS: dict[str, Any] = dict.fromkeys(("model_step", "stage_step", "proximal_step", "averaging_step"), jnp.integer)
_NUMBERS |= dict.fromkeys(("step_size_sum", "epsilon", "strength"), jnp.floating)
_SUMS = ("grad_sum", "grad_sq_sum")
# `converged` may be any number: wrappers that compute with states, such as Optax's SAM, turn a bool into an int.
_INFO: dict[str, Any] = {"num_steps": jnp.integer, "residual": jnp.floating, "converged": jnp.generic}
#: The fields that a target keeps instead of the strength.
_TARGET: dict[str, Any] = dict.fromkeys(("current", "next", "weight", "model_weight", "share"), jnp.floating)
#: A bool, or the integer into which such wrappers turn it.
_FLAG = (jnp.bool_, jnp.integer)
_TARGET |= {"is_constant": _FLAG}


def _shape(leaf):
    return tuple(leaf.shape) if hasattr(leaf, "shape") else np.shape(leaf)


def check_belongs(what: str, tree: Tree, like: str, params: Tree, remedy: str) -> None:
    """Raises a `ValueError` that names the first leaf of `tree` that is missing, strange or of another shape.

    Args:
        what: the name of `tree`, for the message.
        tree: a pytree.
        like: the name of `params`, for the message.
        params: the pytree whose leaves `tree` must have, by name.
        remedy: the remedy, for the message.
    """
    found, wanted = jax.tree.leaves(tree), jax.tree.leaves(params)
    if len(found) == len(wanted) and all(_shape(a) == _shape(b) for a, b in zip(found, wanted, strict=True)):
        # Making names takes longer, and is only needed if the structures differ.
        if jax.tree.structure(tree) == jax.tree.structure(params):
            return
    shapes = {name: _shape(leaf) for name, leaf in named_leaves(tree)}
    for name, leaf in named_leaves(params):
        if name not in shapes:
            raise ValueError(
                f"{what} must have the leaves of {like}, but lack '{name}' of shape {_shape(leaf)}; they have "
                f"{list(shapes)}; {remedy}"
            )
        shape = shapes.pop(name)
        if shape != _shape(leaf):
            raise ValueError(
                f"{what} must have the shapes of {like}, got {shape} where {like} have {_shape(leaf)} at '{name}'; "
                f"{remedy}"
            )
    if shapes:
        name, shape = next(iter(shapes.items()))
        raise ValueError(
            f"{what} must have the leaves of {like}, but also have '{name}' of shape {shape}, which they have not; "
            f"{remedy}"
        )
    # Wrappers of leaves, such as the variables of nnx, may be on one side only: one is then the prefix of the other.
    failed = [error for one, other in ((tree, params), (params, tree)) if (error := _why_apart(one, other))]
    if len(failed) == 2:
        raise ValueError(
            f"{what} must have the containers of {like}, but: {' '.join(failed[0].split()).rstrip('.')}; {remedy}"
        )


def _why_apart(tree, other):
    try:
        jax.tree.map(lambda *_: None, tree, other)
    except ValueError as error:
        return str(error)
    return ""


def check_real(what: str, tree: Tree, remedy: str) -> None:
    """Raises a `TypeError` that names the first leaf of `tree` that is not an array of real floating-point numbers."""
    _check_leaves(what, tree, _is_floating, "real floating-point numbers", remedy)


def _is_floating(leaf):
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def check_numbers(what: str, tree: Tree, remedy: str) -> None:
    """Raises a `TypeError` that names the first leaf of `tree` that is not an array of real numbers or integers."""
    _check_leaves(what, tree, _is_real, "real numbers", remedy)


def _check_leaves(what, tree, is_right, kind, remedy):
    # Names are made only for the message, because they cost more than the check.
    if not all(map(is_right, jax.tree.leaves(tree))):
        name, leaf = next((name, leaf) for name, leaf in named_leaves(tree) if not is_right(leaf))
        dtype = getattr(leaf, "dtype", type(leaf).__name__)
        raise TypeError(f"{what} must be arrays of {kind}, got {dtype} at '{name}'; {remedy}")


def check_step(updates: Tree, params: Tree, sums: Any = ...) -> None:
    """Raises unless gradients, parameters and the sums of a model builder's state belong together.

    Args:
        updates: the gradients.
        params: the parameters.
        sums: the sums of the state, of the parameters' shapes and at least float32. Leave them out for no check of them
            (None would be a tree without leaves).
    """
    if not all(map(_is_floating, jax.tree.leaves(params))):
        check_params(named_leaves(params))
    check_belongs("Gradients", updates, "the parameters", params, "take them with respect to these parameters.")
    check_numbers("Gradients", updates, "take them with respect to real floating-point parameters.")
    if sums is ...:
        return
    check_belongs("The state's sums", sums, "the parameters", params, FRESH)
    check_real("The state's sums", sums, FRESH)
    pairs = list(zip(jax.tree.leaves(sums), jax.tree.leaves(params), strict=True))
    if not all(_is_wide_enough(*pair) for pair in pairs):
        name, (total, leaf) = next(
            (name, pair)
            for (name, _), pair in zip(named_leaves(sums), pairs, strict=True)
            if not _is_wide_enough(*pair)
        )
        raise ValueError(
            f"The state's sums must be of {sums_dtype(leaf.dtype)} for parameters of {leaf.dtype}, got {total.dtype} "
            f"at '{name}'; {FRESH}"
        )


def _is_real(leaf):
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.number) and not jnp.issubdtype(dtype, jnp.complexfloating)


def _is_wide_enough(total, leaf):
    return promoted(total.dtype, sums_dtype(leaf.dtype)) == total.dtype


def check_state(kind: type, state: Any) -> None:
    """Raises unless `state` is one of the class `kind`."""
    if not isinstance(state, kind):
        raise ValueError(
            f"The state must be a `{kind.__name__}`, that of this very method, got {type(state).__name__}; {FRESH}"
        )
    check_arrays("A state's leaves", named_leaves(state))
    for name in _SUMS:
        tree = getattr(state, name, None)
        if not all(_is_floating(leaf) and jnp.finfo(leaf.dtype).bits >= 32 for leaf in jax.tree.leaves(tree)):
            dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(tree)})
            raise ValueError(f"The state's `{name}` must be of float32 or wider, got {dtypes}; {FRESH}")
    if hasattr(state, "grad_sum") and hasattr(state, "grad_sq_sum"):
        check_belongs("The state's `grad_sq_sum`", state.grad_sq_sum, "its `grad_sum`", state.grad_sum, FRESH)
    for name, kind in _NUMBERS.items():
        if hasattr(state, name) and name != "strength":
            _check_number(name, getattr(state, name), kind)
    if hasattr(state, "strength"):
        _check_strength("strength", state.strength)
    if hasattr(state, "info"):
        for name, kind in _INFO.items():
            _check_number(name, getattr(state.info, name, None), kind)


def _check_strength(name, strength):
    if isinstance(strength, dict) and strength:
        for pattern, part in strength.items():
            _check_strength(f"{name}[{pattern!r}]", part)
    elif isinstance(strength, tuple) and all(hasattr(strength, field) for field in _TARGET):
        for field, kind in _TARGET.items():
            _check_number(f"{name}.{field}", getattr(strength, field), kind)
    else:
        _check_number(name, strength, _NUMBERS["strength"])


def _check_number(name, field, kind):
    dtype: Any = getattr(field, "dtype", None)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    is_right = dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in kinds)
    if is_right and kind not in (jnp.generic, _FLAG):
        is_right = np.dtype(dtype).itemsize >= 4
    if _shape(field) != () or not is_right:
        of = "bool or integer" if isinstance(kind, tuple) else f"{kind.__name__} of 32 bits"
        raise ValueError(
            f"The state's `{name}` must be one number, an array of shape () and of {of}, got "
            f"{dtype or type(field).__name__} of shape {_shape(field)}; {FRESH}"
        )


def check_same_state(before: Tree, after: Tree) -> None:
    """Raises unless an Optax transformation has kept the structure and the shapes of its state."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError(f"The state must be that of this very method, got one of another structure; {FRESH}")
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    if any(_kind(one) != _kind(other) for one, other in pairs):
        for (name, one), (_, other) in zip(named_leaves(before), named_leaves(after), strict=True):
            if _kind(one) != _kind(other):
                raise ValueError(
                    f"The state must have the parameters' shapes and dtypes, got {_kind(one)} at '{name}', which the "
                    f"gradients would make {_kind(other)}; {FRESH}"
                )


def _kind(leaf):
    return f"{_shape(leaf)} {getattr(leaf, 'dtype', type(leaf).__name__)}"


def is_same_setting(one: Any, other: Any) -> bool:
    """Whether two settings (regularizers, solvers, numbers, tuples of these) are equal; two functions count as equal.

    A factory makes new functions at every call, which differ but mean the same.
    """
    if one == other or (callable(one) and callable(other)):
        return True
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(is_same_setting(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(is_same_setting, one, other))
    return False
