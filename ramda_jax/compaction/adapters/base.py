"""A model as a function of its variables, whatever kind of model it is."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ramda_jax.compaction.adapters.factors.matrix import Cut, Layout
from ramda_jax.compaction.adapters.sizes.remembered import Remembered, Sizes


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A model as a function of its variables.

    Attributes:
        apply: the function of (variables, *args) that is traced and proved, in evaluation mode.
        variables: a pytree of arrays.
        rebuild: from small variables, and numbers in place of those that its modules remember, to (the small model, its
            function of (variables, *args)).
        layouts: from the arguments of a call to what each leaf is as a matrix, by path, or why it is none.
        factorize: from cuts by path to (the model with these arrays as two factors, its variables, its function).
        remembered: from the arguments of a call to the numbers that its modules remember.
    """

    apply: Callable[..., Any]
    variables: Any
    rebuild: Callable[[Any, Sizes], tuple[Any, Callable[..., Any]]]
    layouts: Callable[..., Mapping[str, Layout | str]]
    factorize: Callable[[Mapping[str, Cut]], tuple[Any, Any, Callable[..., Any]]]
    remembered: Callable[..., Sequence[Remembered]] = lambda *args: ()
