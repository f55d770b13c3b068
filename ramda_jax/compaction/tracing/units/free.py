"""The free indices of a trace, and the groups of leaves that read them."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ramda_jax.compaction.tracing.recipes import Leaf
from ramda_jax.compaction.tracing.units.sums import Sum, sums
from ramda_jax.regularizers.groups import Grouped

if TYPE_CHECKING:
    from ramda_jax.compaction.tracing.trace import Dims


@dataclasses.dataclass(frozen=True)
class UnitCount:
    """The numbers of groups of a leaf, and of the units that are removed with them.

    Attributes:
        removable: how many of the leaf's groups can ever be removed.
        units: how many units these groups belong to. For example, 49 rows behind a flatten may be one channel.
        zero: how many of the removable groups are zero; 0 for a leaf without values.
        ready: the number of units whose readers are all zero; 0 likewise.
    """

    removable: int
    units: int
    zero: int = 0
    ready: int = 0


class Units:
    """The free indices of a trace as groups see them.

    Attributes:
        sums: all contractions with values that depend on parameters alone.
        free: a boolean for each node of the trace: whether it can ever be deleted.
        on_axis: a dict from (path, axis) to (positions, nodes), two int arrays of one length: the free nodes on that
            axis.
        channels: a dict from the paths of the kernels of grouped convolutions to the axis of their outputs. These
            channels are deleted with the inputs that they are computed from.
        tables: the paths of leaves that are indexed by data.
    """

    def __init__(self, dims: "Dims") -> None:
        self.sums: list[Sum] = sums(dims.walk, dims.nodes, dims.leaves)
        self._read = {key for unit_sum in self.sums for factor in unit_sum.factors for key in factor.axes}
        self._count = dims.nodes.count
        self.free: np.ndarray = np.zeros(self._count, bool)
        for width in dims.widths:
            self.free[width.nodes] = not width.reason
        self.on_axis: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
        for path, value in dims.leaves.items():
            for axis, label in enumerate(value.labels):
                positions, nodes = dims.nodes.of(label)
                is_free = self.free[nodes]
                if is_free.any():
                    self.on_axis[path, axis] = positions[is_free], nodes[is_free]
        self.channels: dict[str, int] = dict(_channels(dims))
        self.tables: set[str] = set(_tables(dims))

    def is_read(self, path: str, axis: int) -> bool:
        """Whether a leaf is read along an axis, or has its channels on it."""
        return (path, axis) in self._read or self.channels.get(path) == axis

    def read_axes(self) -> dict[str, list[int]]:
        """A dict from the paths of leaves to the axes along which they read free indices, in the order of the widths.

        The first axis is that of the width whose members come first. For attention's output projection these are the
        heads.
        """
        first: dict[str, dict[int, int]] = {}
        for unit_sum in self.sums:
            for factor in unit_sum.factors:
                for (path, axis), nodes in zip(factor.axes, factor.nodes, strict=True):
                    nodes = nodes[self.free[nodes]]
                    if len(nodes):
                        axes = first.setdefault(path, {})
                        axes[axis] = min(int(nodes[0]), axes.get(axis, self._count))
        found = {path: sorted(axes, key=axes.__getitem__) for path, axes in first.items()}
        for path, axis in self.channels.items():
            if (path, axis) in self.on_axis and axis not in found.get(path, ()):
                found.setdefault(path, []).append(axis)
        return found

    def removable(self, axes: Mapping[str, Sequence[int]]) -> np.ndarray:
        """Which nodes can be deleted if the groups of leaves are along `axes`, as a boolean for each node.

        A node that another leaf reads, without groups along that axis, cannot.
        """
        zero = {key: np.ones(self._count, bool) for key in self.on_axis if key[1] in axes.get(key[0], ())}
        return self.unread(zero)

    def unread(self, zero: Mapping[tuple[str, int], np.ndarray]) -> np.ndarray:
        """Which free nodes are read by zeros only, as a boolean for each node; see `Sum.unread`."""
        result = self.free.copy()
        for unit_sum in self.sums:
            result[unit_sum.nodes] &= unit_sum.unread(zero, self._count)
        return result

    def zero(self, path: str, leaf: Any, axes: Iterable[int]) -> dict[tuple[str, int], np.ndarray]:
        """The argument of `unread` for the axes `axes` of a leaf with values."""
        nonzero = np.asarray(jax.device_get(leaf)) != 0
        result = {}
        for axis in axes:
            if (path, axis) in self.on_axis:
                positions, nodes = self.on_axis[path, axis]
                alive = nonzero.any(axis=tuple(other for other in range(nonzero.ndim) if other != axis))
                result[path, axis] = np.ones(self._count, bool)
                result[path, axis][nodes[alive[positions]]] = False
        return result

    def count(
        self, leaves: Sequence[tuple[str, str, Any, Any]], deleted: np.ndarray | None = None
    ) -> dict[str, UnitCount]:
        """`UnitCount` by name, for the leaves that have groups.

        Args:
            leaves: a tuple (path in the trace, name, leaf or its shape, resolved regularizer or None) for each leaf.
            deleted: a boolean for each node: whether it is ready. None means the nodes that are read by zeros only.
        """
        grouped = [
            (path, name, leaf, regularizer)
            for path, name, leaf, regularizer in leaves
            if isinstance(regularizer, Grouped)
        ]
        group_axes: dict[str, Any] = {path: regularizer.groups for path, _, _, regularizer in grouped}
        removable = self.removable(group_axes)
        has_values = all(not isinstance(leaf, jax.ShapeDtypeStruct) for _, _, leaf, _ in leaves)
        if deleted is None and has_values:
            zero = {}
            for path, _, leaf, _ in leaves:
                zero |= self.zero(path, leaf, [axis for axis in range(np.ndim(leaf)) if (path, axis) in self._read])
            deleted = self.unread(zero)
        result = {}
        for path, name, leaf, regularizer in grouped:
            shape = regularizer.radii_shape(tuple(leaf.shape))
            mask, units = np.zeros(shape, bool), []
            for axis in group_axes[path]:
                if self.is_read(path, axis) and (path, axis) in self.on_axis:
                    positions, nodes = self.on_axis[path, axis]
                    here = np.zeros(shape[axis], bool)
                    here[positions[removable[nodes]]] = True
                    mask |= here.reshape([-1 if other == axis else 1 for other in range(len(shape))])
                    units.append(nodes[removable[nodes]])
            found = np.unique(np.concatenate(units)) if units else np.zeros(0, np.int64)
            zero = int((mask & ~np.asarray(jax.device_get(regularizer.support(leaf)))).sum()) if has_values else 0
            ready = 0 if deleted is None else int(deleted[found].sum())
            result[name] = UnitCount(int(mask.sum()), len(found), zero, ready)
        return result


def _channels(dims):
    for visit in dims.walk.visits:
        if visit.equation.primitive.name != "conv_general_dilated" or visit.equation.params["feature_group_count"] == 1:
            continue
        kernel = visit.inputs[1]
        out = kernel.labels[visit.equation.params["dimension_numbers"].rhs_spec[0]]
        for path in kernel.recipe.paths() if kernel.recipe is not None else ():
            for axis, label in enumerate(dims.leaves[path].labels):
                if len(label) > 1 and np.any((out >= label[0]) & (out <= label[-1])):
                    yield path, axis


def _tables(dims):
    for visit in dims.walk.visits:
        if visit.equation.primitive.name not in ("gather", "dynamic_slice"):
            continue
        table, *indices = visit.inputs
        if any(index.recipe is None for index in indices) and isinstance(table.recipe, Leaf):
            yield table.recipe.path
