"""What is known of a primitive, in one place."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rule:
    """All that compaction knows of a primitive.

    Attributes:
        labels: a function (walk, visit) of the walk and the equation with its inputs; the labels of the outputs. What
            it must do and what it claims is in `rules`.
        size_params: names of the equation's parameters that follow from sizes. They may be others in the small model;
            all other parameters must be the same.
        check: a function (visit, small, masks) of the equation in the whole and in the small model and of the indices
            kept, an array of booleans for a label: what is wrong with the parameters in `size_params`, "" where nothing
            is. None where the shapes of the outputs fix them, or where they only tell where a jaxpr came from.
    """

    labels: Callable[[Any, Any], list | None]
    size_params: frozenset[str] = frozenset()
    check: Callable[[Any, Any, Any], str] | None = None
