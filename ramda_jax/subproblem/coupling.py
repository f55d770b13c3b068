"""Turns leaves that a regularizer couples into separate subproblems."""

from collections.abc import Sequence
from typing import Any

import jax

from ramda_jax.regularizers.base import Regularizer


def uncoupled(
    subproblems: Sequence[tuple[Regularizer | None, jax.Array, jax.Array]], step: Any = None
) -> list[Regularizer | None]:
    """Regularizers that do not couple leaves. The minimiser of a leaf is then its part of the whole minimiser.

    Args:
        subproblems: for each leaf its regularizer or None, and the `rhs` and the `metric` of its model.
        step: the 0-based step, or None.
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
