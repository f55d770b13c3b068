"""The result of a certificate, by group, as a table and as a picture."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.tables import text_table


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["stage_step", "margin", "worst_margin", "noise", "bound", "norms", "drift", "movement"],
    meta_fields=["left_out", "spectral"],
)
@dataclasses.dataclass(frozen=True)
class Certificate:
    """The result of `certificate`. Printing it gives a table.

    Each field except the first and the last two is a dict from the paths of regularized leaves to arrays of one number
    per group, of the leaf's rank with length one along the axes inside a group (for `L1` one number per entry). A leaf
    with `NuclearNorm` has singular values for groups: an array `[min(rows, columns)]`, in descending order.

    Attributes:
        stage_step: int32 `[]`, t, the number of steps of the stage (the smallest of several optimizers).
        margin: lambda omega_g - ||rhs|| / alpha_t, in units of the gradient; at least 0 iff the group is zero. For a
            singular value lambda minus that of the slope (`certificate`).
        worst_margin: the smallest margin that is possible while the anchor's part fades. For a singular value that is
            zero: how far the slope must move until the rank includes it, less what the anchor and the solver may do.
        noise: sigma^2, the variance of one gradient, summed over the group (over the whole matrix for a singular
            value); infinite if it is not known.
        bound: the bound on the probability that the group is ever nonzero again in this stage; 1 for a living group.
        norms: the norms of the groups of W_hat, or its singular values; exactly 0 for what is zero.
        drift: the change of the mean gradient between the stage's two parts, beyond noise; None without `earlier`.
        movement: the change of W_hat since `earlier`; None without it.
        left_out: the paths of leaves with regularizers that are not covered.
        spectral: the paths of leaves with singular values for groups.
    """

    stage_step: Any
    margin: dict[str, Any]
    worst_margin: dict[str, Any]
    noise: dict[str, Any]
    bound: dict[str, Any]
    norms: dict[str, Any]
    drift: dict[str, Any] | None
    movement: dict[str, Any] | None
    left_out: tuple[str, ...]
    spectral: tuple[str, ...] = ()

    @property
    def zero(self) -> dict[str, jax.Array]:
        """Which groups are zero, as a dict of boolean arrays."""
        return {path: norms == 0 for path, norms in self.norms.items()}

    @property
    def expected_revivals(self) -> jax.Array:
        """The sum of the bounds of all zero groups, a scalar: an upper estimate of the expected number of revivals."""
        sums = [jnp.sum(jnp.where(zero, self.bound[path], 0)) for path, zero in self.zero.items()]
        return jnp.asarray(sum(sums))

    @property
    def rank_growth(self) -> dict[str, jax.Array]:
        """A bound on the probability that the rank ever grows in this stage, for each path in `spectral`; 0 at full
        rank."""
        zero = self.zero
        return {path: jnp.max(self.bound[path], initial=0, where=zero[path]) for path in self.spectral}

    @property
    def drifting(self) -> dict[str, jax.Array] | None:
        """Zero groups whose drift is at least half of their margin, as boolean arrays; None without `earlier`.

        The premise of their bound, that the mean gradient does not change, does not hold well enough.
        """
        if self.drift is None:
            return None
        return {
            path: zero & ~(2 * self.drift[path] < jnp.maximum(self.worst_margin[path], 0))
            for path, zero in self.zero.items()
        }

    def border(self, level: float = 0.05) -> dict[str, jax.Array]:
        """Which groups are at the border, as a dict of boolean arrays by path.

        A zero group is at the border if its bound is above `level`. A living group is at the border if W_hat has moved,
        since `earlier`, at least as far as the group is from zero. Without `earlier` no living group is at the border.
        """
        result = {}
        for path, zero in self.zero.items():
            living = jnp.zeros_like(zero) if self.movement is None else self.movement[path] >= self.norms[path]
            result[path] = jnp.where(zero, self.bound[path] > level, living)
        return result

    def rows(self) -> list[tuple[Any, ...]]:
        """The table: for each leaf path, groups, zero, at border, drifting, expected revivals, living at border."""
        border, drifting = self.border(), self.drifting
        rows = []
        for path, zero in self.zero.items():
            zero = np.asarray(zero)
            rows.append(
                (
                    path or "(the array)",
                    zero.size,
                    int(np.sum(zero)),
                    int(np.sum(zero & np.asarray(border[path]))),
                    None if drifting is None else int(np.sum(np.asarray(drifting[path]))),
                    float(np.sum(np.asarray(self.bound[path]), where=zero)),
                    None if self.movement is None else int(np.sum(~zero & np.asarray(border[path]))),
                )
            )
        return rows

    def __str__(self) -> str:
        rows = self.rows()
        sums = [None if column[0] is None else sum(column) for column in list(zip(*rows, strict=True))[1:]]
        heads = ("leaf", "groups", "zero", "border", "drifting", "expected revivals", "living at border")
        cells = [heads, *([_cell(value) for value in row] for row in (*rows, ("total", *sums)))]
        return "\n".join([*text_table(cells, right=range(1, len(heads))), *self._remarks(sums)])

    def _remarks(self, sums):
        yield f"Of step {int(self.stage_step)} of the stage, if the mean gradient stays what it is."
        if self.drift is None:
            yield "Whether it does has not been examined: give an `earlier` state."
        elif sums[3]:
            yield f"It has not for {sums[3]} zero groups: it has moved by half of their margin or more."
        else:
            yield "It has moved by less than half of every zero group's margin."
        unknown = [path for path, noise in self.noise.items() if not np.all(np.isfinite(noise))]
        if unknown:
            known_by = "of RMDA `second_moments`, with the restarts of the method, keeps it, from the second step on."
            yield f"The noise is not known at {unknown}: {known_by}"
        for path, growth in self.rank_growth.items():
            alive = ~np.asarray(self.zero[path])
            rank = f"'{path}' has singular values for groups: its rank is {int(np.sum(alive))}"
            yield rank + (
                ", which is the largest possible."
                if np.all(alive)
                else f", and grows with a probability of at most {float(growth):.3g}."
            )
        if self.left_out:
            yield f"Nothing is said of {list(self.left_out)}."

    def _kind(self, name):
        return "\n(singular values)" if name in self.spectral else ""

    def draw(self, path: str | Path) -> None:
        """Draws the bounds of the zero groups, and norms and movement of the living ones, to a PNG file.

        For a leaf with the nuclear norm the groups are its singular values.

        Args:
            path: the path of the file.

        Raises:
            ModuleNotFoundError: matplotlib is not installed; the extra `examples` brings it.
        """
        from matplotlib.figure import Figure

        # Do not use pyplot, which would open windows and keep figures.
        figure = Figure(figsize=(10, 1.5 + 0.4 * len(self.norms)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for row, (name, zero) in enumerate(self.zero.items()):
            zero = np.asarray(zero).ravel()
            bound, norms = np.asarray(self.bound[name]).ravel()[zero], np.asarray(self.norms[name]).ravel()[~zero]
            # Spread the points evenly over the row's height, in the groups' order.
            left.plot(np.maximum(bound, 1e-8), row + _spread(bound.size), ".", color="tab:blue", alpha=0.6)
            right.plot(norms, row + _spread(norms.size), ".", color="tab:orange", alpha=0.8)
            if self.movement is not None:
                moved = np.asarray(self.movement[name]).ravel()[~zero]
                right.plot(moved, row + _spread(norms.size), "|", color="black", alpha=0.6)
        left.axvline(0.05, color="lightgrey", zorder=0)
        left.set(xscale="log", xlim=(5e-9, 2), xlabel="zero groups: bound on the probability to come back")
        right.set(xscale="log", xlabel="living groups: norm (|: how far W_hat has moved)")
        labels = [(name or "(the array)") + self._kind(name) for name in self.norms]
        left.set_yticks(range(len(self.norms)), labels)
        left.invert_yaxis()
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(
            f"step {int(self.stage_step)} of the stage: {float(self.expected_revivals):.3g} expected revivals"
        )
        figure.savefig(path, dpi=120)


def _cell(value):
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _spread(size):
    return np.linspace(-0.35, 0.35, size) if size > 1 else np.zeros(size)
