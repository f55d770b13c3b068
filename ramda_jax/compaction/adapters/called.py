"""The error for a model that cannot be called with the inputs that it is given."""

import dataclasses
from typing import Any

import jax
import numpy as np

from ramda_jax.compaction.errors import CompactionError


@dataclasses.dataclass(frozen=True)
class Called:
    """How a model is called.

    Attributes:
        rule: what must run.
        remedy: how to say that it is called in another way.
    """

    rule: str
    remedy: str


FUNCTION = Called(
    "The model must run as `function(variables, *inputs)`",
    "say how it is called by `call=lambda function, variables, *inputs: ...`",
)
_RUNS = "The model must run as `model(*inputs)`"
#: By the kinds of models.
HOW = {
    "nnx": Called(_RUNS, "say how it is called, such as by `call=lambda model, *inputs: model.encode(*inputs)`"),
    "linen": Called(
        "The model must run as `module.apply(variables, *inputs)`",
        "say how it is called, such as by `call=lambda module, variables, *inputs: module.apply(variables, *inputs, "
        "method='encode')`",
    ),
    "equinox": Called(
        _RUNS, "say how it is called, such as by `call=lambda model, *inputs: jax.vmap(model)(*inputs)` for a batch"
    ),
}
METHOD = Called("The method must run with the inputs", "say how it is called by `call=lambda method, *inputs: ...`")
GIVEN = Called("`call` must run with the model and the inputs", "change `call`")


def call_error(how: Called, args: tuple[Any, ...], error: Exception) -> CompactionError:
    """The error for what a call with these arguments has raised."""
    inputs = ", ".join(map(_shown, args)) or "none"
    raised = f"{type(error).__name__}: {error}".split("\n")[0].removesuffix(".")
    return CompactionError(
        f"{how.rule}, but with the inputs ({inputs}) it raised {raised}; give the inputs of a call, or {how.remedy}."
    )


def _shown(arg):
    """An argument by its dtypes and shapes."""

    def shown(leaf):
        is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        return f"{leaf.dtype}[{', '.join(map(str, np.shape(leaf)))}]" if is_array else repr(leaf)

    leaves = jax.tree.leaves(arg)
    is_leaf = len(leaves) == 1 and leaves[0] is arg
    text = shown(arg) if is_leaf else f"{type(arg).__name__} of {', '.join(map(shown, leaves))}"
    return text if len(text) <= 100 else text[:97] + "..."
