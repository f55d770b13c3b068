"""The indices of values that are zero for every input, because the parameters that make them are zero."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.tracing.known.loops import Loops, Masks
from ramda_jax.compaction.tracing.program import Reader, Value, Visit

if TYPE_CHECKING:
    from ramda_jax.compaction.tracing.trace import Dims

#: Zero where their first input is zero.
_KEEP = """
    abs asin asinh atan atanh cbrt ceil convert_element_type copy device_put div erf erf_inv expm1 floor imag log1p name
    neg optimization_barrier pvary real reduce_precision reshard round sharding_constraint sign sin sinh sqrt square
    stop_gradient tan tanh
""".split()
#: Zero where all their inputs are zero, and zero where one input is zero.
_ALL, _ANY = ("add", "add_any", "sub", "max", "min"), ("mul", "and")
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")


class Zeros:
    """For each axis of each value of a trace, a mask of the indices that are exactly zero for all inputs.

    Values that are not known to be zero count as not zero, such as the outputs of primitives that are not listed here.
    A value that a loop carries is zero where it is zero at the start and each step keeps it zero.

    Args:
        dims: the trace.
        leaves: maps the paths of leaves to their masks, an array of booleans for each axis.
    """

    def __init__(self, dims: "Dims", leaves: Mapping[str, Masks]) -> None:
        self._masks: dict[int, Masks] = {}
        for path, value in dims.leaves.items():
            if path in leaves and any(mask.any() for mask in leaves[path]):
                self._masks[value.number] = list(leaves[path])
        if self._masks:
            Loops(self, dims.walk.visits).run()

    def of(self, value: Value) -> Masks:
        """The masks of a value."""
        if value.number in self._masks:
            return self._masks[value.number]
        if value.literal is not None and np.size(value.literal) == 1:
            try:
                is_zero = bool(np.all(np.asarray(value.literal) == 0))
            except TypeError:  # a random key
                is_zero = False
            return [np.full(size, is_zero) for size in value.shape or (1,)]
        return [np.zeros(size, bool) for size in value.shape or (1,)]

    def _is_all_zero(self, value):
        return any(mask.size > 0 and mask.all() for mask in self.of(value))

    def _visit(self, visit):
        if all(value.number not in self._masks and value.literal is None for value in visit.inputs):
            return
        for value, masks in zip(visit.outputs, self._outputs(visit), strict=False):
            self.set(value, masks)

    def visit(self, visit: Visit) -> None:
        """Finds the masks of the outputs of an equation."""
        self._visit(visit)

    def set(self, value: Value, masks: Masks) -> None:
        """Sets the masks of a value, and replaces earlier ones."""
        self._masks.pop(value.number, None)
        if any(mask.all() for mask in masks if mask.size):
            masks = [np.ones(len(mask), bool) for mask in masks]
        if any(mask.any() for mask in masks):
            self._masks[value.number] = masks

    def _outputs(self, visit: Visit) -> Sequence[Masks]:
        name, params = visit.equation.primitive.name, visit.equation.params
        shape = visit.outputs[0].shape if visit.outputs else ()
        if name in _KEEP:
            return [self._along(value, out.shape) for value, out in zip(visit.inputs, visit.outputs, strict=False)]
        if name == "integer_pow":
            return [self._along(visit.inputs[0], shape)] if params["y"] > 0 else []
        if name in _ALL or name == "select_n":
            cases = visit.inputs[1:] if name == "select_n" else visit.inputs
            return [_combined(np.logical_and, [self._along(value, shape) for value in cases])]
        if name in _ANY:
            return [_combined(np.logical_or, [self._along(value, shape) for value in visit.inputs])]
        rule = getattr(self, f"_{name}", None)
        if rule is not None:
            return [rule(visit)]
        if name in REDUCTIONS:
            [value] = visit.inputs
            kept = [mask for axis, mask in enumerate(self.of(value)) if axis not in params["axes"]]
            return [kept if not self._is_all_zero(value) else _same(shape, True)]
        return []

    def _along(self, value, shape):
        """The masks of an operand of an entrywise operation, for the result's shape."""
        if self._is_all_zero(value):
            return _same(shape, True)
        if len(value.shape) != len(shape):
            return _same(shape, False)
        return [
            mask if len(mask) == size else np.full(size, mask[0])
            for mask, size in zip(self.of(value), shape or (1,), strict=True)
        ]

    def _dot_general(self, visit):
        lhs, rhs = visit.inputs
        (summed_left, summed_right), (batch_left, batch_right) = visit.equation.params["dimension_numbers"]
        left, right = self.of(lhs), self.of(rhs)
        shape = visit.outputs[0].shape
        pairs = zip(summed_left, summed_right, strict=True)
        if self._is_all_zero(lhs) or self._is_all_zero(rhs) or any((left[i] | right[j]).all() for i, j in pairs):
            return _same(shape, True)
        masks = [left[i] | right[j] for i, j in zip(batch_left, batch_right, strict=True)]
        masks += [left[axis] for axis in range(len(lhs.shape)) if axis not in (*summed_left, *batch_left)]
        masks += [right[axis] for axis in range(len(rhs.shape)) if axis not in (*summed_right, *batch_right)]
        return masks or _same(shape, False)

    def _conv_general_dilated(self, visit):
        value, kernel = visit.inputs
        numbers = visit.equation.params["dimension_numbers"]
        shape = visit.outputs[0].shape
        if self._is_all_zero(value) or self._is_all_zero(kernel):
            return _same(shape, True)
        masks = _same(shape, False)
        masks[numbers.out_spec[1]] = self.of(kernel)[numbers.rhs_spec[0]]
        return masks

    def _broadcast_in_dim(self, visit):
        value, shape = visit.inputs[0], visit.outputs[0].shape
        masks = _same(shape, self._is_all_zero(value))
        for axis, target in enumerate(visit.equation.params["broadcast_dimensions"]):
            mask = self.of(value)[axis]
            masks[target] = masks[target] | (mask if len(mask) == shape[target] else mask[0])
        return masks

    def _transpose(self, visit):
        masks = self.of(visit.inputs[0])
        return [masks[axis] for axis in visit.equation.params["permutation"]] or masks

    def _squeeze(self, visit):
        masks, dropped = self.of(visit.inputs[0]), visit.equation.params["dimensions"]
        return [mask for axis, mask in enumerate(masks) if axis not in dropped] or _same((), masks[0].all())

    def _reshape(self, visit):
        value, shape = visit.inputs[0], visit.outputs[0].shape
        if self._is_all_zero(value) or visit.equation.params.get("dimensions") is not None:
            return _same(shape, self._is_all_zero(value))
        masks = _same(shape, False)
        before, after = self.of(value), list(shape)
        for sources, targets in _runs(list(value.shape), after):
            merged = np.zeros([len(before[axis]) for axis in sources], bool)
            for place, axis in enumerate(sources):
                merged |= before[axis].reshape([-1 if i == place else 1 for i in range(len(sources))])
            split = merged.reshape([after[axis] for axis in targets])
            for place, axis in enumerate(targets):
                masks[axis] = np.array(split.all(axis=tuple(i for i in range(len(targets)) if i != place)))
        return masks

    def _concatenate(self, visit):
        dimension = visit.equation.params["dimension"]
        every = [self.of(value) for value in visit.inputs]
        joined = _combined(np.logical_and, [[m for i, m in enumerate(own) if i != dimension] for own in every])
        joined.insert(dimension, np.concatenate([own[dimension] for own in every]))
        return joined

    def _slice(self, visit):
        params = visit.equation.params
        strides = params["strides"] or [1] * len(params["start_indices"])
        cuts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        return [mask[a:b:step] for mask, (a, b, step) in zip(self.of(visit.inputs[0]), cuts, strict=True)]

    def _rev(self, visit):
        reversed_axes = visit.equation.params["dimensions"]
        return [m[::-1] if axis in reversed_axes else m for axis, m in enumerate(self.of(visit.inputs[0]))]

    def _dynamic_update_slice(self, visit):
        operand, update = visit.inputs[:2]
        pairs = zip(self.of(operand), self.of(update), strict=True)
        return [a & b if len(a) == len(b) else np.zeros(len(a), bool) for a, b in pairs]


def zero_masks(leaf: Any, threshold: float = 0.0) -> Masks:
    """The masks of an array with values: the indices without an entry above the threshold."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return _same(leaf.shape, False)
    alive = np.asarray(leaf)
    alive = ~(np.abs(alive) <= threshold) if threshold else alive != 0
    return [~np.array(alive.any(axis=tuple(i for i in range(alive.ndim) if i != axis))) for axis in range(alive.ndim)]


def zero_terms(reader: Reader, zeros: Zeros) -> np.ndarray:
    """A mask of the terms of a sum that vanish because an activation is zero, over the contracted axes."""
    result = np.zeros([len(label) for label in reader.contracted], bool)
    for value, axes in reader.activations:
        for place, axis in enumerate(axes):
            result |= zeros.of(value)[axis].reshape([-1 if i == place else 1 for i in range(result.ndim)])
    return result


def _same(shape, is_zero):
    return [np.full(size, is_zero) for size in shape or (1,)]


def _combined(function: Any, masks: Sequence[Masks]) -> Masks:
    result = list(masks[0])
    for other in masks[1:]:
        result = [function(a, b) for a, b in zip(result, other, strict=True)]
    return result


def _runs(before, after):
    """Pairs of the shortest runs of axes with the same number of entries, without axes of length 1."""
    ends = [
        dict(zip(itertools.accumulate((1, *shape), lambda a, b: a * b), range(len(shape) + 1), strict=False))
        for shape in ([n for n in before if n != 1], [n for n in after if n != 1])
    ]
    own, other = ([axis for axis, n in enumerate(shape) if n != 1] for shape in (before, after))
    if math.prod(before) == 0:
        return
    shared = sorted(ends[0].keys() & ends[1].keys())
    for start, end in itertools.pairwise(shared):
        yield own[ends[0][start] : ends[0][end]], other[ends[1][start] : ends[1][end]]
