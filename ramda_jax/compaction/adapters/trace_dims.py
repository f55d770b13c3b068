"""Which axes of a model's parameters belong together, for any kind of model."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.choose import TRAINING, adapter_for, check_inputs, holds_variables, other_calls
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.tracing.function import trace_program
from ramda_jax.compaction.tracing.jaxprs import count_primitives
from ramda_jax.compaction.tracing.rules import Rule
from ramda_jax.compaction.tracing.trace import Dims, label_program


def trace_dims(
    model: Any,
    *example_args: Any,
    variables: Any = None,
    call: Callable[..., Any] | None = None,
    overrides: Mapping[str, tuple[Any, ...]] | Any = None,
    rules: Mapping[str, Rule] | None = None,
    resize: Mapping[Any, Any] | None = None,
) -> Dims:
    """Traces which axes of parameters belong together: what must be deleted if an index is deleted.

    The model is traced, not run. Every axis of every value is labelled, index by index. An addition unifies the labels
    of its operands, and a contraction those of the axes that it sums over. A concatenation concatenates labels. An
    operation that mixes the indices of an axis in another way freezes them, and so does a primitive without a rule.

    Args:
        model: an `nnx.Module` or an Equinox module, traced in evaluation mode, or a method of one; a linen module, or a
            function of (variables, *inputs), in evaluation mode: without dropout, with running statistics.
        *example_args: the arguments of a call. For linen modules and functions the first is the variables, unless they
            are given by name: a pytree of arrays, or of anything with shape and dtype, of parameters and all other
            state that depends on their sizes. The others are pytrees of the same kind, whose axes, and those of the
            outputs, keep their lengths; Python booleans, ints and strings among them are constants.
        variables: for linen modules and functions, in place of the first argument.
        call: as in `compact_model`.
        overrides: a mapping from paths of leaves to a tuple with an entry for each axis, or a pytree of such tuples.
            None leaves the axis as traced, `"frozen"` keeps it whole, and axes with the same other name are unified.
        rules: a mapping from names of primitives to a `Rule`, for primitives without a rule, or to replace a rule.
        resize: inputs that may shrink with the model, as in `compact_model`.

    Returns:
        `Dims`; print it for a table.

    Raises:
        CompactionError: an override that fits no leaf; a value in `rules` that is not a `Rule`; variables that are
            missing, or given to a model that holds its own; a model that cannot be called with these arguments.
        TypeError: a leaf of the variables that is neither an array nor a number.
        ValueError: two leaves of the variables, or of the arguments, have one '/'-joined path.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def mlp(params, x):
        ...     return jax.nn.relu(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 8)), "out": jnp.ones((8, 3))}
        >>> print(trace_dims(mlp, params, jnp.ones((1, 5))))
        width  size  members  readers  frozen because of
        d1     8     in[1]    out[0]
        never free, the model's input: d0
        never free, the model's output: d2

    References:
        Fang et al., `DepGraph: Towards Any Structural Pruning`, CVPR 2023, arXiv:2301.12900, for the idea of one
        graph of coupled axes; the labels by index and the rule of zero readers are this library's.
    """
    if variables is None and not holds_variables(model):
        if not example_args:
            raise CompactionError(
                f"A linen module or a function must be traced with its variables, got none with a "
                f"{type(model).__name__}; give them after it, `trace_dims(function, variables, inputs)`."
            )
        variables, example_args = example_args[0], example_args[1:]
        # A tree without leaves is a tree of variables too.
        variables = {} if variables is None else variables
    adapter = adapter_for(model, variables, call)
    check_inputs(model, adapter, example_args)
    others = other_calls(model, variables, call)
    return trace_calls(adapter, others, example_args, overrides, rules, resize)[0]


def trace_calls(
    adapter: Adapter,
    others: Mapping[str, Adapter],
    args: tuple[Any, ...],
    overrides: Any = None,
    rules: Mapping[str, Rule] | None = None,
    resize: Mapping[Any, Any] | None = None,
) -> tuple[Dims, dict[str, Adapter]]:
    """Traces a model, and each of its other calls separately.

    Returns:
        (the trace, the traces of the `others` that compute something else).
    """
    program = trace_program(adapter.apply, adapter.variables, *args, explain=adapter.explain(args))
    found = {}
    for name, other in others.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # these calls are only traced
                traced = trace_program(other.apply, other.variables, *args)
        except Exception as error:  # of any kind, if these are not arguments of a training call
            if name == TRAINING:
                continue
            raise CompactionError(
                f"{name} must be a way to call the model with these arguments, but it raised {type(error).__name__}: "
                f"{error}; give a call that takes these arguments."
            ) from error
        if count_primitives(traced.jaxpr) != count_primitives(program.jaxpr):
            found[name] = traced
    dims = label_program(program, overrides, rules, resize, list(found.values()))
    return dims, {name: others[name] for name in found}
