"""Groups: which slices of a leaf they are, from what a Flax kernel means to axes, and what they weigh.

A group is addressed by an index over the *group axes*; the other axes lie inside it. For a Dense
kernel of shape (in, out) the groups `"input"` have the group axes (0,): one group per input feature,
the row `kernel[i, :]`.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_jax.typing import Axes, GroupSpec

if TYPE_CHECKING:
    pass

GROUP_NAMES = ("input", "output", "heads", "kernel")


def check_groups(groups: Any) -> str | Axes:
    """`groups` as a name of `GROUP_NAMES` or a tuple of ints; raises for anything else."""
    remedy = f"use one of {', '.join(map(repr, GROUP_NAMES))}, or axes such as 0 or (0, 1)."
    if isinstance(groups, str):
        if groups not in GROUP_NAMES:
            raise ValueError(f"`groups` must be a known name or axes, got {groups!r}; {remedy}")
        return groups
    axes = (groups,) if isinstance(groups, (int, np.integer)) else groups
    try:
        axes = tuple(axes)
    except TypeError:
        raise TypeError(f"`groups` must be a name or axes, got {groups!r}; {remedy}") from None
    if any(isinstance(a, bool) or not isinstance(a, (int, np.integer)) for a in axes):
        raise TypeError(f"`groups` must be a name or whole-number axes, got {groups!r}; {remedy}")
    axes = tuple(int(a) for a in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"`groups` must not name an axis twice, got {groups!r}; {remedy}")
    return axes


def group_axes(groups: GroupSpec, path: str, ndim: int) -> Axes:
    """The axes that index the groups of a leaf, as a sorted tuple of non-negative ints.

    | name | group axes |
    |---|---|
    | `"input"` | rank 2: 0; rank 3 and more: -2; rank 3 under query, key or value: 0, under out: (0, 1) |
    | `"output"` | -1; rank 3 under query, key or value: (-2, -1) |
    | `"heads"` | rank 3 under query, key or value: -2; under out: 0 |
    | `"kernel"` | (-2, -1), on rank 3 and more |

    Args:
        groups: a name or axes, as `check_groups` returns them.
        path: the leaf's name, '/'-joined; its last but one key is the layer's name.
        ndim: the leaf's number of axes.

    Raises:
        ValueError: the leaf has no such axes.
    """
    if isinstance(groups, str):
        axes = _named_axes(groups, path, ndim)
    else:
        axes = (groups,) if isinstance(groups, int) else groups
        if any(not -ndim <= a < ndim for a in axes):
            raise ValueError(
                f"`groups={groups!r}` must be axes of the leaf '{path}', which has {ndim}; use axes from "
                f"{-ndim} to {ndim - 1}, or a pattern that leaves '{path}' out."
            )
    axes = tuple(sorted(a % ndim for a in axes))
    if len(set(axes)) < len(axes):
        raise ValueError(
            f"`groups={groups!r}` must not name an axis twice, but does on the leaf '{path}' of {ndim} axes."
        )
    return axes


def _named_axes(groups, path, ndim):
    layer = path.split("/")[-2] if "/" in path else ""
    # Attention's projections in Flax: query, key, value are (features, heads, head size), out is
    # (heads, head size, features). Only rank 3: a Dense or a 2-D Conv may carry those names too.
    projection = layer if ndim == 3 else ""
    if ndim < 2:
        raise ValueError(
            f"`groups=\"{groups}\"` must go to a leaf of two axes or more, but '{path}' has {ndim}; leave it out by a "
            "narrower pattern (such as '.*kernel'), or name the axes, such as `groups=0`."
        )
    if groups == "input":
        if projection in ("query", "key", "value"):
            return (0,)
        if projection == "out":
            return (0, 1)
        return (0,) if ndim == 2 else (-2,)
    if groups == "output":
        return (-2, -1) if projection in ("query", "key", "value") else (-1,)
    if groups == "heads":
        if projection in ("query", "key", "value"):
            return (-2,)
        if projection == "out":
            return (0,)
        raise ValueError(
            f"`groups=\"heads\"` must go to a kernel of three axes under query, key, value or out, got '{path}' "
            f"with {ndim}; name the axes, such as `groups=1`."
        )
    if ndim < 3:  # "kernel"
        raise ValueError(
            f"`groups=\"kernel\"` must go to a convolution's kernel (spatial axes, in, out), but '{path}' has {ndim} "
            'axes; use `groups="input"` there.'
        )
    return (-2, -1)
