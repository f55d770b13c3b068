"""Ids: which single indices, told apart by the axes they occur on, are deleted together."""

import dataclasses

import numpy as np

from ramda_jax.compaction.tracing.indices import ALWAYS
from ramda_jax.compaction.tracing.recipes import Leaf


@dataclasses.dataclass(eq=False)
class Member:
    """An axis of a leaf whose indices belong to an id.

    Attributes:
        path: the leaf.
        axis: its axis.
        index: int array `[shape[axis]]`, which index of the id each of the axis's own is, or -1. Row `(h, w, c)` of a
            flattened axis, for one, is the index c of the channels' id.
    """

    path: str
    axis: int
    index: np.ndarray

    def __str__(self):
        return f"{self.path}[{self.axis}]"


@dataclasses.dataclass(eq=False)
class Dim:
    """An id: indices that occur on the same axes, each of which can be deleted from all of them alone.

    Attributes:
        name: such as `"d3"`.
        nodes: int array `[size]`, its indices as nodes of the trace.
        members: the axes that carry it.
        readers: those of them that are summed over; index i can go where all its readers are zero there.
        reason: why it is frozen, "" where it is not.
    """

    name: str
    nodes: np.ndarray
    members: tuple[Member, ...]
    readers: tuple[Member, ...]
    reason: str

    @property
    def size(self):
        """How many indices it has."""
        return len(self.nodes)


def few(members, limit=4):
    """The first axes of a list, and how many more there are, for a table."""
    shown = " ".join(map(str, members[:limit]))
    return shown if len(members) <= limit else f"{shown} and {len(members) - limit} more"


def axis_nodes(walk, label, products):
    """Pairs (positions, nodes) of an axis, products as the nodes they are made of: two int arrays of one length."""
    roots = walk.indices.find(label)
    is_product = np.isin(roots, list(products)) if products else np.zeros(len(roots), bool)
    positions, nodes = [np.flatnonzero(~is_product)], [roots[~is_product]]
    for position in np.flatnonzero(is_product).tolist():
        factors = sorted(products[int(roots[position])])
        positions.append(np.full(len(factors), position))
        nodes.append(np.array(factors, np.int64))
    return np.concatenate(positions), np.concatenate(nodes)


def axis_mask(walk, label, kept, products):
    """Which indices of an axis are in `kept`, a boolean for each node: those all of whose nodes are."""
    roots = walk.indices.find(label)
    mask = kept[roots]
    if not products:
        return mask
    for product in set(roots.tolist()) & products.keys():
        mask[roots == product] = all(kept[node] for node in products[product])
    return mask


def find_ids(walk, leaves):
    """The ids of a walk: a tuple of `Dim`."""
    indices = walk.indices
    products = indices.products()
    axes = [
        (path, axis, *axis_nodes(walk, label, products))
        for path, value in leaves.items()
        for axis, label in enumerate(value.labels)
        if len(label) > 1
    ]
    # Nodes belong to one id where they occur on the same axes: told by the sum of a random number for each axis.
    rng = np.random.default_rng(0)
    signature = np.zeros(indices.count, np.uint64)
    order = np.full(indices.count, -1)
    for number, (_, _, _, nodes) in enumerate(axes):
        unique = np.unique(nodes)
        signature[unique] += rng.integers(2**63, dtype=np.uint64)
        order[unique] = np.where(order[unique] < 0, number, order[unique])
    present = np.flatnonzero(order >= 0)
    present = present[present != ALWAYS]
    reasons = np.array(indices.reasons(present), object)
    keys = {}
    for node, key in zip(present.tolist(), zip(order[present], signature[present], reasons, strict=True), strict=True):
        keys.setdefault(key, []).append(node)
    groups = [np.array(nodes) for _, nodes in sorted(keys.items(), key=lambda item: item[0][0])]
    id_of, place = np.full(indices.count, -1), np.full(indices.count, -1)
    for number, nodes in enumerate(groups):
        id_of[nodes], place[nodes] = number, np.arange(len(nodes))
    members = [[] for _ in groups]
    for path, axis, positions, nodes in axes:
        for number in np.unique(id_of[nodes]):
            if number < 0:
                continue
            index = np.full(leaves[path].shape[axis], -1)
            mine = id_of[nodes] == number
            index[positions[mine]] = place[nodes[mine]]
            members[number].append(Member(path, axis, index))
    readers = [set() for _ in groups]
    for reader in walk.readers:
        read = np.concatenate([axis_nodes(walk, label, products)[1] for label in reader.contracted])
        for number in set(id_of[read].tolist()) - {-1}:
            for operand, axes_read, _ in reader.sides:
                for member in members[number]:
                    exact = not isinstance(operand, Leaf) or member.axis in axes_read
                    if member.path in operand.paths() and exact:
                        readers[number].add(member)
    return tuple(
        Dim(
            name=f"d{number}",
            nodes=nodes,
            members=tuple(members[number]),
            readers=tuple(member for member in members[number] if member in readers[number]),
            reason=indices.reasons(nodes[:1])[0],
        )
        for number, nodes in enumerate(groups)
    )
