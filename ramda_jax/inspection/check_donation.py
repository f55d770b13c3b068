"""Whether a jitted step returns each donated buffer with the new value of the same argument."""

import collections
import math
from typing import Any

import jax

from ramda_jax.structure.paths import path_name


def check_donation(step: Any, *args: Any, **kwargs: Any) -> None:
    """Raises if a jitted training step keeps old and new state at once, or makes needless copies.

    JAX gives the buffers of donated arguments to the results in their order: the first result of a shape and dtype gets
    the first donated argument of the same shape and dtype. So a step that takes `(params, state)` and returns
    `(state, params)` writes the state over the parameters. XLA then makes copies, in particular of arrays that only
    pass through, such as RAMDA's anchor. On one matrix 64 bytes a parameter are moved instead of 32
    (`python -m benchmarks.compiled --swapped`). The results are the same, so nothing else shows it. Single numbers are
    not checked.

    The step is traced, not compiled and not run.

    Args:
        step: the result of `jax.jit`, with `donate_argnums` or `donate_argnames`.
        *args, **kwargs: the arguments of a call; leaves may be of type `jax.ShapeDtypeStruct`. Errors count the
            arguments from 0, without the static arguments.

    Raises:
        ValueError: an argument that is also a result is not donated, or its buffer goes to another result.
        TypeError: `step` is not jitted by `jax.jit`.

    Example:
        >>> import jax, jax.numpy as jnp, optax, ramda_jax
        >>> optimizer = ramda_jax.rmda(0.1)
        >>> params = {"kernel": jnp.ones((3, 2))}
        >>> def step(params, state, grads):
        ...     updates, state = optimizer.update(grads, state, params)
        ...     return optax.apply_updates(params, updates), state
        >>> check_donation(jax.jit(step, donate_argnums=(0, 1)), params, optimizer.init(params), params)
        >>> check_donation(jax.jit(step), params, optimizer.init(params), params)
        Traceback (most recent call last):
            ...
        ValueError: Arguments that the step also returns must be donated, but argument 1 is not: its old and its new
        values take memory at once; use `jax.jit(step, donate_argnums=...)`.
    """
    traced: Any = step.trace(*args, **kwargs) if hasattr(step, "trace") else None
    if not hasattr(traced, "args_info"):  # such as what `nnx.jit` returns
        raise TypeError(
            f"`step` must be the result of `jax.jit`, got {step!r}; give `jax.jit(step, donate_argnums=...)`."
        )
    positional, named = traced.args_info
    arguments = {f"argument {i}": tree for i, tree in enumerate(positional)} | {
        f"argument `{name}`": tree for name, tree in named.items()
    }
    returned = traced.out_info
    results = returned if type(returned) is tuple else (returned,)
    donated = {name for name, tree in arguments.items() if any(info.donated for info in jax.tree.leaves(tree))}
    kinds = {name: _kind(tree) for name, tree in arguments.items()}
    origins = _origins(arguments, results)
    for number, result in enumerate(results):
        # This result is the next value of the argument with the same structure, shapes and dtypes.
        same = [name for name, kind in kinds.items() if kind == _kind(result) and kind[1]]
        if len(same) == 1 and same[0] not in donated:
            raise ValueError(
                f"Arguments that the step also returns must be donated, but {same[0]} is not: its old and its new "
                "values take memory at once; use `jax.jit(step, donate_argnums=...)`."
            )
        same = [name for name in same if name in donated]
        if len(same) != 1:
            continue
        (name,) = same
        for (path, leaf), origin in zip(jax.tree.flatten_with_path(result)[0], origins[number], strict=True):
            if math.prod(leaf.shape) > 1 and origin != (name, path):
                got = "none" if origin is None else f"that of {origin[0]} at '{path_name(origin[1])}'"
                raise ValueError(
                    f"A step must return what it takes in the same order, but result {number} is the next {name} and "
                    f"its '{path_name(path)}' gets another buffer, {got}; return results in the order of the arguments."
                )


def _kind(tree):
    """Structure, shapes and dtypes."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)


def _origins(arguments, results):
    """For each leaf of each result the donated leaf whose buffer it gets, as (argument, path), or None."""
    donated = collections.defaultdict(collections.deque)
    for name, tree in arguments.items():
        for path, info in jax.tree.flatten_with_path(tree)[0]:
            if info.donated:
                donated[info.shape, str(info.dtype)].append((name, path))
    return [
        [
            donated[leaf.shape, str(leaf.dtype)].popleft() if donated[leaf.shape, str(leaf.dtype)] else None
            for leaf in jax.tree.leaves(result)
        ]
        for result in results
    ]
