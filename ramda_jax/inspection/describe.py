"""A table of which leaf gets which regularizer."""

import math

from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.solvers.select import choose_solver
from ramda_jax.structure.assignment import assign


def describe(regularizer, params, metric: str = "diagonal") -> str:
    """A table: which leaf gets which regularizer, its groups, their number, size and weight, and its solver.

    Args:
        regularizer: what is given to the optimizer: a `Regularizer`, a mapping of patterns, a tree, or None.
        params: the parameters, or anything of their structure with shapes.
        metric: `"diagonal"` for RAMDA, `"scalar"` for RMDA; only the column of solvers depends on it.

    Returns:
        The table as text, a line for each leaf and one for the total.

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
    rows: list[tuple[str, ...]] = [("leaf", "shape", "regularizer", "group axes", "groups", "size", "weight", "solver")]
    entries = regularized = groups = 0
    for path, leaf, one in assign(regularizer, params):
        shape = tuple(leaf.shape)
        size = math.prod(shape)
        entries += size
        row = [path or "(the array)", str(shape)]
        if one is None:
            rows.append((*row, "-", "-", "-", "-", "-", "-"))
            continue
        regularized += size
        cells = ["-", "-", "-", "-"]
        if isinstance(one, GroupRegularizer):
            number = math.prod(one.radii_shape(shape))
            groups += number
            cells = [str(one.groups), str(number), str(one.sizes(shape)), f"{one.weights(shape):.4g}"]
        rows.append((*row, type(one).__name__, *cells, type(choose_solver(one, metric).solver).__name__))
    rows.append(("total", f"{entries} entries", f"{regularized} regularized", "", str(groups), "", "", ""))
    # The total's long cell may run into the empty one after it.
    widths = [max(len(row[i]) for row in rows[:-1]) for i in range(len(rows[0]))]
    widths[0] = max(widths[0], len("total"))
    widths[1] = max(widths[1], len(rows[-1][1]))
    right = (4, 5, 6)

    def line(row):
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        if row is rows[-1]:
            joined = row[2].ljust(widths[2] + 2 + widths[3])
            cells[2:4] = [joined]
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, rows))
