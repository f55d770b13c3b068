"""Groups of each leaf along the axis along which it reads, for any layout and name."""

import dataclasses
import re
import textwrap
from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.grouping.costs import PARAMS, leaf_costs, root_weight
from ramda_jax.compaction.grouping.parts import Part
from ramda_jax.compaction.tracing.trace import Dims, check_dims
from ramda_jax.compaction.tracing.units.group_axes import group_axis_of
from ramda_jax.compaction.tracing.units.savings import savings
from ramda_jax.compaction.tracing.widths import few
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import Grouped, GroupLasso, GroupRegularizer
from ramda_jax.regularizers.scaled import Scaled


def groups(
    dims: Dims,
    regularizer: Regularizer | Mapping[str, Regularizer | None] | None = None,
    weight: Literal["size", "saving"] | Mapping[str, Any] = "size",
) -> dict[str, Regularizer]:
    """The groups that can be removed, found by the trace, as `regularizer` for an optimizer.

    A group has the entries that read one index of an axis: the row of a Flax kernel, the column of an Equinox `weight`,
    a head of attention's output projection under any name and in any order of axes, a channel of a depthwise or grouped
    convolution, index i of all layers of a stack. Left out are leaves whose zeros can never remove anything: tables,
    tokens, position embeddings and biases; leaves that read the model's inputs, or a frozen width (`print(dims)` says
    why); and leaves that read the same index as one of these.

    A leaf that reads along several axes gets the groups of the first, whole heads. Rows behind a flatten are groups of
    one row each; a channel is removed only if all its rows are zero. `couple_model` makes groups of whole channels,
    over several leaves.

    Args:
        dims: from `trace_dims`.
        regularizer: a regularizer with groups, whose own `groups` are replaced; None for `GroupLasso()`. Or a mapping
            of patterns on the leaves' paths to such regularizers or None.
        weight: the weight of a group. `"size"`: the weight of the regularizer. `"saving"`: the root of the number of
            parameters that are removed with the group, as in `costs`. Or other costs, such as `costs(dims, "flops")`.

    Returns:
        A mapping from patterns, one for each leaf, to the regularizer with axes. The patterns are of the traced paths;
        linen's leading `params/` may be missing.

    Raises:
        CompactionError: nothing can ever be removed; the message says why.
        ValueError: an unknown weight; costs as weights for a regularizer whose groups have no weights.
        TypeError: a regularizer without groups.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ramda_jax.compaction import trace_dims
        >>> def mlp(params, x):
        ...     return params["out"] @ jax.nn.relu(params["in"] @ x)
        >>> params = {"in": jnp.ones((8, 5)), "out": jnp.ones((3, 8))}
        >>> groups(trace_dims(mlp, params, jnp.ones(5)))
        {'^out$': GroupLasso(groups=(1,), group_weight='sqrt_size', non_negative=False)}
    """
    check_dims(dims)
    patterns = regularizer if isinstance(regularizer, Mapping) else {"": regularizer or GroupLasso()}
    for part in patterns.values():
        check_grouped(part)
    check_weight(weight)
    axes = group_axis_of(dims)
    found: Mapping[str, Any] = {}
    if weight == "saving":
        found = leaf_costs(dims, {path: (axis,) for path, axis in axes.items()}, savings(dims, "parameters"))
    elif isinstance(weight, Mapping):
        found = {path: weight.get(path, weight.get(path.removeprefix(PARAMS))) for path in axes}
    result = {}
    for path, axis in axes.items():
        given = next((part for pattern, part in patterns.items() if re.search(pattern, path)), None)
        if given is not None:
            result[pattern_of(path)] = with_weights(_along(given, axis), found.get(path), path)
    if not result:
        raise CompactionError(
            f"Some group must be removable, but {reasons(dims)}; use named groups, such as `GroupLasso()`, or give "
            "`trace_dims` the `rules` or `overrides` that it lacks."
        )
    return result


def check_weight(weight: Any) -> None:
    """Raises unless `weight` is a name or a mapping of costs."""
    if not isinstance(weight, Mapping) and weight not in ("size", "saving"):
        raise ValueError(
            f"`weight` must be 'size', 'saving' or a mapping of costs, got {weight!r}; use 'size', the default."
        )


def with_weights(regularizer: Any, found: Any, name: str) -> Any:
    """The regularizer with the roots of costs as group weights; with None it keeps its weights."""
    if found is None:
        return regularizer
    if isinstance(regularizer, Scaled):
        return dataclasses.replace(regularizer, regularizer=with_weights(regularizer.regularizer, found, name))
    if not isinstance(regularizer, GroupRegularizer):
        raise ValueError(
            f"`weight` must be 'size' where groups have no weights, got {regularizer!r} for '{name}'; use for example "
            "`GroupLasso()`."
        )
    return dataclasses.replace(regularizer, group_weight=root_weight(np.asarray(found)))


def check_grouped(regularizer: Any) -> None:
    """Raises unless a regularizer has groups, or is None."""
    inner = regularizer.regularizer if isinstance(regularizer, Scaled) else regularizer
    if inner is not None and not isinstance(inner, Grouped):
        raise TypeError(f"`regularizer` must be one with groups, got {regularizer!r}; use for example `GroupLasso()`.")


def pattern_of(path: str) -> str:
    """The pattern of a traced leaf among the parameters that an optimizer is given."""
    if path.startswith(PARAMS):
        return f"^(?:{PARAMS})?{re.escape(path.removeprefix(PARAMS))}$"
    return f"^{re.escape(path)}$"


def reasons(dims: Dims, limit: int = 6) -> str:
    """Why nothing of a trace can be removed, as the end of a sentence."""
    frozen = [f"{width.name} of {width.size} stays: {width.reason}" for width in dims.widths if width.reason]
    free = [f"{width.name} of {width.size} is read by what has no groups" for width in dims.widths if not width.reason]
    found = [*free, *frozen]
    more = f", and {len(found) - limit} more" if len(found) > limit else ""
    return f"no index of the parameters can go by zeros ({'; '.join(found[:limit])}{more}); print the trace for all"


def left_out(
    dims: Dims, own: Mapping[str, str], parts: Mapping[str, tuple[Part, ...]], shared: Collection[str], limit: int = 6
) -> str:
    """The widths that a coupling leaves out, by reason; "" if it has all.

    Args:
        dims: the trace.
        own: a dict from traced paths to those of the parameters.
        parts: the coupling's.
        shared: the names of free widths that something without groups reads too.
        limit: how many reasons are given.
    """
    names: dict[str, list[str]] = {}
    for width in dims.widths:
        if width.name not in parts:
            reason = width.reason or _why_free_is_left_out(width, own, parts, shared)
            names.setdefault(textwrap.shorten(reason, 60, placeholder=" ..."), []).append(width.name)
    found = [f"{few(own_names)} ({reason})" for reason, own_names in names.items()]
    more = [f"{len(found) - limit} more reasons: print the trace"] if len(found) > limit else []
    return "; ".join([*found[:limit], *more])


def _why_free_is_left_out(width, own, parts, shared):
    if width.name in shared:
        return "something without groups reads it too"
    if not width.readers:
        return "no parameter alone reads it"
    paths = {own.get(member.path) for member in width.readers}
    if paths == {None}:
        return "what reads it is not among the parameters"
    if any(part.path in paths for found in parts.values() for part in found):
        return "what reads it is in the groups of another width"
    return "what reads it has unequal numbers of rows for its indices"


def _along(regularizer, axis):
    if isinstance(regularizer, Scaled):
        return dataclasses.replace(regularizer, regularizer=_along(regularizer.regularizer, axis))
    return dataclasses.replace(regularizer, groups=(axis,))
