"""Which kind a model is."""

from collections.abc import Callable
from typing import Any

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.function import function_adapter
from ramda_jax.compaction.errors import CompactionError


def adapter_for(model: Any, variables: Any = None, call: Callable[..., Any] | None = None) -> Adapter:
    """The adapter of a model.

    Args:
        model: an `nnx.Module`; an Equinox module; a linen module with its `variables`; or a function of (variables,
            *args), with its `variables`.
        variables: as just said.
        call: how to call the model if it is not `model(*args)`: a function of (model, *args); of (module, variables,
            *args) for linen.

    Raises:
        CompactionError: a model of none of these kinds, or without its variables.
    """
    modules = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if "flax" in modules and hasattr(type(model), "bind"):
        from ramda_jax.compaction.adapters.linen import linen_adapter

        return linen_adapter(model, _given(variables, "a linen module"), call)
    if "flax" in modules:
        from ramda_jax.compaction.adapters.nnx import nnx_adapter

        return nnx_adapter(model, call)
    if "equinox" in modules and variables is None:
        from ramda_jax.compaction.adapters.equinox import equinox_adapter

        return equinox_adapter(model, call)
    if not callable(model):
        raise CompactionError(
            f"A model must be an nnx, linen or Equinox module or a function of (variables, *args), got {model!r}; "
            "give one of these."
        )
    return function_adapter(model, _given(variables, "a function"), call)


def _given(variables, kind):
    if variables is None:
        raise CompactionError(f"{kind} needs `variables=`, the pytree that it is called with, got None; give it.")
    return variables
