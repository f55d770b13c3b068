"""A table of the leaves and their regularizers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import optax

from ramda_jax.fused import check_fused, claim_leaf
from ramda_jax.methods import prox_adamw, prox_gen, prox_sgd, prox_ssi, ramda, rmda
from ramda_jax.regularizers.groups import Grouped, GroupRegularizer
from ramda_jax.regularizers.scaled import Scaled
from ramda_jax.solvers.select import choose_solver
from ramda_jax.structure.assignment import assign
from ramda_jax.structure.packing import packing_of
from ramda_jax.subproblem.checks import check_solvable
from ramda_jax.subproblem.rules.solvers import solver_rules
from ramda_jax.tables import text_table
from ramda_jax.typing import RegularizerSpec, SolverSpec, Tree
from ramda_jax.xla.tile_plans import Chip

#: The methods whose metric is a multiple of the identity.
_SCALAR = (rmda, prox_sgd)
_METHODS = (ramda, rmda, prox_sgd, prox_gen, prox_adamw, prox_ssi)


class Trace(Protocol):
    """What `describe` needs from a trace, such as `compaction.Dims`."""

    def count_units(self, leaves: Sequence[tuple[str, Any, Any]]) -> Mapping[str, Any]:
        """Counts `removable`, `units`, `zero` and `ready` by path; `leaves` are (path, leaf, regularizer or None)."""
        ...


def describe(
    regularizer: RegularizerSpec,
    params: Tree,
    method: Callable[..., optax.GradientTransformation] = ramda,
    solver: SolverSpec = None,
    trace: Trace | None = None,
    fused: Chip | None = None,
) -> str:
    """A table of the leaves: their regularizers, groups with number, size and weight, and solvers.

    Args:
        regularizer: the specification for the optimizer: a `Regularizer`, a mapping of patterns, a tree, or None.
        params: the parameters, or a tree of their structure with shapes.
        method: the optimizer's factory, such as `ramda_jax.rmda`; the default solver depends on its metric.
        solver: the solvers for the optimizer.
        trace: the result of `compaction.trace_dims` for the model.
        fused: `"tpu"` or `"gpu"`, for what the kernels of `ramda(..., fused=True)` do on such a chip.

    Returns:
        The table as text, with a line for each leaf and one for the total, and a remark for each leaf that is a single
        group, which can only be removed as a whole. With `fused` there is a line for each regularized leaf: the shape
        of a tile of its kernel, or why it has none. With a trace it also has the number of groups that can ever be
        removed, and the number of units (channels, hidden units, heads) that they belong to. If `params` have values,
        it has the number of zero groups, and of units that are read by zeros only. For the regularizer of a coupling
        the leaves are the coupling's, with a table of their parts.

    Raises:
        ValueError, TypeError: as `init` of the optimizer.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"conv": {"bias": jnp.zeros(8), "kernel": jnp.zeros((3, 3, 4, 8))}}
        >>> print(ramda_jax.describe(ramda_jax.GroupLasso(), params))
        leaf         shape         regularizer  group axes  groups  size  weight  solver
        conv/bias    (8,)          -            -                -     -       -  -
        conv/kernel  (3, 3, 4, 8)  GroupLasso   (2,)             4    72   8.485  SecularNewton
        total        296 entries   288 regularized               4
    """
    if method not in _METHODS:
        raise TypeError(
            f"`method` must be one of this library's methods, got {method!r}; use for example `ramda_jax.rmda`."
        )
    if trace is not None and not hasattr(trace, "count_units"):
        raise TypeError(
            f"`trace` must be the result of `compaction.trace_dims`, got {type(trace).__name__}; give "
            "`trace_dims(model, *inputs)`."
        )
    metric_kind = "scalar" if method in _SCALAR else "diagonal"
    check_solvable(regularizer, solver, metric_kind)
    solvers = solver_rules(solver)
    counted = ["removable", "units"] if trace is not None else []
    header = ("leaf", "shape", "regularizer", "group axes", "groups", *counted, "size", "weight", "solver")
    rows: list[tuple[str, ...]] = [header]
    entries = regularized = groups = 0
    single = []
    leaves = assign(regularizer, params)
    solvers.check_used([(path, given) for path, _, given in leaves if given is not None])
    packing: Any = packing_of(regularizer)
    counter: Any = trace if packing is None else packing  # in another order every group is a unit already
    counts = {} if counter is None else counter.count_units(leaves)
    for path, leaf, given in leaves:
        shape = tuple(leaf.shape)
        size = math.prod(shape)
        entries += size
        row = [path or "(the array)", str(shape)]
        if given is None:
            rows.append((*row, *["-"] * (6 + len(counted))))
            continue
        regularized += size
        cells = ["-"] * (4 + len(counted))
        if isinstance(given, Grouped):
            number = math.prod(given.radii_shape(shape))
            groups += number
            if number == 1 < size:
                single.append(path or "(the array)")
            weight = _weight_of(given, shape) if isinstance(given, GroupRegularizer) else "-"
            count = counts.get(path)
            removable = ["-", "-"] if count is None else [str(count.removable), str(count.units)]
            removable = removable[: len(counted)]
            cells = [str(given.groups), str(number), *removable, str(given.sizes(shape)), weight]
        solved_by = solvers.named_for(path) or choose_solver(given, metric_kind).solver
        rows.append((*row, _name_of(given), *cells, type(solved_by).__name__))
    total = [str(sum(count.removable for count in counts.values())), ""] if counted else []
    rows.append(("total", f"{entries} entries", f"{regularized} regularized", "", str(groups), *total, "", "", ""))
    # In the total row "N regularized" spills into the empty column beside it.
    right = range(4, 7 + len(counted))
    lines = text_table(rows, right=right, spill=(len(rows) - 1, 2))
    lines += [f"{path} is one single group, which goes as a whole or not at all: name its axes" for path in single]
    if packing is not None:
        lines += ["", *str(packing).splitlines()]
    lines += _kernels(leaves, solvers, method, fused) if fused else []
    for path, count in counts.items():
        if count.zero:
            lines.append(f"{path}: {count.zero:,} zero groups, {count.ready:,} of {count.units:,} units removable")
    return "\n".join(lines)


def _kernels(leaves, solvers, method, chip):
    """A line for each regularized leaf: how a fused kernel steps it."""
    check_fused(chip)
    if method is not ramda:
        return [f"no kernels: {method.__name__} has none"]
    lines = []
    for path, leaf, given in leaves:
        if given is not None:
            claim = claim_leaf(leaf, given, solvers.named_for(path) or choose_solver(given, "diagonal").solver, chip)
            is_refused = isinstance(claim, str)
            what = f"no kernel, {claim}" if is_refused else f"kernel, tile {' x '.join(map(str, claim.plan.tile))}"
            lines.append(f"{path or '(the array)'}: {what}")
    return lines


def _weight_of(regularizer, shape):
    """The weight of the groups of a leaf as text: a number, or a range."""
    weights = np.asarray(getattr(regularizer, "factor", 1.0) * regularizer.weights(shape))
    low, high = (f"{x:.4g}" for x in (np.min(weights, initial=np.inf), np.max(weights, initial=0)))
    return low if weights.ndim == 0 or low == high else f"{low} to {high}"


def _name_of(regularizer):
    """The name of the class; for `Scaled` that of the inner class, with the factor unless the weight includes it."""
    if not isinstance(regularizer, Scaled):
        return type(regularizer).__name__
    name = type(regularizer.regularizer).__name__
    return name if isinstance(regularizer, GroupRegularizer) else f"{regularizer.factor:g} * {name}"
