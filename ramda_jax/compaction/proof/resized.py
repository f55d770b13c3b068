"""Inputs and outputs that shrink with a model, such as the cache of a decoder."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.planning.plan import Plan
from ramda_jax.compaction.proof.structure import Masks
from ramda_jax.compaction.tracing.function import named_values
from ramda_jax.compaction.tracing.trace import Dims


class Resized:
    """The inputs and outputs of a model, cut by a plan."""

    def __init__(self, dims: Dims, plan: Plan) -> None:
        masks = Masks(dims, plan)
        self._inputs = {path: [masks(label) for label in value.labels] for path, value in dims.inputs.items()}
        self._outputs = [[masks(label) for label in value.labels] for value in dims.outputs]

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of the small model: those of the whole model, cut where they shrink. Shapes stay shapes."""
        leaves = [_cut(leaf, self._inputs.get(path, [])) for path, leaf in named_values(args)]
        return jax.tree.structure(args).unflatten(leaves)

    def outputs(self, outputs: Sequence[Any]) -> list[Any]:
        """The outputs of the small model, cut from those of the whole model."""
        return [_cut(output, masks) for output, masks in zip(outputs, self._outputs, strict=True)]


def _cut(leaf, masks):
    for axis, mask in enumerate(masks):
        if mask.all():
            continue
        if isinstance(leaf, jax.ShapeDtypeStruct):
            shape = [int(mask.sum()) if i == axis else size for i, size in enumerate(leaf.shape)]
            leaf = jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)
        else:
            leaf = jnp.take(leaf, np.flatnonzero(mask), axis)
    return leaf
