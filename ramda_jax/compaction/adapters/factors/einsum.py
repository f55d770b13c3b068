"""An einsum of inputs and a kernel as one of each factor."""

from typing import NamedTuple

from ramda_jax.compaction.adapters.factors.matrix import Layout


class TwoEinsums(NamedTuple):
    """What an einsum is with a kernel of low rank.

    Attributes:
        layout: of the kernel.
        is_left_first: whether the inputs meet the left factor first, else the right one.
        first, second: the einsums with the one and with the other.
    """

    layout: Layout
    is_left_first: bool
    first: str
    second: str


def two_einsums(equation: str, ndim: int) -> TwoEinsums | str:
    """The two einsums, or why there are none.

    Args:
        equation: of the inputs and the kernel, with an arrow; the inputs and the result may have an ellipsis.
        ndim: of the kernel, with the axes of a stack before those of the equation.

    Example:
        >>> both = two_einsums("btd,dnh->btnh", 3)
        >>> both.layout, both.first, both.second
        (Layout(batch=0, split=1, is_known=True), 'btd,da->bta', 'bta,anh->btnh')
    """
    operands, result = equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    summed = "".join(letter for letter in kernel if letter not in result)
    kept = "".join(letter for letter in kernel if letter in result)
    if "." in kernel or len(set(kernel)) < len(kernel):
        return f"the kernel's axes in '{equation}' must be letters that differ"
    if not summed or not kept or any(letter not in inputs for letter in summed) or set(kept) & set(inputs):
        return f"each axis of the kernel in '{equation}' must be summed with the inputs, or in the result alone"
    if kernel not in (summed + kept, kept + summed):
        return f"the kernel's axes in '{equation}' that are summed must be next to each other, at one end"
    new = next(letter for letter in "abcdefghijklmnopqrstuvwxyz" if letter not in equation)
    rest = "".join(letter for letter in inputs if letter not in summed) + new
    batch = ndim - len(kernel)
    if kernel == summed + kept:
        layout = Layout(batch, batch + len(summed))
        return TwoEinsums(layout, True, f"{inputs},{summed}{new}->{rest}", f"{rest},{new}{kept}->{result}")
    layout = Layout(batch, batch + len(kept))
    return TwoEinsums(layout, False, f"{inputs},{new}{summed}->{rest}", f"{rest},{kept}{new}->{result}")
