"""Plans: what is kept of every leaf, as data."""

import dataclasses
import json
import math
from typing import Any

from ramda_jax.compaction.planning.plan_json import check_plan, parse_json
from ramda_jax.compaction.tracing.widths import few, without_never_free
from ramda_jax.tables import text_table

#: Format 2 has orders and sizes. A plan without them has format 1.
_FORMATS = (1, 2)
#: The names of fields in JSON that differ from their Python names.
_IN_JSON = {"widths": "ids"}


@dataclasses.dataclass(frozen=True)
class AxisOrder:
    """The orders, one for each layer of a stack, in which an axis is cut.

    Attributes:
        axis: the axis.
        by: the axes of the layers.
        indices: int array `[*sizes of by, size of axis]` as nested tuples: which index comes to each position.
    """

    axis: int
    by: tuple[int, ...]
    indices: Any


@dataclasses.dataclass(frozen=True)
class LeafPlan:
    """What is kept of a leaf.

    Attributes:
        shape: the shape before compaction.
        kept: for each axis the kept indices, in order; None for all.
        orders: an `AxisOrder` for each axis whose order is changed in each layer before it is cut.
    """

    shape: tuple[int, ...]
    kept: tuple[tuple[int, ...] | None, ...]
    orders: tuple[AxisOrder, ...] = ()

    @property
    def small_shape(self) -> tuple[int, ...]:
        """The shape after compaction."""
        return tuple(n if kept is None else len(kept) for n, kept in zip(self.shape, self.kept, strict=True))


@dataclasses.dataclass(frozen=True)
class WidthPlan:
    """What is kept of a width of `Dims`.

    Attributes:
        name, size: those of the width.
        members: its axes, as `"path[axis]"`.
        kept: the kept indices.
        padding: the kept indices that nothing reads: the single index of a dead layer, and those that `round_to` adds.
            Their values do not matter; all others compute exactly what they did before. With `allow_empty` a dead layer
            may keep none.
        reason: why the width is frozen, or "".
    """

    name: str
    size: int
    members: tuple[str, ...]
    kept: tuple[int, ...]
    padding: tuple[int, ...]
    reason: str

    @property
    def is_dead(self) -> bool:
        """Whether nothing reads any of its indices, so that the layer computes the same for every input."""
        return len(self.padding) == len(self.kept)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is kept of every leaf; from `plan_compaction`, or from JSON.

    Attributes:
        leaves: a `LeafPlan` by path, for all the variables.
        widths: a `WidthPlan` for each width that has an axis longer than 1.
        unread_inputs: a mapping from `"path[axis]"` of inputs to the indices that no parameter reads. They stay.
        round_to, threshold: the arguments of `plan_compaction`.
        sizes: numbers that the small model's modules must hold instead of those of the whole model, as (path of the
            module, attribute, number).
    """

    leaves: dict[str, LeafPlan]
    widths: tuple[WidthPlan, ...]
    unread_inputs: dict[str, tuple[int, ...]]
    round_to: int = 1
    threshold: float = 0.0
    sizes: tuple[tuple[str, str, int], ...] = ()

    @property
    def dead(self) -> tuple[str, ...]:
        """The names of the widths that nothing reads; one index of each is kept, or none with `allow_empty`."""
        return tuple(width.name for width in self.widths if width.is_dead)

    @property
    def changes_nothing(self) -> bool:
        """Whether all indices of all leaves are kept."""
        return all(leaf.small_shape == leaf.shape for leaf in self.leaves.values())

    @property
    def has_orders(self) -> bool:
        """Whether the order of units is changed in any layer of a stack before it is cut."""
        return any(leaf.orders for leaf in self.leaves.values())

    @property
    def num_params(self) -> tuple[int, int]:
        """The numbers of entries of all leaves, before and after; running statistics that were traced count too."""
        leaves = self.leaves.values()
        return sum(math.prod(leaf.shape) for leaf in leaves), sum(math.prod(leaf.small_shape) for leaf in leaves)

    def to_json(self) -> str:
        """The plan as text."""
        fields: dict[str, Any] = {_IN_JSON.get(name, name): value for name, value in dataclasses.asdict(self).items()}
        is_first = not self.has_orders and not self.sizes
        if is_first:
            del fields["sizes"]
            for leaf in fields["leaves"].values():
                del leaf["orders"]
        return json.dumps({"format": _FORMATS[not is_first], **fields})

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan in a text that `to_json` has written.

        Raises:
            CompactionError: the text is not a plan, or has another format. Shapes, and the ranges, order and uniqueness
                of indices, are checked.
        """
        return cls.from_fields(parse_json(text, "the text"))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Plan":
        """The plan in a parsed object that `to_json` has written; raises like `from_json`."""
        check_plan(fields, _FORMATS)
        leaves = {}
        for path, leaf in fields["leaves"].items():
            kept = tuple(None if kept is None else tuple(kept) for kept in leaf["kept"])
            orders = [AxisOrder(o["axis"], tuple(o["by"]), _tuples(o["indices"])) for o in leaf.get("orders", ())]
            leaves[path] = LeafPlan(tuple(leaf["shape"]), kept, tuple(orders))
        widths = []
        for stored in fields["ids"]:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
            widths.append(WidthPlan(**values))
        unread = {name: tuple(indices) for name, indices in fields["unread_inputs"].items()}
        sizes = tuple((module, name, number) for module, name, number in fields.get("sizes", ()))
        return cls(leaves, tuple(widths), unread, fields["round_to"], float(fields["threshold"]), sizes)

    def _is_reordered(self, width):
        axes = {f"{path}[{order.axis}]" for path, leaf in self.leaves.items() for order in leaf.orders}
        return not axes.isdisjoint(width.members)

    def __str__(self) -> str:
        rows = [("width", "kept", "of", "where", "")]
        shown, never_free = without_never_free(self.widths)
        for width in shown:
            if width.reason:
                note = f"frozen: {width.reason}"
            elif width.is_dead and not width.kept:
                note = "empty: nothing reads it, and none of it is left"
            elif width.is_dead:
                note = "dead: nothing reads it, its layer contributes a constant"
            else:
                note = f"{len(width.padding)} of them unread" if width.padding else ""
            if self._is_reordered(width):
                note += f"{'; ' * bool(note)}other ones in each layer"
            rows.append((width.name, str(len(width.kept)), str(width.size), few(width.members), note))
        lines = [*text_table(rows, right=(1, 2)), *never_free]
        for name, unread in self.unread_inputs.items():
            lines.append(f"input {name}: {len(unread)} indices are not read by anything; they stay")
        if self.dead:
            lines.append(f"whole layers are dead ({few(self.dead)}): no input changes what they compute")
        before, after = self.num_params
        lines.append(f"{before} -> {after} entries")
        return "\n".join(lines)


def _tuples(nested):
    return tuple(map(_tuples, nested)) if isinstance(nested, list) else nested
