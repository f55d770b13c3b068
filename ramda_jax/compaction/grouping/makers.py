"""Groups of makers, for indices that no leaf alone reads: sizes of values, widths of queries and keys."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.grouping.parts import Part
from ramda_jax.compaction.planning.plan import LeafPlan, Plan
from ramda_jax.compaction.proof.verify import check_structure
from ramda_jax.compaction.tracing.known.zeros import Zeros, zero_terms
from ramda_jax.compaction.tracing.trace import Dims
from ramda_jax.compaction.tracing.widths import Width
from ramda_jax.structure.paths import named_leaves


def maker_parts(
    dims: Dims,
    own: Mapping[str, str],
    parts: Mapping[str, tuple[Part, ...]],
    can_go: Callable[[Sequence[Width]], bool],
) -> dict[str, tuple[Part, ...]]:
    """The rows of all makers of index i, if zero rows make values zero that depend on the inputs.

    A query's and a key's entry d are multiplied with each other. The product is zero if the columns d of their kernels
    and biases are zero. The same holds for a value's entry. The output projection reads it, but its groups are heads.

    Args:
        dims: the trace.
        own: a dict from traced paths to those of the parameters.
        parts: the existing parts; their leaves have groups along these axes already.
        can_go: a function of widths: whether the model works without an index of each.
    """
    taken: dict[str, tuple[int, np.ndarray]] = {}
    for part in (part for found in parts.values() for part in found):
        rows = taken.get(part.path, (part.axis, np.zeros(0, np.int64)))[1]
        taken[part.path] = part.axis, np.union1d(rows, part.rows)
    found: dict[str, tuple[Part, ...]] = {}
    kinds: dict[tuple[str, ...], list[Width]] = {}
    for width in dims.widths:
        if width.reason or width.name in parts or width.size == 1:
            continue
        makers = _makers(width, own, taken)
        if makers and all(_vanishes(dims, own, width.nodes[i], i, makers) for i in (0, width.size - 1)):
            found[width.name] = makers
            kind = tuple(re.sub(r"\d+", "#", str(part)) for part in makers)
            kinds.setdefault(kind, []).append(width)
            for part in makers:
                rows = taken.get(part.path, (part.axis, np.zeros(0, np.int64)))[1]
                taken[part.path] = part.axis, np.union1d(rows, part.rows)
    if can_go([width for widths in kinds.values() for width in widths]):
        return found
    # Keep the layers of a kind together, or none of them.
    kept = {width.name for widths in kinds.values() if can_go(widths) for width in widths}
    return {name: makers for name, makers in found.items() if name in kept}


def _makers(width, own, taken):
    result = []
    for member in width.members:
        path = own.get(member.path)
        axis, rows = taken.get(path, (member.axis, np.zeros(0, np.int64)))
        places = np.flatnonzero(member.index >= 0)
        counts = np.bincount(member.index[places], minlength=width.size)
        if path is None or axis != member.axis or np.isin(places, rows).any() or counts.min() != counts.max():
            continue
        order = np.argsort(member.index, kind="stable")[int((member.index < 0).sum()) :]
        result.append(Part(path, member.axis, order.reshape(width.size, -1)))
    return tuple(result)


def _vanishes(dims, own, node, index, makers):
    """Whether nothing reads an index if its makers are zero."""
    traced = {path: name for name, path in own.items()}
    masks, zero = {}, {}
    for part in makers:
        name = traced[part.path]
        value = dims.leaves[name]
        masks.setdefault(name, [np.zeros(size, bool) for size in value.shape])[part.axis][part.rows[index]] = True
        zero[name, part.axis] = np.zeros(dims.nodes.count, bool)
        zero[name, part.axis][node] = True
    zeros = Zeros(dims, masks)
    for reader, unit_sum in zip(dims.walk.readers, dims.units.sums, strict=True):
        is_here = unit_sum.nodes == node
        if not is_here.any() or unit_sum.unread(zero, dims.nodes.count)[is_here].all():
            continue
        terms = zero_terms(reader, zeros)
        for place, label in enumerate(reader.contracted):
            positions, nodes = dims.nodes.of(label)
            if not np.take(terms, positions[nodes == node], place).all():
                return False
    return True


def can_do_without(adapter: Adapter, dims: Dims, args: tuple[Any, ...]) -> Callable[[Sequence[Width]], bool]:
    """A function that says whether a model works without the first index of each of some widths.

    It does not if the code counts the indices, as in a scale of `1 / sqrt(x.shape[-1])`.
    """

    def can_go(widths):
        kept = np.ones(dims.nodes.count, bool)
        for width in widths:
            kept[width.nodes[0]] = False
        leaves = {}
        for path, value in dims.leaves.items():
            indices = [np.flatnonzero(dims.nodes.mask(label, kept)) for label in value.labels]
            leaves[path] = LeafPlan(value.shape, tuple(tuple(found.tolist()) for found in indices))
        plan = Plan(leaves, (), {})
        small = jax.tree.structure(adapter.variables).unflatten(
            jax.ShapeDtypeStruct(leaves[path].small_shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf
            for path, leaf in named_leaves(adapter.variables)
        )
        try:
            _, apply = adapter.rebuild(small, {})
        except Exception:  # of any kind, from code that does not expect these sizes
            return False
        return not check_structure(apply, small, args, dims, plan)

    return can_go
