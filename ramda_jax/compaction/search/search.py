"""The search for what can go together: where a small model is not the planned one, what made it so stays whole."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.planning.make_plan import plan_compaction
from ramda_jax.compaction.planning.plan import Plan
from ramda_jax.compaction.planning.slicing import compact
from ramda_jax.compaction.proof.structure import Masks, Mismatch
from ramda_jax.compaction.proof.verify import check_structure
from ramda_jax.compaction.tracing.trace import Dims


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A plan carried out.

    Attributes:
        plan: what was planned, with the widths in `refused` whole.
        variables, model, apply: the small ones; `model` and `apply` are None where none could be built.
        mismatch: why the small model is not the planned one, None where it is.
        refused: from widths, by name, to the reason why they stay.
    """

    plan: Plan
    variables: Any
    model: Any
    apply: Any
    mismatch: Mismatch | None
    refused: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Search:
    """Attempts on one model, until one succeeds."""

    adapter: Adapter
    dims: Dims
    args: tuple[Any, ...]
    round_to: int = 1
    threshold: float = 0.0
    permute: bool = True

    def attempt(self, refused: Mapping[str, str]) -> Attempt:
        """Plans without the widths in `refused`, cuts, rebuilds, and compares the two traces."""
        plan = plan_compaction(self.dims, self.adapter.variables, self.round_to, self.threshold, refused, self.permute)
        small = compact(plan, self.adapter.variables)
        model, apply = None, None
        try:
            model, apply = self.adapter.rebuild(small)
        except Exception as error:  # whatever a model's code raises for sizes it does not expect; no rule runs here
            mismatch = Mismatch(f"the small model cannot be built: {type(error).__name__}: {error}".split("\n")[0])
        else:
            mismatch = check_structure(apply, small, self.args, self.dims, plan)
        return Attempt(plan, small, model, apply, mismatch, dict(refused))

    def run(self, strict: bool = False) -> Attempt:
        """The first attempt that succeeds, or the last one where no culprit can be found; with `strict`, the first."""
        attempt = self.attempt({})
        while attempt.mismatch is not None and not strict:
            culprits = self._nearest_culprits(attempt) or self._culprits_by_trial(attempt)
            if not culprits:
                return attempt
            attempt = self.attempt(attempt.refused | dict.fromkeys(culprits, attempt.mismatch.reason))
        return self._release(attempt)

    def _release(self, attempt):
        """Lets go again what was suspected first and turns out to have been innocent."""
        for name in list(attempt.refused)[:-1]:
            without = self.attempt({other: why for other, why in attempt.refused.items() if other != name})
            if without.mismatch is None:
                attempt = without
        return attempt

    def _nearest_culprits(self, attempt):
        """The widths of what was deleted nearest to the equation at which the traces part, and before it."""
        walk = self.dims.walk
        if attempt.mismatch.visit is None:
            return []
        masks = Masks(self.dims, attempt.plan)
        producers = {value.number: visit for visit in walk.visits for value in visit.outputs}
        visit = walk.visits[attempt.mismatch.visit]
        values, seen = [*visit.inputs, *visit.outputs], set()
        while values:
            nodes = []
            for value in values:
                for label in value.labels:
                    if not masks(label).all():
                        nodes.append(self.dims.nodes.of(label)[1])
            if nodes:
                deleted = np.unique(np.concatenate(nodes))
                return [
                    width.name
                    for width, planned in zip(self.dims.widths, attempt.plan.widths, strict=True)
                    if len(planned.kept) < planned.size and np.isin(width.nodes, deleted).any()
                ]
            seen |= {value.number for value in values}
            before = [producers[value.number] for value in values if value.number in producers]
            values = [value for visit in before for value in visit.inputs if value.number not in seen]
        return []

    def _culprits_by_trial(self, attempt):
        """The widths that cannot even shrink alone, for a small model that cannot be traced and so shows no place."""
        shrinking = [width.name for width in attempt.plan.widths if len(width.kept) < width.size]
        result = []
        for name in shrinking:
            others = {other: "not on trial" for other in shrinking if other != name}
            alone = self.attempt(others | attempt.refused)
            if not alone.plan.changes_nothing and alone.mismatch is not None:
                result.append(name)
        return result
