"""How regularizers of the group norms describe themselves to solvers that compute norms."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.typing import Scalar
from ramda_jax.xla.one_program import one_program


class NormPenalty(NamedTuple):
    """A function of each group's norm r.

        P(r) = lam r - concavity r^2 / 2 up to the knee, constant beyond it

    With it the subproblem is

        argmin_w 1/2 ||w||^2_metric - <rhs, w> + sum_g P(||w_g||)

    Attributes:
        lam: slope of P at 0, >= 0; a scalar or one number per group.
        concavity: None for a convex P, which is lam r everywhere; else > 0, a scalar or one number per group.
        knee: None for a convex P; else the norm at which P becomes flat, lam / concavity.
    """

    lam: Any
    concavity: Any = None
    knee: Any = None

    def value(self, r: jax.Array) -> jax.Array:
        """P(r)."""
        if self.knee is None:
            return self.lam * r
        r = jnp.minimum(r, self.knee)
        return r * (self.lam - 0.5 * self.concavity * r)

    def derivative(self, r: jax.Array) -> jax.Array:
        """P'(r), from the right at 0."""
        if self.knee is None:
            return self.lam * jnp.ones_like(r)
        return jnp.where(r < self.knee, self.lam - self.concavity * r, 0)

    @one_program()
    def point(self, rhs: jax.Array, metric: Scalar, radii: jax.Array) -> jax.Array:
        """The solution whose groups have the norms `radii`; it is exactly 0 where they are.

        `w_g = rhs_g / (metric + P'(r_g) / r_g)` is stationary. lam is in the denominator, as lam / r, and not in the
        numerator, so nothing overflows or underflows unless w itself does.
        """
        is_zero = radii == 0
        shift = self.lam / jnp.where(is_zero, 1, radii)
        if self.knee is not None:
            shift = jnp.where(radii >= self.knee, 0, shift - self.concavity)
        return jnp.where(is_zero, 0, rhs / jnp.where(is_zero, 1, metric + shift))

    @one_program()
    def radii(self, norms: jax.Array, metric: Scalar) -> jax.Array:
        """The minimising radii if the metric is one number (per group); `norms` are the norms of rhs.

        For a concave P it is the lowest of three stationary points: 0, one below the knee, and one beyond it. Where
        metric > concavity the sum is convex and only one of them exists. Otherwise the point below the knee is not a
        minimum.
        """
        # A NaN is not zero, so it is kept.
        below = jnp.where(norms <= self.lam, 0, norms - self.lam)
        if self.knee is None:
            return below / metric

        def objective(r):
            return r * (0.5 * metric * r - norms) + self.value(r)

        slope = metric - self.concavity
        inner = jnp.where(slope > 0, below / jnp.where(slope > 0, slope, 1), 0)
        outer = norms / metric
        # At the knee rounding may put both points outside of their ranges. A single comparison decides, so one always
        # exists.
        is_outer = jnp.where(slope > 0, inner >= self.knee, (outer >= self.knee) & (objective(outer) < 0))
        radii = jnp.where(is_outer, outer, inner)
        # Comparisons with a NaN in the norms, the metric or the weight must not result in a zero.
        unknown = norms + slope + self.lam
        return jnp.where(jnp.isnan(unknown), unknown, radii)


def is_beyond_knee(
    radii: jax.Array, outer: jax.Array, is_lower: jax.Array, leaves_zero: jax.Array, knee: Scalar
) -> jax.Array:
    """Whether a group's minimum lies beyond the knee of a concave penalty: the rule that decides between two
    candidates.

    The candidates are the stationary point below the knee, or 0, and the unpenalised `rhs / metric` beyond it.

    Args:
        radii: the norms of the candidates below the knee; 0 where there is no root.
        outer: the norms of the candidates beyond it, in the unit of `knee`; where below the knee, there is none.
        is_lower: whether the objective is lower at the candidate beyond the knee.
        leaves_zero: whether 0 is not stationary. If there is no root either, the minimum lies beyond the knee, even if
            rounding puts its norm just below it.
        knee: the norm at which the penalty becomes flat.
    """
    # A NaN is chosen, so that it does not become a silent zero.
    return ((outer >= knee) & is_lower) | ((radii == 0) & leaves_zero) | jnp.isnan(outer)
