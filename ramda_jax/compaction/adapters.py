"""How each kind of model is called, and made to run on smaller arrays."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.factors import Factored


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A model as a function of its variables.

    Attributes:
        apply: the function of (variables, *args) that is traced and proved, in evaluation mode.
        variables: a pytree of arrays.
        rebuild: from small variables to (the small model, its function of (variables, *args)).
    """

    apply: Callable
    variables: Any
    rebuild: Callable[[Any], tuple[Any, Callable]]


def adapter_for(model: Any, variables: Any = None, call: Callable | None = None) -> Adapter:
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
        from ramda_jax.compaction.flax_linen import linen_adapter

        return linen_adapter(model, _given(variables, "a linen module"), call)
    if "flax" in modules:
        from ramda_jax.compaction.flax_nnx import nnx_adapter

        return nnx_adapter(model, call)
    if "equinox" in modules and variables is None:
        return _equinox_adapter(model, call)
    if not callable(model):
        raise CompactionError(
            f"A model must be an nnx, linen or Equinox module or a function of (variables, *args), got {model!r}."
        )
    apply = functools.partial(call, model) if call is not None else model
    return Adapter(apply, _given(variables, "a function"), lambda small: (model, apply))


def _given(variables, kind):
    if variables is None:
        raise CompactionError(f"{kind} needs `variables=`, the pytree that it is called with; got None.")
    return variables


def _equinox_adapter(model, call):
    import equinox as eqx

    call = call or (lambda model, *args: model(*args))
    arrays, static = eqx.partition(model, eqx.is_array)

    def combine(arrays):
        # Not `eqx.combine`: it would look for the factors of a matrix where there was one array.
        def is_leaf(node):
            return node is None or isinstance(node, Factored)

        return jax.tree.map(lambda one, other: other if one is None else one, arrays, static, is_leaf=is_leaf)

    def apply(arrays, *args):
        return call(eqx.nn.inference_mode(combine(arrays)), *args)

    return Adapter(apply, arrays, lambda small: (combine(small), apply))
