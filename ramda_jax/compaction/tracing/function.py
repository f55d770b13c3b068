"""A function as JAX traces it, with the paths of its inputs and outputs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import keystr

from ramda_jax.compaction.tracing.static_args import hold_static
from ramda_jax.structure.paths import flatten_with_paths, named_leaves
from ramda_jax.validation import check_arrays


@dataclasses.dataclass(frozen=True)
class Program:
    """A function as JAX has traced it.

    Attributes:
        jaxpr: the closed jaxpr. Its inputs are the leaves of the variables and of the arguments.
        leaves, inputs, outputs: their paths.
    """

    jaxpr: Any
    leaves: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def trace_program(
    apply_fn: Callable[..., Any],
    variables: Any,
    *example_args: Any,
    explain: Callable[[Exception], Exception] | None = None,
) -> Program:
    """Traces a function. Of all steps of `trace_dims`, only this one runs the user's code.

    `explain` makes of an exception that this code raises the one that is raised in its place.
    """
    names = tuple(name for name, _ in named_leaves(variables))
    _check_traceable("The variables", variables)
    held, arrays = hold_static(apply_fn, example_args)
    named_leaves(arrays)  # raises if two leaves have the same name
    flat, treedef = jax.tree.flatten((variables, arrays))
    outputs = []

    def flat_fn(*leaves):
        inner_variables, args = jax.tree.unflatten(treedef, leaves)
        named = named_values(held(inner_variables, *args))
        outputs[:] = [name for name, _ in named]
        return [leaf for _, leaf in named]

    try:
        jaxpr = jax.make_jaxpr(flat_fn)(*map(_abstract, flat))
    except Exception as error:
        if explain is None:
            raise
        raise explain(error) from error
    return Program(jaxpr, names, tuple(name for name, _ in named_values(arrays)), tuple(outputs))


def named_values(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of arguments and of outputs by name.

    This differs from `named_leaves` in one point: an attribute `value` is part of the name. In a cache of keys and
    values it is not a variable that holds an array.
    """
    return [(keystr(path, simple=True, separator="/"), leaf) for path, leaf in flatten_with_paths(tree)[0]]


def _check_traceable(what, tree):
    others = [(name, leaf) for name, leaf in named_leaves(tree) if not isinstance(leaf, (bool, int, float, complex))]
    check_arrays(what, others)


def _abstract(leaf):
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf
