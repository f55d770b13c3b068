"""An attempt at a small model, on shapes alone: planned, rebuilt, traced and compared with the whole model."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.sizes.remembered import Remembered, Sizes
from ramda_jax.compaction.planning.make_plan import Planner
from ramda_jax.compaction.planning.plan import Plan
from ramda_jax.compaction.proof.lines import line_of_error
from ramda_jax.compaction.proof.structure import READ_SIZE, Masks, Mismatch
from ramda_jax.compaction.proof.verify import check_structure, trace_small
from ramda_jax.compaction.search.guesses import Guess, Guesses
from ramda_jax.compaction.tracing.trace import Dims
from ramda_jax.structure.paths import named_leaves


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A plan carried out on shapes.

    Attributes:
        plan: the plan, with the widths in `refused` whole.
        refused: a mapping from the names of widths to the reasons for which they stay.
        guess: what the numbers that the model remembers are assumed to count.
        sizes: these numbers in the small model.
        empty: the names of the widths that may lose all of their indices.
        mismatches: why the small model is not the planned one; empty if it is.
    """

    plan: Plan
    refused: dict[str, str]
    guess: Guess
    sizes: Sizes
    mismatches: list[Mismatch]
    empty: frozenset[str] = frozenset()

    @property
    def shrinking(self) -> list[str]:
        """The names of the widths that become smaller."""
        return [width.name for width in self.plan.widths if len(width.kept) < width.size]


class Attempts:
    """Makes attempts on a model."""

    def __init__(
        self,
        adapter: Adapter,
        dims: Dims,
        args: tuple[Any, ...],
        round_to: int = 1,
        threshold: float = 0.0,
        permute: bool = True,
        others: Mapping[str, Adapter] | None = None,
    ) -> None:
        self.dims = dims
        self._adapter, self._args, self._others = adapter, args, others or {}
        self._planner = Planner(dims, adapter.variables, round_to, threshold, permute)
        self._places: Sequence[Remembered] | None = None
        self._producers = {value.number: visit for visit in dims.walk.visits for value in visit.outputs}
        self._consumers = {}
        for visit in dims.walk.visits:
            for value in visit.inputs:
                self._consumers.setdefault(value.number, []).append(visit)

    def guesses(self, attempt: Attempt) -> Guesses:
        """The candidates for the numbers that the model remembers, in the small model of that attempt."""
        if self._places is None:
            self._places = self._adapter.remembered(*self._args)
        return Guesses(self._places, attempt.plan)

    def dead(self) -> list[str]:
        """The names of the widths of which no index is alive."""
        return self._planner.dead()

    def __call__(
        self, refused: Mapping[str, str], guess: Guess | None = None, empty: Collection[str] = frozenset()
    ) -> Attempt:
        """Makes a plan that keeps the widths in `refused`, cuts, rebuilds, and compares the two traces.

        Dead widths in `empty` lose all of their indices.
        """
        plan = self._planner.plan(refused, empty)
        attempt = Attempt(plan, dict(refused), guess or {}, {}, [], frozenset(empty))
        sizes = self.guesses(attempt).sizes(guess) if guess else {}
        variables = self._adapter.variables
        leaves = [_small(leaf, plan.leaves[path].small_shape) for path, leaf in named_leaves(variables)]
        small = jax.tree.structure(variables).unflatten(leaves)
        try:
            _, apply = self._adapter.rebuild(small, sizes)
            others = {name: other.rebuild(small, sizes)[1] for name, other in self._others.items()}
        except Exception as error:  # of any kind, from code that does not expect these sizes; no rule runs here
            reason = f"the small model cannot be built: {type(error).__name__}: {error}".split("\n")[0]
            mismatches = [Mismatch(reason, line=line_of_error(error), remedy=READ_SIZE)]
            return dataclasses.replace(attempt, sizes=sizes, mismatches=mismatches)
        mismatches = check_structure(apply, small, self._args, self.dims, plan)
        for name, other in others.items() if not mismatches else ():
            traced = trace_small(f"{name} of the small model", other, small, self._args, self.dims, plan)
            mismatches += [traced] if isinstance(traced, Mismatch) else []
        return dataclasses.replace(attempt, sizes=sizes, mismatches=mismatches)

    def culprits(self, attempt: Attempt, mismatch: Mismatch) -> list[str]:
        """The deleted widths nearest to the equation at which the traces differ: before it, or else behind it."""
        if mismatch.visit is None:
            return []
        visit, masks = self.dims.walk.visits[mismatch.visit], Masks(self.dims, attempt.plan)
        for step in (self._before, self._behind):
            values, seen = [*visit.inputs, *visit.outputs], set()
            while values:
                nodes = [
                    self.dims.nodes.of(label)[1] for value in values for label in value.labels if not masks(label).all()
                ]
                if nodes:
                    return self._widths_of(np.unique(np.concatenate(nodes)), attempt.plan)
                seen |= {value.number for value in values}
                values = [value for value in step(values) if value.number not in seen]
        return []

    def _before(self, values):
        visits = [self._producers[value.number] for value in values if value.number in self._producers]
        return [value for visit in visits for value in visit.inputs]

    def _behind(self, values):
        """For a number that a program computes from others, such as the root of a width."""
        visits = [visit for value in values for visit in self._consumers.get(value.number, ())]
        return [value for visit in visits for value in (*visit.inputs, *visit.outputs)]

    def _widths_of(self, nodes, plan):
        return [
            width.name
            for width, planned in zip(self.dims.widths, plan.widths, strict=True)
            if len(planned.kept) < planned.size and np.isin(width.nodes, nodes).any()
        ]


def _small(leaf, shape):
    is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    return jax.ShapeDtypeStruct(shape, leaf.dtype) if is_array else leaf
