"""The similarity of the structures of two runs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ramda_jax.metrics.support import check_supports
from ramda_jax.typing import Support


class Overlap(NamedTuple):
    """The result of `overlap`.

    Attributes:
        total: the Jaccard index over all leaves, in [0, 1].
        leaves: the index of each leaf, by path.
    """

    total: float
    leaves: dict[str, float]


def overlap(first: Support, second: Support, *, of: str = "alive", units: Sequence[dict[str, int]] = ()) -> Overlap:
    """The Jaccard index of two supports: the number of groups alive in both over that of groups alive in either.

        J = |A and B| / |A or B|,  1 if both are empty

    Two runs number their hidden units differently. `units` names axes whose indices may be reordered in `second`. Each
    entry has the axes, by path, that share a numbering: the units between two layers are columns of one kernel and rows
    of the next. The chosen order has the largest agreement; it is found as a linear assignment
    (`scipy.optimize.linear_sum_assignment`; SciPy comes with JAX). With one entry it is the best of all orders. Several
    entries that share a kernel are ordered one after the other, because all of them together would be a quadratic
    assignment. The index is then a lower bound on that of the best order.

    Args:
        first: a support, from `support`.
        second: a support of the same leaves and shapes.
        of: which groups are the sets A and B: `"alive"` or `"zero"`.
        units: for each set of hidden units a dict from paths to the axis of the units.

    Returns:
        An `Overlap`: over all groups, and by leaf.

    Raises:
        ValueError: the supports have different leaves or shapes; of is unknown; the supports do not have a path or axis
            in units, or the axes of one entry differ in length.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> first = {"in": jnp.array([[True], [True], [False]]), "out": jnp.array([[True], [False], [False]])}
        >>> second = {"in": jnp.array([[True], [False], [False]]), "out": jnp.array([[False], [False], [True]])}
        >>> ramda_jax.metrics.overlap(first, second)
        Overlap(total=0.25, leaves={'in': 0.5, 'out': 0.0})
        >>> ramda_jax.metrics.overlap(first, second, units=[{"out": 0}]).leaves["out"]
        1.0

    References:
        Jaccard, `The distribution of the flora in the alpine zone`, 1912.
    """
    check_supports(first, second)
    if of not in ("alive", "zero"):
        raise ValueError(f'`of` must be "alive" or "zero", got {of!r}; use "zero" for the groups that are zero.')
    a, b = (
        {path: np.asarray(leaf, bool) == (of == "alive") for path, leaf in each.items()} for each in (first, second)
    )
    for axes in units:
        b = _reordered(a, b, axes)
    both = {path: int(np.sum(a[path] & b[path])) for path in a}
    either = {path: int(np.sum(a[path] | b[path])) for path in a}
    leaves = {path: both[path] / either[path] if either[path] else 1.0 for path in a}
    total = sum(either.values())
    return Overlap(sum(both.values()) / total if total else 1.0, leaves)


def _reordered(a, b, axes):
    """`b` with the units on `axes` in the order in which most of them agree with `a`."""
    from scipy.optimize import linear_sum_assignment

    for path, axis in axes.items():
        if path not in a or not -a[path].ndim <= axis < a[path].ndim:
            raise ValueError(
                f"`units` must name axes of the supports, got axis {axis} of '{path}'; use axes of these shapes: "
                f"{ {name: leaf.shape for name, leaf in a.items()} }."
            )
    if len({a[path].shape[axis] for path, axis in axes.items()}) > 1:
        raise ValueError(
            "The axes of one set of `units` must have one length, got "
            f"{ {path: a[path].shape[axis] for path, axis in axes.items()} }; leave out axes inside groups."
        )
    agreement = sum(_slices(a[path], axis) @ _slices(b[path], axis).T for path, axis in axes.items())
    if isinstance(agreement, int):  # no axes
        return b
    _, order = linear_sum_assignment(agreement, maximize=True)
    return b | {path: np.take(b[path], order, axis) for path, axis in axes.items()}


def _slices(leaf, axis):
    moved = np.moveaxis(leaf, axis, 0)
    return moved.reshape(moved.shape[0], -1).astype(float)
