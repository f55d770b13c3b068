"""Sums that are multiplied by zeros, such as a batch norm's scale: the kernel entries that make them are not read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ramda_jax.compaction.folding.moved import CASTS, MOVES, entries_of, moved_leaf
from ramda_jax.compaction.folding.sums import Summed
from ramda_jax.compaction.tracing.program import Visit
from ramda_jax.compaction.tracing.recipes import nonzero
from ramda_jax.compaction.tracing.trace import Dims

#: Operations on single entries with finite results for all finite inputs. With the kernel at zero they compute other
#: numbers, which are multiplied by zero.
_FINITE = """
    abs add add_any asinh atan clamp cos erf erfc exp exp2 expm1 logistic max min mul neg select_n sign sin square sub
    tanh
""".split()


class Gains:
    """Finds the factors by which the sums of a trace are multiplied.

    Args:
        dims: the trace.
        leaves: the variables by path.
        uses: the number of uses of each leaf.
    """

    def __init__(self, dims: Dims, leaves: Mapping[str, Any], uses: Mapping[str, int]) -> None:
        self._leaves, self._uses = leaves, uses
        self._cache: dict[Any, Any] = {}
        self._outputs = {value.number for value in dims.outputs}
        self._readers: dict[int, list[Visit]] = {}
        for visit in dims.walk.visits:
            for number in {value.number for value in visit.inputs}:
                self._readers.setdefault(number, []).append(visit)

    def unread(self, sums: Sequence[Summed]) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
        """The kernels without the entries whose outputs are only multiplied by zeros.

        Returns:
            (the changed leaves by path, the unread indices by the axis of the kernel that makes them).
        """
        changed, indices = {}, {}
        for summed in sums:
            path = moved_leaf(summed.kernel.recipe)
            if path is None or self._uses[path] > 1:
                continue
            places = entries_of(summed.kernel.recipe, np.size(self._leaves[path])).reshape(summed.kernel.shape)
            if len(np.unique(places)) < places.size:
                continue
            own = _axes_of_kernel(summed)
            mask = self._multiplied_by_zero(summed.visit.outputs[0])
            others = tuple(axis for axis in range(mask.ndim) if axis not in own.values())
            mask = np.transpose(mask.all(axis=others), np.argsort(np.argsort(list(own.values()))))
            shape = [size if axis in own else 1 for axis, size in enumerate(summed.kernel.shape)]
            rows = np.broadcast_to(mask.reshape(shape), places.shape)
            leaf = np.array(self._leaves[path])
            if not rows.any() or not leaf.reshape(-1)[places[rows]].any():
                continue
            leaf.reshape(-1)[places[rows]] = 0
            changed[path] = leaf
            zero = np.zeros(leaf.size, bool)
            zero[places[rows]] = True
            for axis in range(leaf.ndim):
                found = zero.reshape(leaf.shape).all(axis=tuple(i for i in range(leaf.ndim) if i != axis))
                if found.any():
                    indices[f"{path}[{axis}]"] = tuple(np.flatnonzero(found).tolist())
        return changed, indices

    def _multiplied_by_zero(self, value):
        """A mask of the entries of a value that are only multiplied by zeros."""
        start, size = value, int(np.prod(value.shape))
        places: Any = np.arange(size).reshape(value.shape)
        while value.number not in self._outputs and len(self._readers.get(value.number, ())) == 1:
            [visit] = self._readers[value.number]
            name, out = visit.equation.primitive.name, visit.outputs[0] if visit.outputs else value
            others = [given for given in visit.inputs if given.number != value.number]
            if len(others) != len(visit.inputs) - 1 or len(visit.outputs) != 1:
                break
            if name == "mul" and others[0].recipe is not None and not others[0].recipe.scans:
                read = np.zeros(size, bool)
                gain = nonzero(others[0].recipe, self._leaves, 0.0, self._cache)
                read[np.broadcast_to(places, out.shape)[np.broadcast_to(gain, out.shape)]] = True
                if not read.all():
                    return ~read.reshape(start.shape)
            if name in MOVES and not others:
                places = np.asarray(visit.equation.primitive.bind(places, **visit.equation.params))
            elif name in _FINITE or (name in CASTS and not others) or (name == "div" and others[0] is visit.inputs[1]):
                places = np.broadcast_to(places, out.shape)
            else:
                break
            value = out
        return np.zeros(start.shape, bool)


def _axes_of_kernel(summed):
    """Maps the axes of a kernel that are not summed over to the axes of the sum."""
    params = summed.visit.equation.params
    if summed.visit.equation.primitive.name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        return {numbers.rhs_spec[0]: numbers.out_spec[1]}
    summed_axes, batch = params["dimension_numbers"]
    result = {axis: place for place, axis in enumerate(batch[summed.side])}
    free = [
        [axis for axis in range(len(value.shape)) if axis not in (*summed_axes[side], *batch[side])]
        for side, value in enumerate(summed.visit.inputs)
    ]
    first = len(batch[0]) + (len(free[0]) if summed.side else 0)
    return dict(sorted((result | {axis: first + place for place, axis in enumerate(free[summed.side])}).items()))
