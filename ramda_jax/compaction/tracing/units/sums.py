"""The axes along which leaves are read, and the contractions that read them."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ramda_jax.compaction.tracing.labels.nodes import Nodes
from ramda_jax.compaction.tracing.program import Reader, Value
from ramda_jax.compaction.tracing.recipes import Leaf
from ramda_jax.compaction.tracing.walk import Walk


def read_axes(reader: Reader, side: int, leaves: Mapping[str, Value]) -> list[tuple[str, int]]:
    """The axes of leaves that a contraction may sum over in one of its factors: a list of (path, axis).

    A leaf that is itself the factor is read along the axes that are summed over. A factor that is computed from leaves,
    such as a kernel that was cast or transposed, has their labels on the axes that did not change. If such an axis of a
    leaf is summed over, the leaf is read along it. Otherwise it may be read along any axis that is not among the
    factor's other axes.
    """
    recipe, axes, others = reader.sides[side]
    if isinstance(recipe, Leaf):
        return [(recipe.path, axis) for axis in axes]
    own = reader.own[side] if reader.own else []
    result = []
    for path in sorted(recipe.paths()):
        labels = leaves[path].labels
        longer = [axis for axis, label in enumerate(labels) if len(label) > 1]
        kept = [axis for axis in longer if _has_part_of(own, labels[axis])]
        unknown = [axis for axis in longer if not _has_part_of(others.values(), labels[axis])]
        result += [(path, axis) for axis in kept or unknown]
    return result


def _has_part_of(labels, of_leaf):
    """Whether any of `labels` has nodes of an axis of a leaf. The nodes of such an axis are consecutive numbers."""
    first, last = of_leaf[0], of_leaf[-1]
    return any(bool(np.any((label >= first) & (label <= last))) for label in labels)


@dataclasses.dataclass(frozen=True)
class Factor:
    """The leaves of a contraction's factor.

    Attributes:
        axes: (path, axis) of the leaves along which the factor is read; none for constants.
        nodes: for each of these an int array: the nodes on the axis that are summed over.
    """

    axes: tuple[tuple[str, int], ...]
    nodes: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Sum:
    """A contraction with values that depend on parameters alone.

    Attributes:
        nodes: int array of all nodes that are summed over.
        factors: the factors that depend on parameters alone, one or both. A node is not read where all leaves of either
            factor are zero.
    """

    nodes: np.ndarray
    factors: tuple[Factor, ...]

    def unread(self, zero: Mapping[tuple[str, int], np.ndarray], count: int) -> np.ndarray:
        """Which of `nodes` are not read, a boolean for each.

        Args:
            zero: a dict from (path, axis) to booleans for the `count` nodes: whether the leaf is zero at all their
                indices.
        """
        result = np.zeros(len(self.nodes), bool)
        for factor in self.factors:
            on_some, is_zero = np.zeros(count, bool), np.ones(count, bool)
            for key, nodes in zip(factor.axes, factor.nodes, strict=True):
                on_some[nodes] = True
                is_zero[nodes] &= zero[key][nodes] if key in zero else False
            result |= (on_some & is_zero)[self.nodes]
        return result


def sums(walk: Walk, nodes: Nodes, leaves: Mapping[str, Value]) -> list[Sum]:
    """All contractions with values that depend on parameters alone, as a list of `Sum`."""
    on_axis = {
        (path, axis): np.unique(nodes.of(label)[1])
        for path, value in leaves.items()
        for axis, label in enumerate(value.labels)
    }
    result = []
    for reader in walk.readers:
        contracted = np.unique(np.concatenate([nodes.of(label)[1] for label in reader.contracted]))
        factors = []
        for side in range(len(reader.sides)):
            shared = {
                key: np.intersect1d(on_axis[key], contracted, assume_unique=True)
                for key in read_axes(reader, side, leaves)
            }
            shared = {key: found for key, found in shared.items() if len(found)}
            factors.append(Factor(tuple(shared), tuple(shared.values())))
        result.append(Sum(contracted, tuple(factors)))
    return result
