"""Takes an architecture through compaction as a user would: compact, compare, save, and rebuild elsewhere."""

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.zoo.entry import Entry
from ramda_jax.compaction import CompactionError, compact, compact_model
from ramda_jax.structure.paths import named_leaves

LEAST, COMPACTS, REFUSES, WRONG = "compacts to the least", "compacts", "refuses with the right reason", "wrong"
OUTCOMES = (LEAST, COMPACTS, REFUSES, WRONG)
#: Reasons for widths that an expert would not cut either.
_NEVER = ("the model's input", "the model's output", "slides over it", "the axis of a scan", "a leaf that")
#: (size, seed) of the batch for compaction, of a fresh batch of its size, and of a batch of another size.
EXAMPLE, FRESH, OTHER = (2, 0), (2, 1), (3, 2)


@dataclasses.dataclass
class Row:
    """The results for an architecture.

    Attributes:
        entries, left, least: the numbers of entries of all leaves: before, after, and if an expert had cut.
        error: the largest difference of outputs in this process, on fresh inputs and with another batch size.
        gradient_error: the same for the gradients of the remaining parameters.
        elsewhere: the same for the outputs in another process.
        seconds: the time of `compact_model`.
        reason: why something stays that an expert would have cut.
        wrong: what is wrong; "" if nothing is.
    """

    family: str
    name: str
    library: str
    entries: int = 0
    left: int = 0
    least: int = 0
    error: float = 0.0
    gradient_error: float = 0.0
    elsewhere: float | None = None
    seconds: float = 0.0
    reason: str = ""
    wrong: str = ""

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`."""
        if self.wrong:
            return WRONG
        if self.left == self.least:
            return LEAST
        return COMPACTS if self.left < self.entries else REFUSES


def check_entry(family: str, name: str, entry: Entry, folder: Path) -> Row:
    """Compacts an architecture with dead units, compares, and saves it into a folder with what it has to return."""
    row = Row(family, name, entry.library, least=entry.least())
    model, variables = entry.dead()
    row.entries = row.left = sum(leaf.size for _, leaf in named_leaves(entry.fresh()[1]))
    start = time.perf_counter()
    try:
        small = compact_model(
            model,
            *entry.batch(*EXAMPLE),
            variables=variables,
            call=entry.call,
            resize=entry.resize,
            fit=entry.fit,
        )
    except CompactionError as error:
        row.reason = str(error)
        row.wrong = _unexpected(row, entry)
        return row
    finally:
        row.seconds = time.perf_counter() - start
    row.entries, row.left = small.plan.num_params
    if row.left > row.least:
        row.reason = "; ".join([*small.refused.values(), *_frozen(small)])
    row.wrong = _unexpected(row, entry)
    small.save(folder)
    wholes = {}
    for kind, batch in {"fresh": FRESH, "other": OTHER}.items():
        inputs = entry.batch(*batch)
        whole, gradients = _run(entry, small.whole[0], small.whole[1], inputs)
        little, little_gradients = _run(entry, small.apply, small.variables, small.small_args(*inputs))
        row.error = float(np.maximum(row.error, difference(whole, little)))
        error = difference(_floats(compact(small.plan, gradients)), _floats(little_gradients))
        row.gradient_error = float(np.maximum(row.gradient_error, error))
        # A cache among the inputs must have the small size there too.
        for what, tree in {"in": small.small_args(*inputs), "out": whole}.items():
            wholes |= {f"{kind} {what} {i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
        if not any(np.ptp(leaf, axis=0).any() for leaf in jax.tree.leaves(whole)):
            row.wrong = row.wrong or "outputs are the same for all inputs, and so show nothing"
    np.savez(folder / "whole.npz", **wholes)
    if not row.error <= entry.tolerance:
        row.wrong = row.wrong or f"outputs differ by {row.error:.1e}"
    if not row.gradient_error <= 10 * entry.tolerance:
        row.wrong = row.wrong or f"gradients differ by {row.gradient_error:.1e}"
    return row


def _unexpected(row, entry):
    if row.left < row.least:
        return f"{row.left} entries are left, fewer than the least by hand"
    if row.left > row.least and not (entry.stays and re.search(entry.stays, row.reason)):
        return f"not to the least, for another reason than the one expected ({entry.stays!r})"
    return ""


def _frozen(small):
    """The reasons for frozen widths that an expert might have cut."""
    reasons = dict.fromkeys(width.reason for width in small.dims.widths)
    return [reason for reason in reasons if reason and not any(never in reason for never in _NEVER)]


def _run(entry, apply, variables, inputs):
    """The outputs, and a tree like the variables with their gradients; leaves without a gradient are unchanged."""
    leaves, structure = jax.tree.flatten(variables)
    floats = _floats(variables)

    def with_floats(floats):
        left = iter(floats)
        return structure.unflatten(next(left) if _is_float(leaf) else leaf for leaf in leaves)

    def loss(floats, inputs):
        outputs = apply(with_floats(floats), *inputs)
        outputs = outputs if entry.compared is None else entry.compared(outputs)
        total = 0.0
        for leaf in jax.tree.leaves(outputs):
            total += (leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)).sum()
        return total, outputs

    (_, outputs), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(floats, inputs)
    return jax.device_get(outputs), with_floats(gradients)


def _floats(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if _is_float(leaf)]


def _is_float(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def difference(one: Any, other: Any) -> float:
    """The largest difference of two trees of arrays, relative to the largest entry of the first's leaves.

    It is NaN if an entry is NaN.
    """
    worst, largest = 0.0, 1e-30
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if a.shape != b.shape:
            return float("inf")
        a, b = np.asarray(a), np.asarray(b)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return float("nan")
        if a.size:
            worst = max(worst, float(np.abs(a.astype(complex) - b).max()))
            largest = max(largest, float(np.abs(a).max()))
    return worst / largest
