"""The savings: several measures before and after."""

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ramda_jax.compaction.after.cost import Cost, cost
from ramda_jax.compaction.proof.structure import Masks
from ramda_jax.compaction.tracing.static_args import hold_static
from ramda_jax.metrics.sparsity import weighted_group_sparsity
from ramda_jax.structure.assignment import assign
from ramda_jax.structure.packing import packing_of
from ramda_jax.structure.paths import named_leaves
from ramda_jax.tables import text_table

if TYPE_CHECKING:
    from ramda_jax.compaction.model import Compaction


@dataclasses.dataclass(frozen=True)
class Report:
    """The costs before and after compaction. Printing it gives a table.

    Attributes:
        before, after: the costs.
        weighted_group_sparsity: that of the whole parameters, in [0, 1]; None without a regularizer. It is *not* the
            share of parameters that are removed. A dead channel's columns, biases and statistics are removed too, and a
            zero group of a channel that another layer reads removes nothing.
        layers: for each leaf that shrank (path, shape before, shape after).
        widths: for each width that could shrink (an axis of it, the number of living indices, the number of all
            indices).
        groups: for each leaf with zero groups (path, zero groups, groups, units removed, units) of those that can ever
            be removed: 49 zero rows behind a flatten may be one channel. Empty without a regularizer.
        error: the largest relative difference of outputs in the proof.
    """

    before: Cost
    after: Cost
    weighted_group_sparsity: float | None
    layers: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    widths: tuple[tuple[str, int, int], ...]
    error: float
    groups: tuple[tuple[str, int, int, int, int], ...] = ()

    @property
    def removed_params(self) -> float:
        """The share of parameters that were removed."""
        return 1 - self.after.params / self.before.params

    @property
    def removed_flops(self) -> float:
        """The share of FLOPs that were removed."""
        return 1 - self.after.flops / self.before.flops

    @property
    def speedup(self) -> float:
        """How many times as fast a call is; below 1 it is slower."""
        return self.before.seconds / self.after.seconds

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The table as a list of (name, before, after, note)."""
        a, b = self.before, self.after
        rows = [
            ("parameters", f"{a.params:,}", f"{b.params:,}", f"{self.removed_params:.1%} removed"),
            ("bytes", f"{a.bytes:,}", f"{b.bytes:,}", f"{1 - b.bytes / a.bytes:.1%} removed"),
            ("FLOPs of a call", f"{a.flops:,.0f}", f"{b.flops:,.0f}", f"{self.removed_flops:.1%} removed"),
        ]
        if not math.isnan(a.seconds):
            note = f"{self.speedup:.1f} times as fast"
            rows.append(("ms of a call", f"{a.seconds * 1e3:.3g}", f"{b.seconds * 1e3:.3g}", note))
        if self.weighted_group_sparsity is not None:
            rows.append(("weighted group sparsity", f"{self.weighted_group_sparsity:.1%}", "", "of the whole model"))
        rows.append(("largest difference of outputs", "", f"{self.error:.1g}", "relative"))
        return rows

    def __str__(self) -> str:
        rows = [("", "before", "after", ""), *self.rows()]
        rows += [(f"  {path}", _times(before), _times(after), "") for path, before, after in self.layers]
        rows += [
            ("alive", "", "", ""),
            *((f"  {name}", str(size), str(alive), "") for name, alive, size in self.widths),
        ]
        if self.groups:
            rows.append(("zero groups, units removed", "", "", ""))
        for path, zero, groups, removed, units in self.groups:
            rows.append((f"  {path}", f"{zero:,} of {groups:,}", f"{removed:,} of {units:,}", ""))
        return "\n".join(text_table(rows, right=(1, 2)))


def _times(shape):
    return "x".join(map(str, shape))


def _widest(members, plan):
    """The first axis of a width on a leaf with the most axes, so that of a kernel and not of a bias."""
    return max(members, key=lambda member: len(plan.leaves[member.rsplit("[", 1)[0]].shape))


def compaction_report(
    compaction: "Compaction", *args: Any, regularizer: Any = None, params: Any = None, rounds: int = 20
) -> Report:
    """Parameters, bytes, FLOPs and latency before and after, and the shape of each leaf.

    Args:
        compaction: the result of `compact_model`.
        *args: a batch; costs are those of one call with it.
        regularizer: the specification that the optimizer was given, for the weighted group sparsity.
        params: the whole parameters, if they are only a part of the compacted variables.
        rounds: the number of calls of each model that are timed, alternately; 0 for none.

    Returns:
        A `Report`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ramda_jax.compaction import compact_model
        >>> def mlp(params, x):
        ...     return jax.nn.relu(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 8)), "out": jnp.ones((8, 3)).at[2:].set(0)}
        >>> small = compact_model(mlp, jnp.ones((4, 5)), variables=params)
        >>> report = compaction_report(small, jnp.ones((4, 5)), rounds=0)
        >>> report.before.params, report.after.params
        (64, 16)
    """
    pair = [compaction.whole, (compaction.apply, compaction.variables)]
    inputs = [args, compaction.small_args(*args)]
    costs = [cost(apply, variables, *own) for (apply, variables), own in zip(pair, inputs, strict=True)]
    if rounds:
        functions = [jax.jit(hold_static(apply, args)[0]) for apply, _ in pair]
        arrays = [hold_static(pair[0][0], own)[1] for own in inputs]
        seconds = np.zeros((rounds + 1, 2))
        for turn in range(rounds + 1):
            for i, (_, variables) in enumerate(pair):
                start = time.perf_counter()
                jax.block_until_ready(functions[i](variables, *arrays[i]))
                seconds[turn, i] = time.perf_counter() - start
        # The first round compiles.
        medians = np.median(seconds[1:], axis=0)
        costs = [dataclasses.replace(untimed, seconds=float(s)) for untimed, s in zip(costs, medians, strict=True)]
    sparsity = None
    groups: tuple[tuple[str, int, int, int, int], ...] = ()
    if regularizer is not None:
        params = compaction.whole[1] if params is None else params
        sparsity = float(weighted_group_sparsity(regularizer, params))
        removed = ~Masks(compaction.dims, compaction.plan).kept
        packing: Any = packing_of(regularizer)
        leaves = assign(regularizer, params)
        counts = compaction.dims.count_units(leaves, removed) if packing is None else packing.count_units(leaves)
        groups = tuple((path, c.zero, c.removable, c.ready, c.units) for path, c in counts.items() if c.zero)
    small = dict(named_leaves(compaction.variables))
    layers = tuple(
        (path, tuple(leaf.shape), tuple(small[path].shape))
        for path, leaf in named_leaves(compaction.whole[1])
        if leaf.shape != small[path].shape
    )
    widths = tuple(
        (_widest(width.members, compaction.plan), len(width.kept) - len(width.padding), width.size)
        for width in compaction.plan.widths
        if not width.reason
    )
    return Report(costs[0], costs[1], sparsity, layers, widths, compaction.proof.error, groups)
