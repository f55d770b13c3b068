"""Groups: which slices of a leaf are groups, by name or by axes.

An index over the *group axes* addresses a group; the other axes lie inside it. For a Dense kernel of shape (in, out)
the groups `"input"` have the group axes (0,): one group per input feature, the row `kernel[i, :]`.
"""

import re
from typing import Any

import numpy as np

from ramda_jax.typing import Axes, GroupSpec, Shape

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


#: Attention's projections by their layers' names, each with the axes (inputs, heads, outputs) of its kernel counted
#: from the end. Rank 3, (features, heads, size): Flax's names, and those of published models.
_TO_HEADS = "query key value q k v q_proj k_proj v_proj query_proj key_proj value_proj to_q to_k to_v wq wk wv"
#: (heads, size, features).
_FROM_HEADS = "out o o_proj out_proj output_proj to_out wo attn_vec_einsum"
_PROJECTIONS = (
    {(name, 3): ((-3,), (-2,), (-2, -1)) for name in _TO_HEADS.split()}
    | {(name, 3): ((-3, -2), (-3,), (-1,)) for name in _FROM_HEADS.split()}
    # Gemma's: (heads, features, size), with one array for query, and one for key and value.
    | {("q_einsum", 3): ((-2,), (-3,), (-3, -1)), ("kv_einsum", 4): ((-2,), (-3,), (-3, -1))}
    | {("qkv_einsum", 4): ((-2,), (-3,), (-3, -1))}
)


def group_axes(groups: GroupSpec, path: str, shape: Shape) -> Axes:
    """The axes that index the groups of a leaf, as a sorted tuple of non-negative ints.

    | name | group axes |
    |---|---|
    | `"input"` | rank 2: 0; rank 3 and more: -2, or -1 where that has length 1; in attention those of the inputs |
    | `"output"` | -1; in attention those of the outputs, without a leading one of query, key and value |
    | `"heads"` | those of attention's heads |
    | `"kernel"` | (-2, -1), on rank 3 and more |

    A projection of attention is recognised by the name of its layer (query, key, value, out and the like) and its rank:
    (features, heads, size) into heads, (heads, size, features) out of them. An axis -2 of length 1 means a depthwise
    convolution, which has one input for each output.

    Axes are counted from the end. So a kernel of a stack of layers, which has more axes before its own, has the groups
    of one layer; a group has the same slice of all layers. A projection with more axes than its own is taken for a
    stack if a layer above it is called attention, unless it looks like a convolution, with as many rows as columns. A
    bias or a scale has no named groups, even in a stack of layers.

    Args:
        groups: a name or axes, as `check_groups` returns them.
        path: the leaf's name, '/'-joined; its last but one key is the layer's name.
        shape: the leaf's shape.

    Raises:
        ValueError: the leaf does not have such axes.
    """
    ndim = len(shape)
    if isinstance(groups, str):
        axes = _named_axes(groups, path, shape)
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
            f"`groups={groups!r}` must not name an axis twice, but does on the leaf '{path}' of {ndim} axes; use each "
            "axis once, and count all of them from the same end."
        )
    return axes


def _projection(path, shape):
    """The axes of inputs, heads and outputs of a projection of attention, from the end; None for any other leaf."""
    *parents, layer, _ = ["", "", *path.split("/")]
    # The name alone does not decide, because a Dense or a 2-D Conv may have it too.
    for own in (3, 4):
        axes = _PROJECTIONS.get((layer, own))
        if axes is not None and (len(shape) == own or (len(shape) > own and _is_stacked(parents, layer, shape))):
            return axes
    return None


def _is_stacked(parents, layer, shape):
    """Whether a leaf with a projection's name and more axes than a projection belongs to a stack of projections."""
    if layer.endswith("_einsum"):
        return True
    features, heads, size = shape[-3:] if layer in _TO_HEADS.split() else (shape[-1], *shape[-3:-1])
    is_window = shape[-4] == shape[-3] and features != heads * size
    return not is_window and any(re.search("att|mha", parent.lower()) for parent in parents)


def _named_axes(groups, path, shape):
    ndim = len(shape)
    projection = _projection(path, shape)
    if ndim < 2:
        raise ValueError(
            f"`groups=\"{groups}\"` must go to a leaf of two axes or more, but '{path}' has {ndim}; leave it out by a "
            "narrower pattern (such as '.*kernel'), or name the axes, such as `groups=0`."
        )
    if path.split("/")[-1] in ("bias", "scale"):
        raise ValueError(
            f"`groups=\"{groups}\"` must go to a kernel, but '{path}' of shape {tuple(shape)} is a bias or a scale, of "
            "one layer or of many; leave it out by a narrower pattern (such as '.*kernel'), or name the axes, such as "
            "`groups=-1`."
        )
    if groups == "input":
        if projection is not None:
            return projection[0]
        return (0,) if ndim == 2 else (-1,) if shape[-2] == 1 else (-2,)
    if groups == "output":
        return (-1,) if projection is None else projection[2]
    if groups == "heads":
        if projection is not None:
            return projection[1]
        raise ValueError(
            f'`groups="heads"` must go to a kernel of three axes under query, key, value, out or '
            f"another of attention's names, got '{path}' with {ndim}; name the axes, such as `groups=1`."
        )
    if ndim < 3:  # "kernel"
        raise ValueError(
            f"`groups=\"kernel\"` must go to a convolution's kernel (spatial axes, in, out), but '{path}' has {ndim} "
            'axes; use `groups="input"` there.'
        )
    return (-2, -1)
