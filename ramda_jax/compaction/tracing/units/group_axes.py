"""Chooses the axis of each leaf's groups, so that zero groups can be removed."""

from typing import TYPE_CHECKING

import numpy as np

from ramda_jax.structure.alone import is_selected_alone

if TYPE_CHECKING:
    from ramda_jax.compaction.tracing.trace import Dims

_NOWHERE = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def group_axis_of(dims: "Dims") -> dict[str, int]:
    """A dict from the paths of leaves to the axis along which their groups should be, so that zero groups can be
    removed.

    It is the axis along which the leaf reads. For the kernels of convolutions in which every output reads its own
    inputs, it is the channels' axis. Three kinds of leaves are left out: tables, leaves that read nothing, and leaves
    that only read units that cannot be removed, because these are frozen or because a leaf that is left out reads them
    too.
    """
    units = dims.units
    candidates = {path: list(axes) for path, axes in units.read_axes().items() if path not in units.tables}
    alone = {
        path
        for unit_sum in units.sums
        for number, factor in enumerate(unit_sum.factors)
        if not any(other.axes for place, other in enumerate(unit_sum.factors) if place != number)
        for path, _ in factor.axes
    }
    # If both factors depend on parameters alone, such as latents and their projection, take the kernel.
    candidates = {
        path: axes
        for path, axes in candidates.items()
        if path in alone or path in units.channels or is_selected_alone(path, len(dims.leaves[path].shape))
    }
    while True:
        chosen = {path: axes[0] for path, axes in candidates.items() if axes}
        removable = units.removable({path: (axis,) for path, axis in chosen.items()})
        useless = [
            path for path, axis in chosen.items() if not removable[units.on_axis.get((path, axis), _NOWHERE)[1]].any()
        ]
        if not useless:
            return {path: chosen[path] for path in dims.leaves if path in chosen}
        for path in useless:
            candidates[path].pop(0)
