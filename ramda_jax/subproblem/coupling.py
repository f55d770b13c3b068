"""Leaves that are coupled by a regularizer, as subproblems of their own."""

from collections.abc import Sequence
from typing import Any

import jax

from ramda_jax.regularizers.base import Regularizer


def uncoupled(
    subproblems: Sequence[tuple[Regularizer | None, jax.Array, jax.Array]], step: Any = None
) -> list[Regularizer | None]:
    """Regularizers that couple nothing. With them the minimiser of a leaf is its part of that of all leaves.

    Args:
        subproblems: for each leaf its regularizer or None, and the `rhs` and the `metric` of its model.
        step: the 0-based step, None where there is none.
    """
    alone = [regularizer for regularizer, *_ in subproblems]
    families = {}
    for index, regularizer in enumerate(alone):
        if regularizer is not None and regularizer.coupling is not None:
            families.setdefault(regularizer.coupling, []).append(index)
    for members in families.values():
        # Leaves are grouped by the user's settings (`coupling`), before `at_step` may put arrays into them.
        here = [alone[index] if step is None else alone[index].at_step(step) for index in members]
        found = here[0].together(
            [(regularizer, *subproblems[index][1:]) for regularizer, index in zip(here, members, strict=True)]
        )
        for index, regularizer in zip(members, found, strict=True):
            alone[index] = regularizer
    return alone
