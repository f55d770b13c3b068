"""The choice of the adapter for a model, by its kind."""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.called import GIVEN, HOW, METHOD
from ramda_jax.compaction.adapters.function import function_adapter
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.structure.paths import named_leaves

#: The name of the call of a model in training mode.
TRAINING = "training"


def adapter_for(
    model: Any,
    variables: Any = None,
    call: Callable[..., Any] | None = None,
    fit: Callable[..., Any] | None = None,
    train: bool = False,
) -> Adapter:
    """The adapter of a model.

    Args:
        model: an `nnx.Module`; an Equinox module; a method of one of these; a linen module with its `variables`; or a
            function of (variables, *args), with its `variables`.
        variables: the variables of a linen module or a function; else None.
        call: how to call the model if it is not `model(*args)`: a function of (model, *args); of (module, variables,
            *args) for linen.
        fit: a function that sets sizes that a model stores as numbers, as in `compact_model`.
        train: whether an nnx or Equinox module is put into training mode.

    Raises:
        CompactionError: a model of none of these kinds, without its variables, or with variables in addition to its
            own; `fit` for a function.
    """
    adapter = _adapter_for(model, variables, call, fit, train)
    if call is not None:
        return dataclasses.replace(adapter, how=GIVEN)
    if _owner(model) is not None:
        return dataclasses.replace(adapter, how=METHOD)
    holds = holds_variables(model) and variables is None
    kind = _kind(model) if holds or hasattr(model, "bind") else None
    return adapter if kind is None else dataclasses.replace(adapter, how=HOW[kind])


def _adapter_for(model, variables, call, fit, train):
    owner = _owner(model)
    if owner is not None:
        function, given = model.__func__, call
        if given is None:
            return _adapter_for(owner, variables, lambda module, *args: function(module, *args), fit, train)

        def call_bound(module, *args):
            return given(types.MethodType(function, module), *args)

        return _adapter_for(owner, variables, call_bound, fit, train)
    kind = _kind(model)
    if kind == "linen":
        from ramda_jax.compaction.adapters.linen import linen_adapter

        return linen_adapter(model, _given(variables, "a linen module"), call, fit)
    if kind == "nnx":
        from ramda_jax.compaction.adapters.nnx import nnx_adapter

        if variables is not None:
            raise CompactionError(
                "`variables` must be None for an nnx module, which holds its own, got a "
                f"{type(variables).__name__}; update them with `nnx.update` before the call."
            )
        return nnx_adapter(model, call, fit, train)
    if kind == "equinox" and variables is None:
        from ramda_jax.compaction.adapters.equinox import equinox_adapter

        return equinox_adapter(model, call, fit, train)
    if not callable(model):
        raise CompactionError(
            f"A model must be an nnx, linen or Equinox module or a function of (variables, *args), got {model!r}; "
            "give one of these."
        )
    hidden = _wrapped_module(model)
    if hidden is not None:
        raise CompactionError(
            f"A function must take its variables as an argument, but {type(model).__name__} around a "
            f"{type(hidden).__name__} holds those; give the module itself, and how it is called with "
            "`call=lambda model, *args: ...`."
        )
    if fit is not None:
        raise CompactionError(
            f"`fit` must be None for a function, got {fit!r}; make the function read its sizes from the variables."
        )
    return function_adapter(model, _given(variables, "a function"), call)


def other_calls(
    model: Any,
    variables: Any = None,
    call: Callable[..., Any] | None = None,
    fit: Callable[..., Any] | None = None,
    also: Sequence[Callable[..., Any]] = (),
) -> dict[str, Adapter]:
    """The other calls that must work after compaction, by name: training, and each call in `also`."""
    calls = {}
    if holds_variables(model):
        calls[TRAINING] = adapter_for(model, variables, call, fit, train=True)
    return calls | {f"`also` number {i}": adapter_for(model, variables, call, fit) for i, call in enumerate(also)}


def holds_variables(model: Any) -> bool:
    """Whether a model is called without variables: an nnx or an Equinox module, a method of one, or what wraps one."""
    owner = _owner(model)
    wrapped = model if owner is None else owner
    return _kind(wrapped) in ("nnx", "equinox") or _wrapped_module(model) is not None


def in_evaluation_mode(model: Any) -> Any:
    """An nnx or Equinox module in evaluation mode: no dropout, and running statistics; other models unchanged."""
    kind = _kind(model)
    if kind == "nnx":
        model.eval()
    elif kind == "equinox":
        import equinox as eqx

        return eqx.nn.inference_mode(model)
    return model


def params_of(model: Any, adapter: Adapter) -> Any:
    """The parameters of a model, as an optimizer gets them: without the rest of its variables."""
    owner = _owner(model)
    model = model if owner is None else owner
    kind = _kind(model)
    if kind == "nnx":
        from flax import nnx

        return nnx.state(model, nnx.Param)
    variables = adapter.variables
    if kind == "equinox":
        return jax.tree.map(lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else None, variables)
    return variables["params"] if isinstance(variables, Mapping) and "params" in variables else variables


def check_inputs(model: Any, adapter: Adapter, example_args: Sequence[Any]) -> None:
    """Raises if a model that holds its variables also gets them as an input."""
    if not holds_variables(model):
        return
    own = {path: np.shape(leaf) for path, leaf in named_leaves(adapter.variables)}
    for number, arg in enumerate(example_args):
        found = {path: np.shape(leaf) for path, leaf in named_leaves(arg)}
        if found and "" not in found and found.items() <= own.items():
            raise CompactionError(
                f"The inputs must be those of a call of the model, but number {number} of them is of the model's own "
                f"variables, such as '{next(iter(found))}'; leave it out, because an nnx or Equinox module holds them."
            )


def _kind(model):
    """`"nnx"`, `"linen"`, `"equinox"`, or None for any other model."""
    modules = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if "flax" in modules:
        if hasattr(type(model), "bind"):
            return "linen"
        from flax import nnx

        # The result of `nnx.jit` is not a module.
        return "nnx" if isinstance(model, nnx.Module) else None
    return "equinox" if "equinox" in modules else None


def _owner(model):
    """The nnx or Equinox module to which a method belongs, else None."""
    owner = getattr(model, "__self__", None)
    is_method = owner is not None and hasattr(model, "__func__")
    return owner if is_method and _kind(owner) in ("nnx", "equinox") else None


def _wrapped_module(function):
    """The nnx or Equinox module inside of `jax.vmap`, `jax.jit` or `functools.partial`, else None."""
    seen = 0
    while seen < 100:
        inner = getattr(function, "__wrapped__", None)
        function = getattr(function, "func", None) if inner is None else inner
        if function is None:
            return None
        if _owner(function) is not None:
            return _owner(function)
        if _kind(function) in ("nnx", "equinox"):
            return function
        seen += 1
    return None


def _given(variables, kind):
    if variables is None:
        raise CompactionError(f"{kind} needs `variables=`, the pytree that it is called with, got None; give it.")
    return variables
