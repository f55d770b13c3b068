"""Coupled groups in the small model: the same groups, with their remaining entries."""

import math

import numpy as np

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.grouping.coupling import Coupling
from ramda_jax.compaction.grouping.parts import COUPLED, REST, Part
from ramda_jax.compaction.planning.plan import LeafPlan, Plan
from ramda_jax.compaction.planning.slicing import find_leaves


def compact_coupling(plan: Plan, coupling: Coupling) -> tuple[Coupling, Plan]:
    """The coupling of the small model, to continue training with the same groups.

    Coupling the small model again would give other names to the widths, and no name to widths with a single index. The
    kept entries of a packed array are found by packing a mask of the kept entries in the same way as the parameters.

    Args:
        plan: from `plan_compaction`, or that of a `Compaction`.
        coupling: from `couple`, for the whole parameters.

    Returns:
        A `Coupling` of the small parameters, with the whole model's names of widths; and a `Plan` by which `compact`
        and `expand` cut the result of `coupling.pack` and trees like it.

    Raises:
        CompactionError: the plan is not that of the coupled parameters, or it reorders the units of each layer, which
            the groups do not support.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> from ramda_jax.compaction import compact, compact_state, couple, keep_group_weights
        >>> from ramda_jax.compaction import plan_compaction, trace_dims
        >>> def mlp(params, x):
        ...     h = jnp.tanh(x @ params["in"])
        ...     return h @ params["a"] + jnp.sin(h @ params["b"])
        >>> reader = jnp.ones((8, 3)).at[3:].set(0)
        >>> params = {"in": jnp.ones((5, 8)), "a": reader, "b": reader}
        >>> dims = trace_dims(mlp, params, jnp.ones((1, 5)))
        >>> coupling = couple(dims, params)
        >>> state = coupling.wrap(ramda_jax.ramda(0.1, coupling.regularizer(), strength=0.1)).init(params)
        >>> plan = plan_compaction(dims, params)
        >>> small_coupling, _ = compact_coupling(plan, coupling)
        >>> regularizer = small_coupling.regularizer(keep_group_weights(coupling.regularizer(), params))
        >>> optimizer = small_coupling.wrap(ramda_jax.ramda(0.1, regularizer, strength=0.1))
        >>> small_params = compact(plan, params)
        >>> small_state = compact_state(plan, state, optimizer, small_params)
        >>> {name: leaf.shape for name, leaf in small_coupling.pack(small_params)["coupled"].items()}
        {'d0': (3, 6)}
    """
    names = find_leaves(plan, list(coupling.shapes))
    leaves = {path: plan.leaves[name] for path, name in names.items() if name is not None}
    found = {path: leaf.shape for path, leaf in leaves.items()}
    if found != coupling.shapes:
        raise CompactionError(
            f"The plan must be of the parameters that were coupled, of shapes {coupling.shapes}, but has {found}; give "
            "one of the same `dims`."
        )
    if plan.has_orders:
        raise CompactionError(
            "The plan must keep the same order of units in all layers, which the coupled groups require, but reorders "
            "the units of some layers; make it by `plan_compaction(dims, params, permute=False)`."
        )
    kept = {path: _kept(leaf) for path, leaf in leaves.items()}
    packed = {}
    for name, whole in coupling.parts.items():
        mask = _packed_mask(whole, leaves, kept)
        rows = np.flatnonzero(mask.any(axis=1))
        # If no row is left, take the entries that the plan keeps along the other axes.
        entries = mask if len(rows) else _packed_mask(whole, leaves, kept, whole_rows=True)
        columns = np.flatnonzero(entries.any(axis=0))
        if not mask[np.ix_(rows, columns)].all():
            raise CompactionError(
                f"The plan must keep the same entries in all kept groups of {name}, but does not; give one of the "
                "`dims` that were coupled."
            )
        packed[f"{COUPLED}/{name}"] = LeafPlan(mask.shape, (tuple(rows.tolist()), tuple(columns.tolist())))
    parts = {}
    for name, whole in coupling.parts.items():
        alive = list(packed[f"{COUPLED}/{name}"].kept[0])
        parts[name] = tuple(
            Part(part.path, part.axis, _part_places(part.rows[alive], kept[part.path][part.axis])) for part in whole
        )
    rest = {}
    for path, (axis, rows) in coupling.rest.items():
        shape, places = list(leaves[path].shape), list(kept[path])
        if axis is not None:
            shape[axis], places[axis] = len(rows), np.flatnonzero(np.isin(rows, places[axis]))
        packed[f"{REST}/{path}"] = LeafPlan(tuple(shape), tuple(tuple(indices.tolist()) for indices in places))
        rest[path] = (axis, rows if axis is None else _places(rows, kept[path][axis]))
    weights = None
    if coupling.weights is not None:
        alive = {name: list(packed[f"{COUPLED}/{name}"].kept[0] or ()) for name in parts}
        weights = {name: coupling.weights[name][alive[name]] for name in parts}
    shapes = {path: leaf.small_shape for path, leaf in leaves.items()}
    return Coupling(parts, rest, shapes, weights, coupling.why), Plan(packed, (), {})


def _kept(leaf):
    """The kept indices along each axis, as arrays."""
    pairs = zip(leaf.shape, leaf.kept, strict=True)
    return [np.arange(n) if kept is None else np.array(kept, int) for n, kept in pairs]


def _packed_mask(parts, leaves, kept, whole_rows=False):
    """Which entries of a width's packed array are kept; with `whole_rows` as if all of its indices were."""
    blocks = []
    for part in parts:
        shape = leaves[part.path].shape
        own = list(kept[part.path])
        if whole_rows:
            own[part.axis] = np.arange(shape[part.axis])
        block = np.moveaxis(_mask(shape, own), part.axis, 0)[part.rows]
        blocks.append(block.reshape(len(block), math.prod(block.shape[1:])))
    return np.concatenate(blocks, axis=1)


def _part_places(rows, kept):
    return _places(rows, kept).reshape(len(rows), -1) if len(rows) else rows


def _mask(shape, kept):
    mask = np.zeros(shape, bool)
    mask[np.ix_(*kept)] = True
    return mask


def _places(rows, kept):
    """The new positions of the kept rows."""
    return np.searchsorted(kept, rows[np.isin(rows, kept)])
