"""A model as a function of its variables, whatever kind of model it is."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A model as a function of its variables.

    Attributes:
        apply: the function of (variables, *args) that is traced and proved, in evaluation mode.
        variables: a pytree of arrays.
        rebuild: from small variables to (the small model, its function of (variables, *args)).
        factorize: from ranks by path to (the model with these matrices as two factors, its variables, its function).
    """

    apply: Callable[..., Any]
    variables: Any
    rebuild: Callable[[Any], tuple[Any, Callable[..., Any]]]
    factorize: Callable[[dict[str, int]], tuple[Any, Any, Callable[..., Any]]]
