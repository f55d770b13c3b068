"""Widths: indices that occur on the same axes."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from ramda_jax.compaction.tracing.labels.nodes import Nodes
from ramda_jax.compaction.tracing.labels.union_find import ALWAYS
from ramda_jax.compaction.tracing.program import Value
from ramda_jax.compaction.tracing.units.sums import read_axes
from ramda_jax.compaction.tracing.walk import Walk
from ramda_jax.tables import text_table


@dataclasses.dataclass(eq=False)
class Member:
    """An axis of a leaf whose indices belong to a width.

    Attributes:
        path: the leaf.
        axis: its axis.
        index: int array `[shape[axis]]`: for each index of the axis the index of the width that it belongs to, or -1.
            For example, row `(h, w, c)` of a flattened axis belongs to index c of the channels' width.
    """

    path: str
    axis: int
    index: np.ndarray

    def __str__(self) -> str:
        return f"{self.path}[{self.axis}]"


@dataclasses.dataclass(eq=False)
class Width:
    """A width: indices that occur on the same axes, each of which can be deleted from all of them alone.

    Attributes:
        name: such as `"d3"`.
        nodes: int array `[size]`, its indices as nodes of the trace.
        members: the axes that have its indices.
        readers: the members that are summed over. Index i can be deleted if all readers are zero there.
        reason: why it is frozen, or "" if it is not.
    """

    name: str
    nodes: np.ndarray
    members: tuple[Member, ...]
    readers: tuple[Member, ...]
    reason: str

    @property
    def size(self) -> int:
        """The number of indices."""
        return len(self.nodes)


def maker_of(width: Width, leaves: Mapping[str, Value]) -> Member:
    """The axis of a leaf that makes a width: a kernel's and not a bias's, and not one that reads it."""
    made = [member for member in width.members if member not in width.readers] or width.members
    return max(made, key=lambda member: len(leaves[member.path].shape))


def few(members: Sequence[object], limit: int = 4) -> str:
    """Names the first axes of a list and the number of the others, for a table."""
    shown = " ".join(map(str, members[:limit]))
    return shown if len(members) <= limit else f"{shown} and {len(members) - limit} more"


#: How the reason begins for an axis that is frozen from the start, or because of what it is.
_NEVER = ("the model's input", "the model's output", "a leaf that", "the axis of a scan", "slides over it")


class _Frozen(Protocol):
    """A width of a trace or of a plan."""

    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str: ...


_W = TypeVar("_W", bound=_Frozen)


def without_never_free(widths: Iterable[_W]) -> tuple[list[_W], list[str]]:
    """The widths that are free or that something in the model has frozen; and a line for each kind of the others."""
    shown: list[_W] = []
    names: dict[str, list[str]] = {}
    for width in widths:
        kind = next((reason for reason in _NEVER if reason in width.reason), None)
        if kind is None:
            shown.append(width)
        else:
            reason = f"a convolution {kind}" if kind == "slides over it" else width.reason
            names.setdefault(reason, []).append(width.name)
    return shown, [f"never free, {reason}: {few(own)}" for reason, own in names.items()]


def widths_table(widths: Sequence[Width]) -> list[str]:
    """The lines of a table: the free widths, then those that something has frozen, and a line for each other kind."""
    rows = [("width", "size", "members", "readers", "frozen because of")]
    shown, lines = without_never_free(widths)
    for width in sorted(shown, key=lambda width: bool(width.reason)):
        members = [member for member in width.members if member not in width.readers]
        rows.append((width.name, str(width.size), few(members), few(width.readers), width.reason))
    return [*text_table(rows), *lines]


def find_widths(walk: Walk, nodes: Nodes, leaves: Mapping[str, Value]) -> tuple[Width, ...]:
    """The widths of a walk: a tuple of `Width`."""
    reasons = walk.indices.reasons
    axes = [
        (path, axis, *nodes.of(label))
        for path, value in leaves.items()
        for axis, label in enumerate(value.labels)
        if len(label) > 1
    ]
    groups = group_nodes([found for *_, found in axes], reasons, nodes.count)
    groups = _apart(groups, [(positions, found) for *_, positions, found in axes], nodes.count)
    width_of, place = np.full(nodes.count, -1), np.full(nodes.count, -1)
    for number, group in enumerate(groups):
        width_of[group], place[group] = number, np.arange(len(group))
    members = [[] for _ in groups]
    for path, axis, positions, found in axes:
        for number, member in _members(path, axis, leaves[path].shape[axis], positions, width_of[found], place[found]):
            members[number].append(member)
    readers = [set() for _ in groups]
    for reader in walk.readers:
        read = np.concatenate([nodes.of(label)[1] for label in reader.contracted])
        for number in set(width_of[read].tolist()) - {-1}:
            readers[number].update(_read_members(reader, leaves, members[number]))
    return tuple(
        Width(
            name=f"d{number}",
            nodes=group,
            members=tuple(members[number]),
            readers=tuple(member for member in members[number] if member in readers[number]),
            reason=reasons(group[:1])[0],
        )
        for number, group in enumerate(groups)
    )


def group_nodes(axes: Sequence[np.ndarray], reasons: Callable[[np.ndarray], list[str]], count: int) -> list[np.ndarray]:
    """Groups the nodes that occur on the same axes and are frozen for the same reason.

    Args:
        axes: for each axis an int array of the nodes on it.
        reasons: a function from nodes to the reason for which each is frozen.
        count: the number of nodes.

    Returns:
        A list of arrays of nodes in order. The groups that occur on the first axis come first.
    """
    group = np.zeros(count, np.int64)
    first = np.zeros(count, np.int64)
    last = 0
    for number, nodes in enumerate(map(np.unique, axes)):
        first[nodes[group[nodes] == 0]] = number
        # Each axis splits every group in two: the nodes that are on it, and the nodes that are not.
        found, part = np.unique(group[nodes], return_inverse=True)
        group[nodes] = last + 1 + part
        last += len(found)
    present = np.flatnonzero(group)
    present = present[present != ALWAYS]
    groups = {}
    for node, key in zip(present.tolist(), zip(group[present].tolist(), reasons(present), strict=True), strict=True):
        groups.setdefault(key, []).append(node)
    # Order the groups by their first axis, and then by their first node.
    return [np.array(nodes) for nodes in sorted(groups.values(), key=lambda nodes: first[nodes[0]])]


def _apart(groups, axes, count):
    """Splits groups in which an index of an axis consists of several nodes, such as attention's heads and the sizes of
    their values on the axis of a fused kernel. Nodes that share an index with the same other nodes belong together.
    """
    group_of = np.full(count, -1)
    for number, group in enumerate(groups):
        group_of[group] = number
    meets = {}
    for positions, found in axes:
        order = np.argsort(positions, kind="stable")
        positions, found = positions[order], found[order]
        shift = 1
        while (same := positions[shift:] == positions[:-shift]).any():
            ones, others = found[:-shift][same], found[shift:][same]
            pairs = np.stack([ones, others], 1)[(group_of[ones] == group_of[others]) & (ones != others)]
            for one, other in np.unique(pairs, axis=0).tolist():
                meets.setdefault(one, set()).add(other)
                meets.setdefault(other, set()).add(one)
            shift += 1
    result = []
    for group in groups:
        parts = {}
        for node in group.tolist():
            parts.setdefault(frozenset(meets.get(node, ())), []).append(node)
        result += map(np.array, parts.values())
    return result


def _members(path, axis, size, positions, widths, places):
    """Yields the number of each width that has indices on an axis, and the `Member`."""
    for number in np.unique(widths[widths >= 0]).tolist():
        index = np.full(size, -1)
        mine = widths == number
        index[positions[mine]] = places[mine]
        yield number, Member(path, axis, index)


def _read_members(reader, leaves, members):
    """The members of a width that a contraction sums over."""
    read = {axis for side in range(len(reader.sides)) for axis in read_axes(reader, side, leaves)}
    return [member for member in members if (member.path, member.axis) in read]
