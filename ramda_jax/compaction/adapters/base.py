"""A model as a function of its variables, whatever kind of model it is."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ramda_jax.compaction.adapters.sizes.remembered import Remembered, Sizes


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A model as a function of its variables.

    Attributes:
        apply: the function of (variables, *args) that is traced and proved, in evaluation mode.
        variables: a pytree of arrays.
        rebuild: from small variables, and numbers in place of those that its modules remember, to (the small model, its
            function of (variables, *args)).
        factorize: from ranks by path to (the model with these matrices as two factors, its variables, its function).
        remembered: from the arguments of a call to the numbers that its modules remember.
    """

    apply: Callable[..., Any]
    variables: Any
    rebuild: Callable[[Any, Sizes], tuple[Any, Callable[..., Any]]]
    factorize: Callable[[dict[str, int]], tuple[Any, Any, Callable[..., Any]]]
    remembered: Callable[..., Sequence[Remembered]] = lambda *args: ()
