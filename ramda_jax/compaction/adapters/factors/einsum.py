"""An einsum of inputs and a kernel as two einsums, one for each factor."""

from typing import NamedTuple

from ramda_jax.compaction.adapters.factors.matrix import Layout


class TwoEinsums(NamedTuple):
    """The two einsums that replace one with a kernel of low rank.

    Attributes:
        layout: the layout of the kernel.
        is_left_first: whether the inputs are multiplied with the left factor first, else with the right factor.
        first, second: the einsums with the first and with the second factor.
    """

    layout: Layout
    is_left_first: bool
    first: str
    second: str


def two_einsums(equation: str, ndim: int) -> TwoEinsums | str:
    """The two einsums, or why they do not exist.

    Args:
        equation: of the inputs and the kernel, with an arrow; the inputs and the result may have an ellipsis.
        ndim: the number of the kernel's axes. The axes of a stack come before those of the equation.

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
