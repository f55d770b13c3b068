"""Makes a plan from a trace and the values of the variables."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.planning.liveness import Liveness
from ramda_jax.compaction.planning.orders import find_orders
from ramda_jax.compaction.planning.plan import AxisOrder, LeafPlan, Plan, WidthPlan
from ramda_jax.compaction.planning.slicing import reordered
from ramda_jax.compaction.planning.unread_inputs import unread_inputs
from ramda_jax.compaction.tracing.trace import Dims, check_dims
from ramda_jax.structure.paths import named_leaves
from ramda_jax.typing import Shape
from ramda_jax.validation import check_count, check_non_negative


def plan_compaction(
    dims: Dims,
    variables: Any,
    round_to: int = 1,
    threshold: float = 0.0,
    keep: Mapping[str, str] | None = None,
    permute: bool = True,
    allow_empty: bool | Collection[str] = False,
) -> Plan:
    """Decides which indices are deleted.

    An index is *alive* if it is frozen, or if a contraction reads it. A contraction reads it if two things hold. The
    parameter that it is multiplied with has a nonzero entry along it, at living indices of the other axes. And its
    value is not zero for every input, as is the value of a unit whose kernel and bias are zero. All other indices are
    dead: their values reach the output multiplied by zeros only, for any biases, normalisation and activations, as long
    as they are finite. The living indices are the smallest such set, found from the outputs backwards. So two dead
    units that read only each other are both deleted.

    If no index of an axis is alive, one is kept, because many layers refuse arrays of size 0; `allow_empty=True` keeps
    none, so that a residual branch that adds nothing leaves the compiled program. `round_to` keeps more.
    The values of these extra indices do not matter, so that indices which only they read may be deleted.

    Args:
        dims: the result of `trace_dims`.
        variables: the pytree that was traced, with its values. In a leaf that is only a shape and a dtype, no entry
            counts as zero.
        round_to: keep a multiple of this number of indices of each width, or all, for hardware that prefers multiples
            of 8, 16 or 128.
        threshold: magnitudes up to this count as zero. With more than 0 the small model is *not* that of the given
            parameters but of parameters with these entries set to zero.
        keep: a mapping from the names of widths that must stay whole to the reasons, such as `{"d3": "why"}`.
        permute: whether the units of stacked layers may be reordered layer by layer if this allows more deletions: each
            layer then loses as many units as the layer with the fewest dead units has. The plan holds the orders. False
            keeps the common order.
        allow_empty: whether a width of which no index is alive may lose all; or the names of the widths that may.

    Returns:
        A `Plan`; print it for a table.

    Raises:
        CompactionError: the variables have other paths or shapes than those traced; `keep` names an unknown width.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ramda_jax.compaction import trace_dims
        >>> def mlp(params, x):
        ...     return jax.nn.relu(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 8)), "out": jnp.ones((8, 3)).at[2:].set(0)}
        >>> plan = plan_compaction(trace_dims(mlp, params, jnp.ones((1, 5))), params)
        >>> print(plan)
        width  kept  of  where
        d1        2   8  in[1] out[0]
        never free, the model's input: d0
        never free, the model's output: d2
        64 -> 16 entries
    """
    check_dims(dims)
    return Planner(dims, variables, round_to, threshold, permute).plan(keep, allow_empty)


class Planner:
    """Makes several plans for a model and its values, with different widths kept; it looks up the zeros only once."""

    def __init__(
        self, dims: Dims, variables: Any, round_to: int = 1, threshold: float = 0.0, permute: bool = True
    ) -> None:
        check_count("round_to", round_to, 1)
        check_non_negative("threshold", threshold, schedules=False)
        self.dims: Dims = dims
        self.round_to: int = int(round_to)
        self.threshold: float = float(threshold)
        self.permute: bool = permute
        self._leaves = dict(named_leaves(variables))
        check_leaves({path: value.shape for path, value in dims.leaves.items()}, self._leaves)
        self._first: Liveness | None = None

    def dead(self) -> list[str]:
        """The names of the widths of which no index is alive."""
        return self._alive({}).dead()

    def _alive(self, keep):
        liveness = Liveness(self.dims, self._leaves, self.threshold, keep, self._first)
        self._first = self._first or liveness
        liveness.find_alive()
        return liveness

    def plan(self, keep: Mapping[str, str] | None = None, allow_empty: bool | Collection[str] = False) -> Plan:
        """`plan_compaction` with widths that stay whole, and with those that may lose all of their indices."""
        if not (keep is None or isinstance(keep, Mapping)):
            raise TypeError(
                f"`keep` must be a dict from ids to reasons, got {keep!r}; use for example {{'d1': 'why'}}."
            )
        keep, dims = dict(keep or {}), self.dims
        if unknown := keep.keys() - {width.name for width in dims.widths}:
            raise CompactionError(
                f"`keep` must name widths of `dims`, got {sorted(map(repr, unknown))}; print `dims` for the names."
            )
        liveness = self._alive(keep)
        orders = find_orders(dims, self._leaves, liveness.alive, self.threshold, keep) if self.permute else {}
        if orders:
            liveness = Liveness(dims, in_order(orders, self._leaves), self.threshold, keep)
            liveness.find_alive()
        kept = liveness.with_padding(self.round_to, _names(dims, allow_empty))
        plans = {}
        for path, value in dims.leaves.items():
            masks = [dims.nodes.mask(label, kept) for label in value.labels]
            plans[path] = LeafPlan(
                value.shape,
                tuple(None if m.all() else tuple(np.flatnonzero(m).tolist()) for m in masks),
                orders.get(path, ()),
            )
        widths = []
        for width in dims.widths:
            alive, staying = liveness.alive[width.nodes], kept[width.nodes]
            widths.append(
                WidthPlan(
                    width.name,
                    width.size,
                    tuple(map(str, width.members)),
                    tuple(np.flatnonzero(staying).tolist()),
                    tuple(np.flatnonzero(staying & ~alive).tolist()),
                    width.reason or keep.get(width.name, ""),
                )
            )
        return Plan(plans, tuple(widths), unread_inputs(dims, liveness), self.round_to, self.threshold)


def _names(dims, allow_empty):
    """The names of the widths that may lose all of their indices."""
    names = {width.name for width in dims.widths}
    if isinstance(allow_empty, bool):
        return names if allow_empty else set()
    if isinstance(allow_empty, str) or not isinstance(allow_empty, Collection):
        raise TypeError(
            f"`allow_empty` must be a bool, or names of widths, got {allow_empty!r}; use True, or for example ['d1']."
        )
    if unknown := set(allow_empty) - names:
        raise CompactionError(
            f"`allow_empty` must name widths of `dims`, got {sorted(map(repr, unknown))}; print `dims` for the names."
        )
    return set(allow_empty)


def in_order(orders: Mapping[str, tuple[AxisOrder, ...]], leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves, with the units of each layer in the order in which they are cut."""
    plans = {path: LeafPlan(np.shape(leaves[path]), (), own) for path, own in orders.items() if own}
    return {path: reordered(plans[path], np.asarray(leaf)) if path in plans else leaf for path, leaf in leaves.items()}


def check_leaves(shapes: Mapping[str, Shape], leaves: Mapping[str, Any]) -> None:
    """Raises unless `leaves` has exactly the paths and shapes `shapes`."""
    found = {path: tuple(np.shape(leaf)) for path, leaf in leaves.items()}
    if found != shapes:
        wrong = sorted(path for path in shapes.keys() | found.keys() if shapes.get(path) != found.get(path))
        path = wrong[0]
        raise CompactionError(
            f"The leaves must be those that were traced, but '{path}' has shape {found.get(path)}, not "
            f"{shapes.get(path)} (None: no such leaf); give all variables of the model, with the statistics of batch "
            "norm (`nnx.merge_state(nnx.state(model), params)`), or trace and plan again for others."
        )
