"""The inputs of a model that are not arrays: flags, counts and names, which choose the program."""

from collections.abc import Callable
from typing import Any

import jax


def hold_static(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Makes a function of (variables, *inputs) that holds the Python booleans, ints and strings among the inputs fixed.

    Args:
        function: of (variables, *args).
        args: pytrees.

    Returns:
        (the function of (variables, *arrays), the arrays): `args` with None in place of the fixed values, so that all
        other leaves keep their paths.

    Example:
        >>> import jax.numpy as jnp
        >>> def layer(weights, x, flip):
        ...     return (-x if flip else x) @ weights
        >>> held, arrays = hold_static(layer, (jnp.ones((1, 2)), True))
        >>> arrays[1], jax.jit(held)(jnp.ones((2, 1)), *arrays)
        (None, Array([[-2.]], dtype=float32))
    """
    leaves, treedef = jax.tree.flatten(args)
    is_static = [isinstance(leaf, (bool, int, str)) for leaf in leaves]
    if not any(is_static):
        return function, args

    def held(variables, *arrays):
        given = treedef.flatten_up_to(arrays)
        mixed = [own if static else leaf for own, leaf, static in zip(leaves, given, is_static, strict=True)]
        return function(variables, *treedef.unflatten(mixed))

    arrays = treedef.unflatten(None if static else leaf for leaf, static in zip(leaves, is_static, strict=True))
    return held, arrays
