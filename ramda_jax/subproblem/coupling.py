"""Leaves whose subproblems are one, made ones of their own."""

from ramda_jax.regularizers.base import Regularizer


def uncoupled(subproblems) -> list[Regularizer | None]:
    """Regularizers that couple nothing, each with its part of the minimiser of all leaves.

    Args:
        subproblems: for each leaf its regularizer at this step, or None, and the `rhs` and the `metric` of its model.
    """
    alone = [one for one, *_ in subproblems]
    families = {}
    for index, one in enumerate(alone):
        if one is not None and one.coupling is not None:
            families.setdefault(one.coupling, []).append(index)
    for members in families.values():
        found = alone[members[0]].together([subproblems[index] for index in members])
        for index, one in zip(members, found, strict=True):
            alone[index] = one
    return alone
