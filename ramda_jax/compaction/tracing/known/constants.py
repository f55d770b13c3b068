"""Finds the indices of values that do not depend on the inputs of the model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_jax.compaction.tracing.jaxprs import scan_counts
from ramda_jax.compaction.tracing.known.zeros import REDUCTIONS, Masks, Zeros
from ramda_jax.compaction.tracing.program import Value, Visit
from ramda_jax.compaction.tracing.recipes import nonzero
from ramda_jax.compaction.tracing.rules.elementwise import RULES as BY_ENTRIES

if TYPE_CHECKING:
    from ramda_jax.compaction.tracing.trace import Dims

#: Primitives that move entries without a change, so that the masks of their inputs give those of their outputs.
_MOVE = ("broadcast_in_dim", "transpose", "squeeze", "reshape", "concatenate", "slice", "rev")
_WINDOWS = ("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min")


class Constants(Zeros):
    """For each axis of each value of a trace, a mask of the indices whose entries are the same for all inputs.

    These entries may differ from each other, for example after a position embedding is added. Values that are not known
    to be constant count as not constant, and so do values that a loop carries.

    Args:
        dims: the trace.
        zeros: the zeros of the same trace with the same variables. Zeros are constant too.
        leaves: the variables by path.
    """

    def __init__(self, dims: "Dims", zeros: Zeros, leaves: Mapping[str, Any]) -> None:
        self._masks = {}
        self._zeros, self._leaves, self._cache = zeros, leaves, {}
        for visit in dims.walk.visits:
            self._visit(visit)

    def of(self, value: Value) -> Masks:
        """The masks of a value."""
        if value.number in self._masks:
            return self._masks[value.number]
        is_known = value.recipe is not None or value.literal is not None
        return [np.full(size, is_known) for size in value.shape or (1,)]

    def _visit(self, visit):
        if all(value.recipe is not None for value in visit.outputs):
            return
        found = list(self._outputs(visit))
        if not visit.inputs:  # such as `arange`
            found = [[np.ones(size, bool) for size in value.shape or (1,)] for value in visit.outputs]
        for number, value in enumerate(visit.outputs):
            masks = self._zeros.of(value)
            if number < len(found):
                masks = [own | other for own, other in zip(found[number], masks, strict=True)]
            self.set(value, masks)

    def _outputs(self, visit: Visit) -> Sequence[Masks]:
        name, params = visit.equation.primitive.name, visit.equation.params
        shape = visit.outputs[0].shape if visit.outputs else ()
        if name == "scan" and len(visit.outputs) != len(visit.equation.outvars):
            constants, carry = scan_counts(params)
            unknown = [[np.zeros(size, bool) for size in value.shape or (1,)] for value in visit.outputs[:carry]]
            steps = visit.inputs[constants + carry :]
            return [*unknown, *(self.of(value)[1:] or [np.zeros(1, bool)] for value in steps)]
        if name in BY_ENTRIES and len(visit.outputs) == 1:
            along = [self._along(value, shape) for value in visit.inputs]
            return [[np.logical_and.reduce(masks) for masks in zip(*along, strict=True)]]
        if name in _MOVE or name in ("dot_general", "conv_general_dilated"):
            return [getattr(self, f"_{name}")(visit)]
        if name in REDUCTIONS:
            kept = [mask for axis, mask in enumerate(self.of(visit.inputs[0])) if axis not in params["axes"]]
            return [kept or [np.full(1, self._is_all_zero(visit.inputs[0]))]]
        if name in _WINDOWS and len(visit.outputs) == 1:
            sizes = zip(params["window_dimensions"], shape, visit.inputs[0].shape, strict=True)
            masks = zip(sizes, self.of(visit.inputs[0]), strict=True)
            return [[m if window == 1 and n == before else np.zeros(n, bool) for (window, n, before), m in masks]]
        return []

    def _dot_general(self, visit):
        summed, batch = visit.equation.params["dimension_numbers"]
        shape = visit.outputs[0].shape or (1,)
        for side in (0, 1):
            kernel, value = visit.inputs[side], visit.inputs[1 - side]
            if kernel.recipe is None or value.recipe is not None:
                continue
            depends = self._depends(kernel, summed[side], [self.of(value)[axis] for axis in summed[1 - side]])
            axes = [[a for a in range(len(v.shape)) if a not in (*summed[i], *batch[i])] for i, v in _numbered(visit)]
            # The result has the axes of the batch, then those of the left factor, then those of the right factor.
            first = len(batch[0]) + (len(axes[0]) if side else 0)
            masks = [np.zeros(size, bool) for size in shape]
            for place, axis in enumerate(axes[side]):
                masks[first + place] = _nowhere(depends, axis)
            return masks
        return [np.zeros(size, bool) for size in shape]

    def _conv_general_dilated(self, visit):
        value, kernel = visit.inputs
        params, shape = visit.equation.params, visit.outputs[0].shape
        numbers = params["dimension_numbers"]
        masks = [np.zeros(size, bool) for size in shape]
        if params["feature_group_count"] == 1 and kernel.recipe is not None and params["batch_group_count"] == 1:
            depends = self._depends(kernel, [numbers.rhs_spec[1]], [self.of(value)[numbers.lhs_spec[1]]])
            masks[numbers.out_spec[1]] = _nowhere(depends, numbers.rhs_spec[0])
        return masks

    def _depends(self, kernel, axes, constant):
        """A mask of the kernel's nonzero entries that are multiplied by entries of the other factor that may vary."""
        found = nonzero(kernel.recipe, self._leaves, 0.0, self._cache)
        for axis, mask in zip(axes, constant, strict=True):
            found = found & ~mask.reshape([-1 if i == axis else 1 for i in range(found.ndim)])
        return found


def _numbered(visit):
    return list(enumerate(visit.inputs))


def _nowhere(entries, axis):
    return ~np.asarray(entries.any(axis=tuple(i for i in range(entries.ndim) if i != axis)))
