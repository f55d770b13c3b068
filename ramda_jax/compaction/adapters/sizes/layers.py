"""The sizes that a layer remembers, and the axes of its arrays that they belong to.

A layer may be a stack of layers. If it was made by `vmap`, its arrays have additional axes, before its own axes or
between them. It remembers the sizes of its own axes only.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from ramda_jax.typing import Shape

#: A function of a layer with its whole sizes, and of `own`, which maps the name of an array and its own sizes to the
#: small sizes. It returns the attributes to set.
Fit = Callable[[Any, Callable[..., tuple[int, ...]]], dict[str, Any]]


def own_axes(shape: Shape, sizes: Sequence[int]) -> tuple[int, ...]:
    """The axes of an array with the sizes that a layer remembers: the last axes, or else the first that fit in order.

    Raises:
        ValueError: no axes have these sizes.

    Example:
        >>> own_axes((3, 16, 64), (16, 64)), own_axes((16, 3, 64), (16, 64))
        ((1, 2), (0, 2))
    """
    last = tuple(range(len(shape) - len(sizes), len(shape)))
    for axes in itertools.chain([last], itertools.combinations(range(len(shape)), len(sizes))):
        if len(sizes) <= len(shape) and all(shape[axis] == size for axis, size in zip(axes, sizes, strict=True)):
            return axes
    raise ValueError(f"no axes of {shape} have the sizes {tuple(sizes)}")


def groups_left(groups: int, outputs: int, small: int) -> int:
    """The number of groups of a convolution whose kernel has `small` outputs left.

    Each group keeps its number of outputs, and there are fewer groups. If that is impossible, the number of groups
    stays the same.

    Example:
        >>> groups_left(3, 12, 8), groups_left(3, 12, 9)
        (2, 3)
    """
    each = outputs // groups
    return groups if small % each else small // each


def fit_layer(layer: Any, whole: Any, fit: Fit) -> None:
    """Sets the sizes that a layer remembers in place, unless its arrays are not those that it would make.

    Args:
        layer: a layer with smaller arrays and the sizes of the whole arrays.
        whole: the layer with the whole arrays, which may be abstract.
        fit: a function that reads the sizes.
    """

    def own(variable, *sizes):
        *parents, name = variable.split(".")
        small, before = layer, whole
        for parent in parents:
            small, before = getattr(small, parent), getattr(before, parent)
        shape = _shape(getattr(small, name))
        return tuple(shape[axis] for axis in own_axes(_shape(getattr(before, name)), sizes))

    try:
        sizes = fit(whole, own)
    except Exception:  # a class derived from a layer of Flax may use these names otherwise
        return
    for name, value in sizes.items():
        object.__setattr__(layer, name, value)  # an Equinox module is frozen


def _shape(array):
    value = array.get_value() if hasattr(array, "get_value") else getattr(array, "value", array)
    return tuple(value.shape)
