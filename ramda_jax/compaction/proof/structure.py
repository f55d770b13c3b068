"""Compares two traces: the small trace must be the whole trace without the indices that a plan deletes."""

import dataclasses
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.planning.plan import Plan
from ramda_jax.compaction.proof.equation_params import difference
from ramda_jax.compaction.proof.lines import line_of_equation
from ramda_jax.compaction.tracing.program import Value
from ramda_jax.compaction.tracing.trace import Dims
from ramda_jax.typing import Shape

#: What allows the indices to be deleted.
READ_SIZE = "a number in the code may be a size: read it from an array's shape there, or set it by `fit=`"
HOLD_NUMBER = "hold the number of the whole model, where it is a number that is computed with"
GIVE_ORDER = (
    "`einsum` multiplies three operands or more in an order that depends on their sizes: give it one, such as "
    "`optimize=[(0, 1), (0, 1)]`"
)

_CONSTANT = "the constant"
#: The name of the scope that `jnp.einsum` opens for three operands or more.
_LONG_EINSUM = re.compile(r"[\w.]*(,[\w.]*){2,}->")


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """An equation at which two traces differ.

    Attributes:
        reason: what differs.
        visit: the number of the equation in the whole trace; None if the reason is not about an equation.
        line: the line of the user's code that computes it, "" if unknown.
        remedy: what would allow the indices to be deleted.
    """

    reason: str
    visit: int | None = None
    line: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """The reason, the line and the remedy."""
        text = f"{self.reason} ({self.line})" if self.line else self.reason
        return f"{text}; {self.remedy}" if self.remedy else text


class Masks:
    """Which indices of every axis of a trace a plan keeps, computed from what it keeps of the leaves.

    Attributes:
        kept: a boolean for each node.
    """

    def __init__(self, dims: Dims, plan: Plan) -> None:
        self._nodes = dims.nodes
        self.kept: np.ndarray = np.ones(dims.nodes.count, bool)
        for path, value in dims.leaves.items():
            for label, kept in zip(value.labels, plan.leaves[path].kept, strict=True):
                positions, nodes = dims.nodes.of(label)
                mask = np.ones(len(label), bool)
                if kept is not None:
                    mask[:] = False
                    mask[list(kept)] = True
                self.kept[nodes[~mask[positions]]] = False
        # A product is deleted with any of its factors, and the leaves do not tell which factor it was. The plan does.
        planned = {(width.name, width.size, width.members): width.kept for width in plan.widths}
        for width in dims.widths:
            own = planned.get((width.name, width.size, tuple(map(str, width.members))), ())
            self.kept[width.nodes[list(own)]] = True

    def __call__(self, label: np.ndarray) -> np.ndarray:
        """A boolean array for an axis."""
        return self._nodes.mask(label, self.kept)

    def shape(self, value: Value) -> Shape:
        """The shape of a value after the indices are deleted."""
        return tuple(int(self(label).sum()) for label in value.labels)


class Partners:
    """The value of the small trace that corresponds to each value of the whole trace."""

    def __init__(self, dims: Dims, small: Dims, masks: Masks) -> None:
        self._masks = masks
        self._partner = {value.number: small.leaves[path].number for path, value in dims.leaves.items()}
        self._partner |= {value.number: small.inputs[path].number for path, value in dims.inputs.items()}

    def add(self, value: Value, theirs: Value) -> None:
        """Makes `theirs` the partner of `value`."""
        self._partner[value.number] = theirs.number

    def __call__(self, value: Value, theirs: Value) -> bool:
        """Whether `theirs` is the partner of `value`, or the same constant.

        A constant array is the same if it has the entries of the whole array that are kept.
        """
        if value.literal is None or theirs.literal is None:
            is_value = value.literal is None and theirs.literal is None
            return is_value and self._partner.get(value.number) == theirs.number
        if value.literal is theirs.literal:
            return True
        if value.dtype != theirs.dtype:
            return False
        ours, others = _entries(value.literal), _entries(theirs.literal)
        kept = [np.flatnonzero(self._masks(label)) for label in value.labels]
        ours = ours[np.ix_(*kept, *map(range, ours.shape[len(kept) :]))]
        # Compare bits: a NaN is then equal to itself, and 0 differs from -0.
        return ours.shape == others.shape and ours.dtype == others.dtype and ours.tobytes() == others.tobytes()


def _entries(literal):
    """The value as a NumPy array; a random key becomes its numbers."""
    is_key = jnp.issubdtype(getattr(literal, "dtype", np.float32), jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(literal) if is_key else literal)


def find_mismatches(dims: Dims, plan: Plan, small: Dims) -> Iterator[Mismatch]:
    """Yields the places at which two traces differ. Differences that only follow from an earlier one are left out."""
    masks = Masks(dims, plan)
    for path, value in dims.leaves.items():
        found = small.leaves[path].shape if path in small.leaves else None
        if found != masks.shape(value):
            yield Mismatch(f"the leaf '{path}' must have shape {masks.shape(value)}, got {found}")
            return
    partners = Partners(dims, small, masks)
    needed = _needed(dims)
    wrong = set()
    for number, (visit, other) in enumerate(zip(dims.walk.visits, small.walk.visits, strict=False)):
        if number not in needed:
            continue
        if visit.equation.primitive.name != other.equation.primitive.name:
            reason = f"where the model computes {visit.name}, the small one computes {other.name}"
            yield Mismatch(reason, number, line_of_equation(visit.equation))
            return
        rule = dims.walk.rules.get(visit.equation.primitive.name)
        reason = _compare_equation(visit, other, partners, masks, rule)
        if reason and not any(value.number in wrong for value in visit.inputs):
            yield Mismatch(reason, number, line_of_equation(visit.equation), _remedy(reason, visit))
        for value, theirs in zip(visit.outputs, other.outputs, strict=False):
            partners.add(value, theirs)
            # After a difference, values of the right shape are still compared, and so are values computed from these.
            if theirs.shape != masks.shape(value):
                wrong.add(value.number)
    if len(dims.walk.visits) != len(small.walk.visits):
        yield Mismatch(f"the small model has {len(small.walk.visits)} equations, not {len(dims.walk.visits)}")
    pairs = zip(dims.outputs, small.outputs, strict=True) if len(dims.outputs) == len(small.outputs) else None
    if pairs is None or not all(partners(value, theirs) for value, theirs in pairs):
        yield Mismatch("the small model returns something else")


def _remedy(reason, visit):
    if reason.startswith(_CONSTANT):
        return HOLD_NUMBER
    return GIVE_ORDER if _LONG_EINSUM.search(visit.name) else READ_SIZE


def _needed(dims):
    """The numbers of the equations on which an output depends, apart from ignored inputs."""
    values, result = {value.number for value in dims.outputs}, set()
    for number, visit in reversed(list(enumerate(dims.walk.visits))):
        # The visit at the begin of a condition's branches has no outputs.
        if not visit.outputs or visit.equation.effects or any(value.number in values for value in visit.outputs):
            result.add(number)
            values |= {value.number for i, value in enumerate(visit.inputs) if i not in visit.ignored}
    return result


def _compare_equation(visit, other, partners, masks, rule):
    """The difference between an equation and the small model's equation of the same primitive; "" if there is none."""
    if len(visit.inputs) != len(other.inputs):
        return f"{visit.name} has another number of inputs in the small model"
    for number, (value, theirs) in enumerate(zip(visit.inputs, other.inputs, strict=True)):
        if (number in visit.ignored and number in other.ignored) or partners(value, theirs):
            continue
        if value.literal is not None and theirs.literal is not None:
            values = f"{_entries(value.literal)!s:.40} to {_entries(theirs.literal)!s:.40}"
            return f"{_CONSTANT} in {visit.name} depends on a size: it went from {values}"
        return f"{visit.name} is fed with something else in the small model"
    reason = difference(visit, other, masks, rule)
    if reason:
        return f"{visit.name} {reason}"
    for value, theirs in zip(visit.outputs, other.outputs, strict=True):
        if theirs.shape != masks.shape(value) or theirs.dtype != value.dtype:
            wanted = f"{value.dtype}{list(masks.shape(value))}"
            return f"{visit.name} must return {wanted}, got {theirs.dtype}{list(theirs.shape)}"
    return ""
