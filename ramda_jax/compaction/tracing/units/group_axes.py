"""One axis for the groups of each leaf, so that what is zero can go."""

from typing import TYPE_CHECKING

import numpy as np

from ramda_jax.structure.alone import is_selected_alone

if TYPE_CHECKING:
    from ramda_jax.compaction.tracing.trace import Dims

_NOWHERE = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def group_axis_of(dims: "Dims") -> dict[str, int]:
    """From the paths of leaves to the one axis along which their groups are to lie, so that what is zero can go.

    It is the axis by which the leaf is read, and the channels' for the kernels of convolutions in which every output
    reads inputs of its own. Left out are tables, what is never read, and whatever reads only what cannot go: because it
    is frozen, or because something that is left out reads it as well.
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
    # If both factors are made of parameters, such as latents and their projection, the one that is a kernel.
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
