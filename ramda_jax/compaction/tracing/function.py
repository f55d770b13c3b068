"""A function as JAX traces it, with the paths of what goes in and of what comes out."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from ramda_jax.compaction.tracing.static_args import hold_static
from ramda_jax.structure.paths import flatten_with_paths, named_leaves, path_name
from ramda_jax.validation import check_arrays


@dataclasses.dataclass(frozen=True)
class Program:
    """A function as JAX has traced it.

    Attributes:
        jaxpr: closed; its inputs are the leaves of the variables and of the arguments.
        leaves, inputs, outputs: their paths.
    """

    jaxpr: Any
    leaves: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def trace_program(apply_fn: Callable[..., Any], variables: Any, *example_args: Any) -> Program:
    """Traces a function: runs the user's code, and nothing else of `trace_dims`."""
    names = tuple(name for name, _ in named_leaves(variables))
    _check_traceable("The variables", variables)
    held, arrays = hold_static(apply_fn, example_args)
    flat, treedef = jax.tree.flatten((variables, arrays))
    outputs = []

    def flat_fn(*leaves):
        inner_variables, args = jax.tree.unflatten(treedef, leaves)
        named = [(path_name(path), leaf) for path, leaf in flatten_with_paths(held(inner_variables, *args))[0]]
        outputs[:] = [name for name, _ in named]
        return [leaf for _, leaf in named]

    jaxpr = jax.make_jaxpr(flat_fn)(*map(_abstract, flat))
    return Program(jaxpr, names, tuple(name for name, _ in named_leaves(arrays)), tuple(outputs))


def _check_traceable(what, tree):
    others = [(name, leaf) for name, leaf in named_leaves(tree) if not isinstance(leaf, (bool, int, float, complex))]
    check_arrays(what, others)


def _abstract(leaf):
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf
