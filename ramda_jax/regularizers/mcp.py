"""The minimax concave penalty: zeros as from l1 or the group LASSO, without shrinking large entries or groups."""

import dataclasses

import jax
import jax.numpy as jnp

from ramda_jax.numerics import norm
from ramda_jax.regularizers.base import widened
from ramda_jax.regularizers.elementwise import ElementwiseRegularizer, soft_threshold
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.regularizers.groups.norm_penalty import NormPenalty
from ramda_jax.typing import Scalar
from ramda_jax.validation import check_positive, check_ratio


@dataclasses.dataclass(frozen=True)
class MCP(ElementwiseRegularizer):
    """The minimax concave penalty of single entries.

        psi(w) = sum_i |w_i| - w_i^2 / (2 omega)  where |w_i| <= omega,   omega / 2 beyond

    Entries beyond omega are not shrunk at all. The penalty is not convex. `ClosedForm` finds the global minimiser of
    the subproblem in any diagonal metric. The ICLR paper has the strength inside: its lambda |w| - w^2 / (2 omega') is
    `strength = lambda, omega = lambda * omega'`.

    Args:
        omega: where the penalty becomes flat, > 0.

    Raises:
        ValueError: omega is not above 0.
        TypeError: omega is not a number.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ramda_jax.MCP(omega=4.0).prox(jnp.array([0.5, 2.5, 6.0]), 1.0)
        Array([0., 2., 6.], dtype=float32)

    References:
        Zhang, `Nearly unbiased variable selection under minimax concave penalty`, 2010. Huang and Lee, ICLR 2022,
        arXiv:2112.02612, appendix E.
    """

    omega: float

    convex = False

    def __post_init__(self) -> None:
        check_positive("omega", self.omega, "use for example omega=1.0.", schedules=False)

    def value(self, w: jax.Array) -> jax.Array:
        w = jnp.abs(widened(w))
        return jnp.sum(self._penalty(jnp.ones([], w.dtype)).value(w))

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        return self.solve_scaled(x, jnp.ones([], x.dtype), weight)

    def solve_scaled(self, rhs: jax.Array, metric: Scalar, weight: Scalar) -> jax.Array:
        radii = self._penalty(weight).radii(jnp.abs(rhs), metric)
        # `sign(rhs) * 0` may be -0.0.
        return jnp.where(radii == 0, 0, jnp.sign(rhs) * radii)

    def zeroing_weight(self, rhs: jax.Array, metric: Scalar) -> jax.Array:
        # Both candidates beside 0 must lose: the one below the knee, and the unpenalised one beyond it.
        return jnp.maximum(jnp.abs(rhs), jnp.abs(rhs) * (jnp.abs(rhs) / metric / self.omega))

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        alive = slope - self._penalty(weight).derivative(jnp.abs(w)) * jnp.sign(w)
        return norm(jnp.where(w == 0, soft_threshold(slope, weight), alive))

    def _penalty(self, weight: Scalar) -> NormPenalty:
        return NormPenalty(weight, weight / self.omega, self.omega)


@dataclasses.dataclass(frozen=True)
class _GroupConcave(GroupRegularizer):
    """The base of `GroupMCP` and `SparseGroupMCP`: the knee, and the penalty of a norm."""

    omega: float | None = None
    gamma: float | None = None

    convex = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.omega is None) == (self.gamma is None):
            raise ValueError(
                f"Exactly one of `omega` and `gamma` must be given, got omega={self.omega!r} and gamma={self.gamma!r}; "
                "use omega=1.0 for one knee for all groups of equal weight."
            )
        name = "omega" if self.gamma is None else "gamma"
        check_positive(name, getattr(self, name), f"use for example {name}=1.0.", schedules=False)

    def omega_of(self, group_weight: Scalar) -> Scalar:
        """The parameter omega for groups of that weight."""
        if self.omega is not None:
            return self.omega
        assert self.gamma is not None
        return self.gamma * group_weight

    def norm_penalty(self, weight: Scalar, group_weight: Scalar) -> NormPenalty:
        omega = self.omega_of(group_weight)
        return NormPenalty(weight * group_weight, weight / omega, omega * group_weight)

    def zeroing_weight(self, rhs: jax.Array, metric: Scalar) -> jax.Array:
        # Both candidates beside 0 must lose: the one below the knee, and the unpenalised one beyond it.
        axes, group_weight = self.inner_axes(rhs.ndim), self.weights(rhs.shape)
        plateau = self.omega_of(group_weight) * group_weight * group_weight * (1 - self.l1_ratio)

        def beyond_knee(weight):
            reduced = self.reduced(rhs, weight)
            gain = jnp.sum(reduced * (reduced / metric), axis=axes, keepdims=True)
            return gain / jnp.where(plateau == 0, 1, plateau)

        low = super().zeroing_weight(rhs, metric)
        high = jnp.maximum(low, beyond_knee(0.0))
        # The l1 norm reduces the gain, which decreases with the weight: find the root by bisection.
        for _ in range(30 if self.l1_ratio else 0):
            middle = 0.5 * (low + high)
            is_enough = beyond_knee(middle) <= middle
            low, high = jnp.where(is_enough, low, middle), jnp.where(is_enough, middle, high)
        return high


@dataclasses.dataclass(frozen=True)
class GroupMCP(_GroupConcave):
    """The minimax concave penalty of group norms.

        psi(w) = sum_g omega_g (r - r^2 / (2 knee_g))  where r = ||w_g|| <= knee_g,   omega_g knee_g / 2 beyond

    Here omega_g is the group's weight, and the knee is `omega` times that weight. Groups beyond the knee are not shrunk
    at all. The penalty is not convex. `SecularNewton` finds the global minimiser of the subproblem in any diagonal
    metric. `ProximalGradient`, the NeurIPS paper's solver, finds a stationary point, with half the step.

    The ICLR paper has the strength inside: lambda_g r - r^2 / (2 omega') with lambda_g = lambda omega_g. This is
    `strength = lambda, omega = lambda * omega'`. Where its omega' is gamma' omega_g, it is `strength = lambda, gamma
    = lambda * gamma'`.

    Args:
        groups: see `GroupRegularizer`.
        group_weight: see `GroupRegularizer`.
        omega: > 0, the knee of a group of weight 1. Give this or gamma.
        gamma: > 0; omega is then gamma times the group's weight.

    Raises:
        ValueError, TypeError: as `GroupLasso`.
        ValueError: omega or gamma is not above 0; both or neither are given.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> rows = ramda_jax.GroupMCP("input", group_weight=1.0, omega=4.0)
        >>> rows.prox(jnp.array([[3.0, 4.0], [1.5, 2.0], [0.3, 0.4]]), 1.0)
        Array([[3. , 4. ],
               [1.2, 1.6],
               [0. , 0. ]], dtype=float32)

    References:
        Huang and Lee, ICLR 2022, arXiv:2112.02612, appendix E. Breheny and Huang, `Group descent algorithms for
        nonconvex penalized linear and logistic regression models with grouped predictors`, 2015.
    """


@dataclasses.dataclass(frozen=True)
class SparseGroupMCP(_GroupConcave):
    """Group MCP plus l1: zeroes whole groups without shrinking large ones, and single entries within the others.

        psi(w) = l1_ratio ||w||_1 + (1 - l1_ratio) GroupMCP(w)

    This is the "l1 + group MCP" of the ICLR paper's regularizer study.

    Args:
        groups: see `GroupRegularizer`.
        group_weight: see `GroupRegularizer`.
        omega: see `GroupMCP`.
        gamma: see `GroupMCP`.
        l1_ratio: the share of l1, in [0, 1].

    Raises:
        ValueError, TypeError: as `GroupMCP`; an l1_ratio outside [0, 1].

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> rows = ramda_jax.SparseGroupMCP("input", group_weight=1.0, omega=4.0, l1_ratio=0.5)
        >>> rows.prox(jnp.array([[4.0, 5.0, 1.0], [1.0, 1.0, 1.0]]), 2.0)
        Array([[3., 4., 0.],
               [0., 0., 0.]], dtype=float32)

    References:
        Huang and Lee, ICLR 2022, arXiv:2112.02612, appendix E.
    """

    l1_ratio: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio(self.l1_ratio)
