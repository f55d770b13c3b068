"""What can go: indices that are read with zeros only."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ramda_jax.compaction.dims import Dims, axis_nodes
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.operands import nonzero
from ramda_jax.structure.paths import named_leaves
from ramda_jax.validation import check_count, check_non_negative

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class LeafPlan:
    """What is kept of a leaf.

    Attributes:
        shape: before.
        kept: for each axis the indices kept, in order; None for all.
    """

    shape: tuple[int, ...]
    kept: tuple[tuple[int, ...] | None, ...]

    @property
    def small_shape(self):
        """The shape after."""
        return tuple(n if kept is None else len(kept) for n, kept in zip(self.shape, self.kept, strict=True))


@dataclasses.dataclass(frozen=True)
class IdPlan:
    """What becomes of an id of `Dims`.

    Attributes:
        name, size: those of the id.
        members: its axes, as `"path[axis]"`.
        kept: the indices kept.
        padding: those of them that are kept although nothing reads them: the one index that a dead layer keeps, and
            what `round_to` adds. What they compute is of no consequence; all others compute exactly what they did.
        reason: why it is frozen, or "".
    """

    name: str
    size: int
    members: tuple[str, ...]
    kept: tuple[int, ...]
    padding: tuple[int, ...]
    reason: str

    @property
    def is_dead(self):
        """Whether nothing reads any of it: what it computes is the same for every input."""
        return len(self.padding) == len(self.kept)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is kept of every leaf; from `plan_compaction`, or from JSON.

    Attributes:
        leaves: a `LeafPlan` by path, for all the variables.
        ids: an `IdPlan` for each id that has an axis longer than 1.
        unread_inputs: from the paths of inputs, and an axis, to indices that no parameter reads; they stay.
        round_to, threshold: as given.
    """

    leaves: dict[str, LeafPlan]
    ids: tuple[IdPlan, ...]
    unread_inputs: dict[str, tuple[int, ...]]
    round_to: int = 1
    threshold: float = 0.0

    @property
    def dead(self):
        """Names of the ids nothing reads, of which one index is kept."""
        return tuple(one.name for one in self.ids if one.is_dead)

    @property
    def changes_nothing(self):
        """Whether all indices of all leaves are kept."""
        return all(leaf.small_shape == leaf.shape for leaf in self.leaves.values())

    @property
    def num_params(self):
        """Entries of all leaves, before and after."""
        leaves = self.leaves.values()
        return sum(math.prod(leaf.shape) for leaf in leaves), sum(math.prod(leaf.small_shape) for leaf in leaves)

    def to_json(self):
        """The plan as text."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text):
        """The plan that `to_json` has written.

        Raises:
            CompactionError: text that is no plan, or one of another format.
        """
        try:
            fields = json.loads(text)
            if fields.pop("format") != _FORMAT:
                raise CompactionError(f"The plan must have format {_FORMAT}; make a new one by `plan_compaction`.")
            leaves = {
                path: LeafPlan(tuple(leaf["shape"]), tuple(None if one is None else tuple(one) for one in leaf["kept"]))
                for path, leaf in fields.pop("leaves").items()
            }
            ids = tuple(
                IdPlan(**{key: tuple(value) if isinstance(value, list) else value for key, value in one.items()})
                for one in fields.pop("ids")
            )
            unread = {name: tuple(indices) for name, indices in fields.pop("unread_inputs").items()}
            return cls(leaves, ids, unread, **fields)
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise CompactionError(f"No plan: {error!r}; give what `Plan.to_json` has written.") from error

    def __str__(self):
        rows = [("id", "kept", "of", "where", "")]
        for one in self.ids:
            if one.reason:
                note = f"frozen: {one.reason}"
            elif one.is_dead:
                note = "dead: nothing reads it, its layer contributes a constant"
            else:
                note = f"{len(one.padding)} of them unread" if one.padding else ""
            rows.append((one.name, str(len(one.kept)), str(one.size), " ".join(one.members), note))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = []
        for row in rows:
            cells = [row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]), row[3].ljust(widths[3])]
            lines.append("  ".join([*cells, row[4]]).rstrip())
        for name, unread in self.unread_inputs.items():
            lines.append(f"input {name}: {len(unread)} indices are not read by anything; they stay")
        before, after = self.num_params
        lines.append(f"{before} -> {after} entries")
        return "\n".join(lines)


def plan_compaction(
    dims: Dims,
    variables: Any,
    round_to: int = 1,
    threshold: float = 0.0,
    keep: Mapping[str, str] | None = None,
) -> Plan:
    """Decides which indices go.

    An index is *alive* if it is frozen, or if a contraction reads it: if along it the parameter that it is multiplied
        with
    has an entry that is not zero, at indices of the other axes that are alive themselves. The rest is dead: its value
    reaches the output multiplied by zeros only, whatever biases, normalisation and activations make of it, provided
    it is finite. The alive indices are the smallest set of that kind, found from the outputs backwards: two dead
    units that feed only each other go together.

    Where nothing of an axis is alive, one index is kept, as arrays of size 0 are no use; `round_to` keeps more. What
    these compute does not count, and what only they read may go.

    Args:
        dims: what `trace_dims` has found.
        variables: the pytree that was traced, with its values.
        round_to: keep a multiple of so many indices of each id, or all, for hardware that likes 8, 16 or 128.
        threshold: magnitudes up to this count as zero. With more than 0 the small model is *not* that of the given
            parameters but of parameters with these entries set to zero.
        keep: names of ids that stay whole, such as `{"d3": "why"}`.

    Returns:
        A `Plan`; print it for a table.

    Raises:
        CompactionError: variables of other paths or shapes than those traced; an id in `keep` that there is not.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ramda_jax.compaction import trace_dims
        >>> def mlp(params, x):
        ...     return jax.nn.relu(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 8)), "out": jnp.ones((8, 3)).at[2:].set(0)}
        >>> plan = plan_compaction(trace_dims(mlp, params, jnp.ones((1, 5))), params)
        >>> print(plan)
        id  kept  of  where
        d0     5   5  in[0]         frozen: the model's input
        d1     2   8  in[1] out[0]
        d2     3   3  out[1]        frozen: the model's output
        64 -> 16 entries
    """
    check_count("round_to", round_to, 1)
    check_non_negative("threshold", threshold)
    leaves = dict(named_leaves(variables))
    check_leaves({path: value.shape for path, value in dims.leaves.items()}, leaves)
    keep = dict(keep or {})
    if unknown := keep.keys() - {dim.name for dim in dims.ids}:
        raise CompactionError(f"`keep` must name ids of `dims`, got {sorted(unknown)}; print `dims` for its ids.")
    liveness = Liveness(dims, leaves, threshold, keep)
    liveness.find_alive()
    kept = liveness.with_padding(round_to)
    is_kept = liveness.axis_mask
    plans = {}
    for path, value in dims.leaves.items():
        masks = [is_kept(label, kept) for label in value.labels]
        plans[path] = LeafPlan(
            value.shape, tuple(None if m.all() else tuple(np.flatnonzero(m).tolist()) for m in masks)
        )
    ids = []
    for dim in dims.ids:
        alive, staying = liveness.alive[dim.nodes], kept[dim.nodes]
        ids.append(
            IdPlan(
                dim.name,
                dim.size,
                tuple(map(str, dim.members)),
                tuple(np.flatnonzero(staying).tolist()),
                tuple(np.flatnonzero(staying & ~alive).tolist()),
                dim.reason or keep.get(dim.name, ""),
            )
        )
    return Plan(plans, tuple(ids), liveness.unread_inputs(), int(round_to), float(threshold))


def check_leaves(shapes, leaves):
    """Raises unless `leaves` has exactly the paths and shapes `shapes`."""
    found = {path: tuple(np.shape(leaf)) for path, leaf in leaves.items()}
    if found != shapes:
        wrong = sorted(path for path in shapes.keys() | found.keys() if shapes.get(path) != found.get(path))
        path = wrong[0]
        raise CompactionError(
            f"The leaves must be those that were traced, but '{path}' has shape {found.get(path)}, not "
            f"{shapes.get(path)} (None: no such leaf); trace and plan anew for other variables."
        )


class Liveness:
    """Which nodes are alive: those that have to be, and what they read, and so on."""

    def __init__(self, dims, leaves, threshold=0.0, keep=()):
        self.dims = dims
        self.walk = dims.walk
        self.indices = dims.walk.indices
        self.products = self.indices.products()
        count = self.indices.count
        every = np.arange(count)
        roots = self.indices.find(every)
        on_leaf = np.zeros(count, bool)
        for dim in dims.ids:
            on_leaf[dim.nodes] = True
        # What no leaf has cannot be deleted from one, and stays.
        self.alive = (roots == every) & (~self.indices.is_free(every) | ~on_leaf)
        for dim in dims.ids:
            if dim.name in keep:
                self.alive[dim.nodes] = True
        cache = {}
        self.readers = [
            (reader, [nonzero(operand, leaves, threshold, cache) for operand, _, _ in reader.sides])
            for reader in self.walk.readers
        ]

    def axis_mask(self, label, alive):
        """Which indices of an axis are alive: those all of whose nodes are."""
        roots = self.indices.find(label)
        mask = alive[roots]
        if not self.products:
            return mask
        for product in set(roots.tolist()) & self.products.keys():
            mask[roots == product] = all(alive[node] for node in self.products[product])
        return mask

    def read(self, reader, entries):
        """Which entries of the sum are read, an array over the contracted axes."""
        result = np.ones([len(label) for label in reader.contracted], bool)
        for (_, contracted, others), mask in zip(reader.sides, entries, strict=True):
            for axis, label in others.items():
                alive = self.axis_mask(label, self.alive)
                if not alive.all():
                    mask = np.compress(alive, mask, axis)
            read = mask.any(axis=tuple(others))
            # Left are the contracted axes in the order in which they lie in the operand.
            result &= np.transpose(read, np.argsort(np.argsort(contracted)))
        return result

    def find_alive(self):
        """The smallest set that contains what is frozen and whatever a living index reads."""
        changed = True
        while changed:
            changed = False
            # From the outputs backwards, where most of the news comes from.
            for reader, entries in reversed(self.readers):
                read = self.read(reader, entries)
                for axis, label in enumerate(reader.contracted):
                    needed = read.any(axis=tuple(i for i in range(read.ndim) if i != axis))
                    _, nodes = axis_nodes(self.walk, label[needed], self.products)
                    if not self.alive[nodes].all():
                        self.alive[nodes] = True
                        changed = True

    def with_padding(self, round_to):
        """The alive nodes, and so many more that no axis of any value is empty and ids have round sizes."""
        kept = self.alive.copy()
        for dim in self.dims.ids:
            alive = int(kept[dim.nodes].sum())
            target = min(dim.size, max(1, -(-alive // round_to)) * round_to)
            spare = dim.nodes[~kept[dim.nodes]]
            kept[spare[: target - alive]] = True
        values = [value for visit in self.walk.visits for value in visit.outputs]
        for value in [*self.dims.leaves.values(), *values]:
            for label in value.labels:
                if len(label) and not self.axis_mask(label, kept).any():
                    _, nodes = axis_nodes(self.walk, label[:1], self.products)
                    kept[nodes] = True
        return kept

    def unread_inputs(self):
        """From "path[axis]" to the indices of inputs that no parameter reads and nothing else mixes with others."""
        touched = self.indices.is_mixed(np.arange(self.indices.count))
        for reader, entries in self.readers:
            read = self.read(reader, entries)
            for axis, label in enumerate(reader.contracted):
                needed = read.any(axis=tuple(i for i in range(read.ndim) if i != axis))
                touched[self.indices.find(label[needed])] = True
        first_nodes = {}
        result = {}
        for path, value in self.dims.inputs.items():
            for axis, label in enumerate(value.labels):
                if len(label) > 1:
                    first_nodes[int(label[0])] = f"{path}[{axis}]"
                    result[f"{path}[{axis}]"] = label
        for merged, parts in self.indices.merged:
            names = [first_nodes.get(int(part[0])) for part in parts if len(part) > 1]
            if names and None not in names:
                result[" x ".join(map(str, names))] = merged
        unread = {name: np.flatnonzero(~touched[self.indices.find(label)]) for name, label in result.items()}
        return {name: tuple(found.tolist()) for name, found in unread.items() if len(found)}
