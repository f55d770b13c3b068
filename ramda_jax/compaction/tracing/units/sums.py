"""Along which of their axes leaves are read, and by which contractions."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ramda_jax.compaction.tracing.labels.nodes import Nodes
from ramda_jax.compaction.tracing.program import Reader, Value
from ramda_jax.compaction.tracing.recipes import Leaf
from ramda_jax.compaction.tracing.walk import Walk


def read_axes(reader: Reader, side: int, leaves: Mapping[str, Value]) -> list[tuple[str, int]]:
    """The axes of leaves that a contraction may sum over in one of its factors: a list of (path, axis).

    A leaf as it is is read along the axes summed over. What was made of leaves, such as a kernel that was cast or
    transposed, has kept their labels on the axes that came through as they were; of a leaf with such an axis among
    those summed over it is this one, and else any that is not among the others.
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
    """Whether one of some labels has nodes of an axis of a leaf, which are as they were made: one after the other."""
    first, last = of_leaf[0], of_leaf[-1]
    return any(bool(np.any((label >= first) & (label <= last))) for label in labels)


@dataclasses.dataclass(frozen=True)
class Factor:
    """The leaves of one factor of a contraction.

    Attributes:
        axes: (path, axis) of the leaves that it is read along; none for constants.
        nodes: for each of these an int array, the nodes on the axis that are summed over.
    """

    axes: tuple[tuple[str, int], ...]
    nodes: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Sum:
    """A contraction with what comes from parameters.

    Attributes:
        nodes: int array, all that is summed over.
        factors: those made of parameters, one or both. A node is not read where all leaves of either are zero.
    """

    nodes: np.ndarray
    factors: tuple[Factor, ...]

    def unread(self, zero: Mapping[tuple[str, int], np.ndarray], count: int) -> np.ndarray:
        """Which of `nodes` are not read, a boolean for each.

        Args:
            zero: from (path, axis) to booleans for the `count` nodes, whether the leaf is zero at all indices of them.
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
    """All contractions with what comes from parameters, as a list of `Sum`."""
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
