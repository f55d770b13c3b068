"""Groups that span leaves: index i of all readers of a channel, so that every zero group can be removed."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import numpy as np

from ramda_jax.compaction.adapters.choose import adapter_for, check_inputs, other_calls, params_of
from ramda_jax.compaction.adapters.trace_dims import trace_calls
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.grouping.by_leaf import check_weight, left_out, reasons
from ramda_jax.compaction.grouping.costs import coupled_costs
from ramda_jax.compaction.grouping.coupling import Coupling
from ramda_jax.compaction.grouping.makers import can_do_without, maker_parts
from ramda_jax.compaction.grouping.parts import COUPLED, Part
from ramda_jax.compaction.tracing.rules import Rule
from ramda_jax.compaction.tracing.trace import Dims, check_dims
from ramda_jax.compaction.tracing.units.savings import savings
from ramda_jax.structure.paths import named_leaves


def couple(dims: Dims, params: Any, weight: Literal["size", "saving"] | Mapping[str, Any] = "size") -> Coupling:
    """Groups of the traced widths: index i of *all* readers of a residual stream, a head, the rows of a channel.

        psi(W) = sum_d sum_i sqrt(n_di) ||(W_r[i] for all readers r of width d)||,   n_di its number of entries

    With a group LASSO on each leaf, an input of a layer may become zero while another layer still reads the same
    channel. The channel then stays. With these groups every zero group can be removed. The parameters are put in
    another order, with an array for each width, and the same solver solves the same kind of subproblem exactly.

    A leaf may belong to two widths along different axes, as attention's output projection belongs to heads and to their
    entries. It is then in the groups of the first width: whole heads. If an override of the trace freezes the first
    width, the leaf is in the groups of the other.

    Args:
        dims: from `trace_dims`, of the variables that `params` are, or are a part of.
        params: the parameters that the optimizer is given.
        weight: the weight of a group. `"size"`: the root of its size n_di. `"saving"`: the root of the number of
            parameters that are removed with its index. Or the root of other costs: a mapping from the names of widths
            to arrays, such as that of `costs` for a coupling.

    Returns:
        A `Coupling`.

    Raises:
        CompactionError: a leaf of `params` was not traced, or fits several traced leaves.
        ValueError: an unknown weight.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> from ramda_jax.compaction import trace_dims
        >>> def mlp(params, x):
        ...     h = jnp.tanh(x @ params["in"])
        ...     return h @ params["a"] + jnp.sin(h @ params["b"])
        >>> params = {"in": jnp.ones((5, 8)), "a": jnp.ones((8, 3)), "b": jnp.ones((8, 3))}
        >>> coupling = couple(trace_dims(mlp, params, jnp.ones((1, 5))), params)
        >>> print(coupling)
        width  groups  size  rows of
        d0          8     6  a[0] b[0]
        without groups: d1 (the model's output); d2 (the model's input)
        >>> optimizer = coupling.wrap(ramda_jax.ramda(0.1, coupling.regularizer(), strength=0.1))
    """
    check_dims(dims)
    return _couple(dims, params, weight)


def _couple(dims, params, weight, can_go=None):
    """`couple`, with groups of makers for the indices that can be deleted according to `can_go`."""
    check_weight(weight)
    own = dims.own_paths(params)
    useless: set[str] = set()
    while True:
        parts, used = _parts(dims, own, useless)
        axes = {traced: tuple({axis for path, axis in used if path == own[traced]}) for traced in own}
        removable = dims.units.removable(axes)
        # If something else reads the index too, a zero group would remove nothing.
        found = {width.name for width in dims.widths if width.name in parts and not removable[width.nodes].all()}
        if not found:
            break
        useless |= found
    if can_go is not None:
        parts |= maker_parts(dims, own, parts, can_go)
        parts = {width.name: parts[width.name] for width in dims.widths if width.name in parts}
        used = {}
        for part in (part for found in parts.values() for part in found):
            key = part.path, part.axis
            used[key] = np.concatenate([used.get(key, np.zeros(0, np.int64)), part.rows.ravel()])
        axes = {traced: tuple({axis for path, axis in used if path == own[traced]}) for traced in own}
    rest = {}
    for traced, path in own.items():
        [axis, *_] = axes[traced] or (None,)
        if axis is None:
            rest[path] = (None, np.zeros(0, np.int64))
            continue
        left = np.setdiff1d(np.arange(dims.leaves[traced].shape[axis]), used[path, axis])
        if len(left):
            rest[path] = (axis, left)
    shapes = {path: tuple(np.shape(leaf)) for path, leaf in named_leaves(params)}
    why = "" if parts else reasons(dims)
    coupling = Coupling(parts, rest, shapes, why=why, left_out=left_out(dims, own, parts, useless))
    if weight == "size":
        return coupling
    found = coupled_costs(dims, coupling, savings(dims, "parameters")) if weight == "saving" else weight
    weights = {name: _roots(found, name, parts) for name, parts in coupling.parts.items()}
    return dataclasses.replace(coupling, weights=weights)


def _roots(found, name, parts):
    array = found[name] if name in found else found.get(f"{COUPLED}/{name}")
    size = len(parts[0].rows)
    if array is None or np.size(array) != size:
        shape = None if array is None else np.shape(array)
        raise CompactionError(
            f"`weight` must have a cost for each of the {size} groups of {name}, got {shape}; use "
            "`costs(dims, of, coupling.regularizer())`."
        )
    return np.sqrt(np.asarray(array, np.float64)).ravel()


def _parts(dims: Dims, own: Mapping[str, str], useless: Collection[str]):
    """The parts by width, and a dict from (path, axis) to the rows that are in a part."""
    axis_of: dict[str, int] = {}
    used: dict[tuple[str, int], np.ndarray] = {}
    parts: dict[str, tuple[Part, ...]] = {}
    for width in dims.widths:
        found = []
        for member in () if width.reason or width.name in useless else width.readers:
            path = own.get(member.path)
            if path is None or axis_of.get(path, member.axis) != member.axis:
                continue
            key, rows = (path, member.axis), np.flatnonzero(member.index >= 0)
            counts = np.bincount(member.index[rows], minlength=width.size)
            before = used.get(key, np.zeros(0, np.int64))
            if counts.min() != counts.max() or np.isin(rows, before).any():
                continue
            order = np.argsort(member.index, kind="stable")[int((member.index < 0).sum()) :]
            found.append(Part(path, member.axis, order.reshape(width.size, -1)))
            axis_of[path] = member.axis
            used[key] = np.concatenate([before, order])
        if found:
            parts[width.name] = tuple(found)
    return parts, used


def couple_model(
    model: Any,
    *example_args: Any,
    variables: Any = None,
    call: Callable[..., Any] | None = None,
    overrides: Any = None,
    rules: Mapping[str, Rule] | None = None,
    weight: Literal["size", "saving"] | Mapping[str, Any] = "size",
) -> Coupling:
    """`couple` in one call, for a model of any kind and for its own parameters.

        coupling = compaction.couple_model(model, images)
        optimizer = coupling.wrap(ramda_jax.ramda(1e-2, coupling.regularizer(), strength=1e-4))

    Everything then takes the model's own parameters: the optimizer, `eval_params(state, params)`,
    `metrics.support(coupling.regularizer(), params)` and the other metrics, `describe`, `freeze_structure` and
    `compact_model`. A convolutional net with a flatten needs it, because a channel has many rows there.

    Besides the groups of readers (`couple`), there are groups of makers, for indices that are multiplied with something
    else: the columns and biases of an entry of a query and a key, or of a value. They exist if the model works without
    such an index, which is tried. It does not work if the code counts the indices, as in a scale of
    `1 / sqrt(q.shape[-1])`.

    Args:
        model, *example_args, variables, call, overrides, rules: as in `compact_model`.
        weight: as in `couple`. With `"saving"` a hidden unit has a large weight if its removal removes many entries,
            even if few entries read it.

    Returns:
        A `Coupling` of the parameters: those of type `nnx.Param`; the floating-point arrays of an Equinox module; of
        linen's and a function's variables `"params"` where there is such a key, else all.

    Raises:
        CompactionError: as `trace_dims`. If no index can be removed, `regularizer()` of the result says why.

    Example:
        >>> import jax, jax.numpy as jnp, ramda_jax
        >>> from flax import nnx
        >>> model = nnx.Sequential(nnx.Linear(5, 8, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(8, 3, rngs=nnx.Rngs(1)))
        >>> coupling = couple_model(model, jnp.ones((1, 5)))
        >>> optimizer = coupling.wrap(ramda_jax.ramda(0.1, coupling.regularizer(), strength=1e-3))
        >>> params = nnx.state(model, nnx.Param)
        >>> structured = ramda_jax.eval_params(optimizer.init(params), params)
        >>> print(ramda_jax.metrics.group_sparsity(coupling.regularizer(), structured))
        0.0
    """
    adapter = adapter_for(model, variables, call)
    check_inputs(model, adapter, example_args)
    dims, _ = trace_calls(adapter, other_calls(model, variables, call), example_args, overrides, rules)
    return _couple(dims, params_of(model, adapter), weight, can_do_without(adapter, dims, example_args))
