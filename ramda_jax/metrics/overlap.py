"""How alike the structures of two runs are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ramda_jax.metrics.support import check_supports
from ramda_jax.typing import Support


class Overlap(NamedTuple):
    """What `overlap` returns.

    Attributes:
        total: the Jaccard index over all leaves, in [0, 1].
        leaves: that of each leaf, by path.
    """

    total: float
    leaves: dict[str, float]


def overlap(first: Support, second: Support, *, of: str = "alive", units: Sequence[dict[str, int]] = ()) -> Overlap:
    """The Jaccard index of two supports: groups alive in both over groups alive in either.

        J = |A and B| / |A or B|,  1 where both are empty

    Two runs number their hidden units differently. `units` names axes whose indices may be reordered in `second`: each
    entry is the axes, by path, that share one numbering, as the units between two layers, which are columns of the one
    kernel and rows of the next. The order is the one of most agreement, found as a linear assignment
    (`scipy.optimize.linear_sum_assignment`; SciPy comes with JAX). With one entry it is the best of all orders. With
    several that meet in a kernel they are found one after the other, each with those before it, so that the index is a
    lower bound on the best: all at once is a quadratic assignment.

    Args:
        first: a support, as `support` returns it.
        second: a support of the same leaves and shapes.
        of: `"alive"` or `"zero"`: which groups are the sets A and B.
        units: of each set of hidden units the axes that it is on, by path.

    Returns:
        An `Overlap`: over all groups, and by leaf.

    Raises:
        ValueError: supports of different leaves or shapes; an unknown `of`; a path or axis in `units` that the supports
            do not have, or axes of one entry that differ in length.

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
                f"`units` must name axes of the supports, got axis {axis} of '{path}'; their shapes are "
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
