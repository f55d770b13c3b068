"""Any kind of model as a function of its variables."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ramda_jax.compaction.adapters.called import FUNCTION, Called, call_error
from ramda_jax.compaction.adapters.factors.matrix import Cut, Layout
from ramda_jax.compaction.adapters.sizes.remembered import Remembered, Sizes


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A model as a function of its variables.

    Attributes:
        apply: the function of (variables, *args) that is traced and proved; it runs the model in evaluation mode.
        variables: a pytree of arrays.
        rebuild: a function of small variables, and of numbers that replace those that the modules remember. It returns
            (the small model, its function of (variables, *args)).
        layouts: a function of the arguments of a call. It returns for the path of each leaf its layout as a matrix, or
            why it has none.
        factorize: a function of cuts by path. It returns (the model with these arrays as two factors, its variables,
            its function).
        remembered: a function of the arguments of a call. It returns the numbers that the modules remember.
        how: how the model is called, for the error if it cannot be.
    """

    apply: Callable[..., Any]
    variables: Any
    rebuild: Callable[[Any, Sizes], tuple[Any, Callable[..., Any]]]
    layouts: Callable[..., Mapping[str, Layout | str]]
    factorize: Callable[[Mapping[str, Cut]], tuple[Any, Any, Callable[..., Any]]]
    remembered: Callable[..., Sequence[Remembered]] = lambda *args: ()
    how: Called = FUNCTION

    def explain(self, args: tuple[Any, ...]) -> Callable[[Exception], Exception]:
        """From what a call with these arguments raises to an error that says how to call the model."""
        return functools.partial(call_error, self.how, args)
