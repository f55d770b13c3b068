"""A table of which leaf gets which regularizer."""

import math
from collections.abc import Callable

import numpy as np
import optax

from ramda_jax.methods import prox_adamw, prox_gen, prox_sgd, prox_ssi, ramda, rmda
from ramda_jax.regularizers.groups import Grouped, GroupRegularizer
from ramda_jax.regularizers.scaled import Scaled
from ramda_jax.solvers.select import choose_solver
from ramda_jax.structure.assignment import assign
from ramda_jax.subproblem.checks import check_solvable
from ramda_jax.subproblem.solver_rules import solver_rules
from ramda_jax.tables import text_table
from ramda_jax.typing import RegularizerSpec, SolverSpec, Tree

#: The methods whose metric is a multiple of the identity.
_SCALAR = (rmda, prox_sgd)
_METHODS = (ramda, rmda, prox_sgd, prox_gen, prox_adamw, prox_ssi)


def describe(
    regularizer: RegularizerSpec,
    params: Tree,
    method: Callable[..., optax.GradientTransformation] = ramda,
    solver: SolverSpec = None,
) -> str:
    """A table: which leaf gets which regularizer, its groups, their number, size and weight, and its solver.

    Args:
        regularizer: what is given to the optimizer: a `Regularizer`, a mapping of patterns, a tree, or None.
        params: the parameters, or anything of their structure with shapes.
        method: the optimizer's factory, such as `ramda_jax.rmda`: which solver is the default depends on the method's
            metric.
        solver: what is given to the optimizer.

    Returns:
        The table as text, a line for each leaf and one for the total, and one for each leaf that is one single group:
        it can only go as a whole.

    Raises:
        ValueError, TypeError: what `init` of the optimizer would raise.

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
    metric_kind = "scalar" if method in _SCALAR else "diagonal"
    check_solvable(regularizer, solver, metric_kind)
    solvers = solver_rules(solver)
    rows: list[tuple[str, ...]] = [("leaf", "shape", "regularizer", "group axes", "groups", "size", "weight", "solver")]
    entries = regularized = groups = 0
    single = []
    leaves = assign(regularizer, params)
    solvers.check_used([(path, given) for path, _, given in leaves if given is not None])
    for path, leaf, given in leaves:
        shape = tuple(leaf.shape)
        size = math.prod(shape)
        entries += size
        row = [path or "(the array)", str(shape)]
        if given is None:
            rows.append((*row, "-", "-", "-", "-", "-", "-"))
            continue
        regularized += size
        cells = ["-", "-", "-", "-"]
        if isinstance(given, Grouped):
            number = math.prod(given.radii_shape(shape))
            groups += number
            if number == 1 < size:
                single.append(path or "(the array)")
            weight = _weight_of(given, shape) if isinstance(given, GroupRegularizer) else "-"
            cells = [str(given.groups), str(number), str(given.sizes(shape)), weight]
        solved_by = solvers.named_for(path) or choose_solver(given, metric_kind).solver
        rows.append((*row, _name_of(given), *cells, type(solved_by).__name__))
    rows.append(("total", f"{entries} entries", f"{regularized} regularized", "", str(groups), "", "", ""))
    # In the total row "N regularized" spills into the empty column beside it.
    lines = text_table(rows, right=(4, 5, 6), spill=(len(rows) - 1, 2))
    lines += [f"{path} is one single group, which goes as a whole or not at all: name its axes" for path in single]
    return "\n".join(lines)


def _weight_of(regularizer, shape):
    """What the groups of a leaf weigh, a number or from which to which."""
    weights = np.asarray(getattr(regularizer, "factor", 1.0) * regularizer.weights(shape))
    low, high = (f"{x:.4g}" for x in (np.min(weights, initial=np.inf), np.max(weights, initial=0)))
    return low if weights.ndim == 0 or low == high else f"{low} to {high}"


def _name_of(regularizer):
    """The class; of a scaled one that of what is scaled, with the factor unless it is in the weight."""
    if not isinstance(regularizer, Scaled):
        return type(regularizer).__name__
    name = type(regularizer.regularizer).__name__
    return name if isinstance(regularizer, GroupRegularizer) else f"{regularizer.factor:g} * {name}"
