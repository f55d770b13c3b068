"""Makes a small model again without the whole model, from its code, its plan and its variables."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.adapters.choose import adapter_for, holds_variables, in_evaluation_mode
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.planning.plan import LeafPlan, Plan
from ramda_jax.compaction.planning.slicing import find_leaves
from ramda_jax.compaction.proof.verify import check_structure
from ramda_jax.compaction.tracing.function import trace_program
from ramda_jax.compaction.tracing.trace import label_program
from ramda_jax.structure.paths import EMPTY_KEY, named_leaves


def rebuild(
    model: Any,
    plan: Plan,
    variables: Any,
    *example_args: Any,
    call: Callable[..., Any] | None = None,
    fit: Callable[..., Any] | None = None,
) -> Any:
    """Makes the small model again, in a new process, from a fresh model of the old sizes and the small variables.

    Args:
        model: a fresh model of the old sizes, made with the code of the whole model. Its values are not used, and it
            may be abstract (`nnx.eval_shape`, `eqx.filter_eval_shape`). For linen the module, or another module with
            the same parameters, such as one that decodes or has the encoder alone. A function is returned unchanged.
        plan: the plan of the compaction, from `load_compact`.
        variables: the small variables: a tree of the model's structure, or the dict by path of `load_compact`, which a
            function cannot take.
        *example_args: a batch, or its shapes and dtypes. If it is given, the small model is traced and compared with
            the whole model as in `compact_model`. This detects code that is not that of the planned model.
        call, fit: as in `compact_model`. The numbers that `compact_model` has found are in the plan.

    Returns:
        The small model, as `compact_model(...).model`: an nnx or Equinox module, in evaluation mode even if the fresh
        one is not; for linen a function like `module.apply`, called with the small variables.

    Raises:
        CompactionError: the variables do not have the plan's small shapes, such as those of a whole checkpoint; the
            model does not have the old shapes, or does not compute what was planned.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from ramda_jax.compaction import compact_model
        >>> def make():
        ...     return nnx.Sequential(nnx.Linear(5, 8, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(8, 3, rngs=nnx.Rngs(1)))
        >>> model = make()
        >>> model.layers[2].kernel[...] = model.layers[2].kernel[...].at[2:].set(0)
        >>> small = compact_model(model, jnp.ones((4, 5)))
        >>> again = rebuild(make(), small.plan, small.variables, jnp.ones((4, 5)))
        >>> again.layers[0].out_features, bool((again(jnp.ones((1, 5))) == small.model(jnp.ones((1, 5)))).all())
        (2, True)
    """
    if not isinstance(plan, Plan):
        raise CompactionError(f"The plan must be a `Plan`, got {plan!r:.80}; read it by `load_compact`.")
    leaves = {path: leaf for path, leaf in named_leaves(variables) if hasattr(leaf, "shape")}
    check_small(plan, leaves)
    if EMPTY_KEY in leaves and EMPTY_KEY not in plan.leaves:
        leaves[""] = leaves.pop(EMPTY_KEY)
    if holds_variables(model):
        adapter = adapter_for(model, None, call, fit)
        whole, small = adapter.variables, _fill(plan, adapter.variables, leaves)
    else:
        small = _nested(variables) if hasattr(model, "bind") else variables
        adapter, whole = adapter_for(model, small, call, fit), _whole_shapes(plan, small)
    try:
        rebuilt, apply = adapter.rebuild(small, {(module, name): number for module, name, number in plan.sizes})
    except Exception as error:  # of any kind, from code that does not expect these sizes
        raise CompactionError(
            f"The model must be one of those that the plan was made for, but cannot be built with its small variables "
            f"({type(error).__name__}: {error}); make it with the code of the whole model."
        ) from error
    if example_args:
        dims = label_program(trace_program(adapter.apply, whole, *example_args, explain=adapter.explain(example_args)))
        mismatches = check_structure(apply, small, example_args, dims, _plan_of(plan, small))
        if mismatches:
            raise CompactionError(
                f"The model must be the one that the plan was made for, but is not: {mismatches[0].reason}; make it "
                "with the code of the whole model."
            )
    return in_evaluation_mode(rebuilt)


def check_small(plan: Plan, leaves: Mapping[str, Any]) -> None:
    """Raises unless all leaves that belong to the plan have its small shapes, and at least one leaf belongs to it."""
    homes = find_leaves(plan, list(leaves))
    if not any(homes.values()):
        raise CompactionError(
            f"The variables must be those that the plan has made small, but none of {list(leaves)[:5]} is a leaf of "
            "it; give the plan that was saved with them."
        )
    for name, path in homes.items():
        if path is None:
            continue
        shape, leaf_plan = np.shape(leaves[name]), plan.leaves[path]
        if shape != leaf_plan.small_shape:
            whole = shape == leaf_plan.shape
            remedy = "make them small by `compact(plan, variables)`" if whole else "give those saved with the plan"
            raise CompactionError(
                f"The variables must have the shapes that the plan has made small, but '{name}' has "
                f"{f'that of the whole model, {shape}' if whole else shape}, not {leaf_plan.small_shape}; {remedy}."
            )


def _fill(plan, whole, leaves):
    """The tree of a fresh model's variables, with the small variables in their places."""
    filled = []
    for path, leaf in named_leaves(whole):
        if path not in plan.leaves:
            if isinstance(leaf, jax.ShapeDtypeStruct):
                raise CompactionError(
                    f"The model must have values where the plan has no leaf, but '{path}' is abstract; make it with "
                    "the code and the arguments of the whole model, or give it values there."
                )
            filled.append(leaf)
            continue
        shape = plan.leaves[path].shape
        if np.shape(leaf) != shape:
            raise CompactionError(
                f"The model must be a fresh one of the sizes before, but '{path}' has shape {np.shape(leaf)}, not "
                f"{shape}; make it with the code of the whole model."
            )
        if path not in leaves or _is_key(leaves[path]) != _is_key(leaf):
            found = sorted(leaves)[:5]
            raise CompactionError(
                f"The variables must be all those of the model, but lack '{path}'{' as a PRNG key' * _is_key(leaf)}; "
                f"give the tree that was saved, got {found} and so on."
            )
        filled.append(leaves[path])
    missing = sorted(plan.leaves.keys() - {path for path, _ in named_leaves(whole)})
    if missing:
        raise CompactionError(
            f"The model must have all leaves of the plan, but lacks {missing[:5]}; make it with the code of the "
            "whole model."
        )
    return jax.tree.structure(whole).unflatten(filled)


def _is_key(leaf):
    return jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)


def _plan_of(plan, small):
    """The plan for a tree that may lack some of its leaves and have other leaves, which are unchanged."""
    named = named_leaves(small)
    homes = find_leaves(plan, [name for name, _ in named])

    def planned(name, leaf):
        return LeafPlan(np.shape(leaf), (None,) * np.ndim(leaf)) if homes[name] is None else plan.leaves[homes[name]]

    return dataclasses.replace(plan, leaves={name: planned(name, leaf) for name, leaf in named})


def _whole_shapes(plan, small):
    """The variables of a linen module or a function with their whole shapes."""
    leaves = _plan_of(plan, small).leaves
    shapes = [jax.ShapeDtypeStruct(leaves[name].shape, leaf.dtype) for name, leaf in named_leaves(small)]
    return jax.tree.structure(small).unflatten(shapes)


def _nested(variables):
    """The tree of a linen module's variables, also from a dict by path, such as `params/Dense_0/kernel`."""
    if not (isinstance(variables, Mapping) and variables and all("/" in str(key) for key in variables)):
        return variables
    tree = {}
    for path, leaf in variables.items():
        *parents, name = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[name] = leaf
    return tree
