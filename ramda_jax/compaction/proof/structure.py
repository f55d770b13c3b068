"""Two traces side by side: whether one is the other with what a plan deletes deleted."""

import dataclasses

import numpy as np

from ramda_jax.compaction.planning.plan import Plan
from ramda_jax.compaction.proof.equation_params import difference
from ramda_jax.compaction.tracing.trace import Dims
from ramda_jax.compaction.tracing.widths import axis_mask, axis_nodes


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """The first equation at which two traces part.

    Attributes:
        reason: what is different.
        visit: the number of the equation in the whole trace, None where it is not about one.
    """

    reason: str
    visit: int | None = None


class Masks:
    """Which indices of every axis of a trace a plan keeps, from what it keeps of the leaves.

    Attributes:
        kept: a boolean for each node.
    """

    def __init__(self, dims: Dims, plan: Plan):
        self._walk = dims.walk
        self._products = dims.walk.indices.products()
        self.kept = np.ones(dims.walk.indices.count, bool)
        kept_somewhere = np.zeros(dims.walk.indices.count, bool)
        for path, value in dims.leaves.items():
            for label, kept in zip(value.labels, plan.leaves[path].kept, strict=True):
                positions, nodes = axis_nodes(self._walk, label, self._products)
                mask = np.ones(len(label), bool)
                if kept is not None:
                    mask[:] = False
                    mask[list(kept)] = True
                self.kept[nodes[~mask[positions]]] = False
                kept_somewhere[nodes[mask[positions]]] = True
        # A product is deleted with any of its factors; a factor that some kept index has is itself not deleted.
        self.kept |= kept_somewhere

    def __call__(self, label):
        """A boolean array for an axis."""
        return axis_mask(self._walk, label, self.kept, self._products)

    def shape(self, value):
        """The shape of a value once the indices are deleted."""
        return tuple(int(self(label).sum()) for label in value.labels)


def compare_traces(dims: Dims, plan: Plan, small: Dims) -> Mismatch | None:
    """Whether `small` is the trace `dims` with what `plan` deletes deleted; None if it is."""
    masks = Masks(dims, plan)
    for path, value in dims.leaves.items():
        found = small.leaves[path].shape if path in small.leaves else None
        if found != masks.shape(value):
            return Mismatch(f"the leaf '{path}' must have shape {masks.shape(value)}, got {found}")
    partner = {value.number: small.leaves[path].number for path, value in dims.leaves.items()}
    partner |= {value.number: small.inputs[path].number for path, value in dims.inputs.items()}

    def is_partner(one, other):
        if one.literal is None or other.literal is None:
            return one.literal is None and other.literal is None and partner.get(one.number) == other.number
        if one.literal is other.literal:
            return True
        # Through the dtype first: a random key is no NumPy array.
        return one.dtype == other.dtype and np.array_equal(np.asarray(one.literal), np.asarray(other.literal))

    for number, (visit, other) in enumerate(zip(dims.walk.visits, small.walk.visits, strict=False)):
        name = visit.equation.primitive.name
        if name != other.equation.primitive.name:
            return Mismatch(f"where the model computes {visit.name}, the small one computes {other.name}", number)
        if len(visit.inputs) != len(other.inputs):
            return Mismatch(f"{visit.name} has another number of inputs in the small model", number)
        for one, theirs in zip(visit.inputs, other.inputs, strict=True):
            if one.literal is not None and theirs.literal is not None and not is_partner(one, theirs):
                values = f"{np.asarray(one.literal)!s:.40} to {np.asarray(theirs.literal)!s:.40}"
                return Mismatch(f"the constant in {visit.name} depends on a size: it went from {values}", number)
            if not is_partner(one, theirs):
                return Mismatch(f"{visit.name} is fed with something else in the small model", number)
        reason = difference(visit, other, masks)
        if reason:
            return Mismatch(f"{visit.name} {reason}", number)
        for one, theirs in zip(visit.outputs, other.outputs, strict=True):
            if theirs.shape != masks.shape(one) or theirs.dtype != one.dtype:
                wanted = f"{one.dtype}{list(masks.shape(one))}"
                return Mismatch(f"{visit.name} must return {wanted}, got {theirs.dtype}{list(theirs.shape)}", number)
            partner[one.number] = theirs.number
    if len(dims.walk.visits) != len(small.walk.visits):
        return Mismatch(f"the small model has {len(small.walk.visits)} equations, not {len(dims.walk.visits)}")
    pairs = zip(dims.outputs, small.outputs, strict=True) if len(dims.outputs) == len(small.outputs) else None
    if pairs is None or not all(is_partner(one, other) for one, other in pairs):
        return Mismatch("the small model returns something else")
    return None
