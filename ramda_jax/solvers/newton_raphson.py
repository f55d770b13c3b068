"""ProxSSI's Newton-Raphson iteration, from its authors' code, for comparison."""

import dataclasses

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.numerics import norm
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.solvers.base import Context, Solution, Solver
from ramda_jax.typing import MetricKind
from ramda_jax.validation import check_count, check_non_negative


@dataclasses.dataclass(frozen=True)
class NewtonRaphson(Solver):
    """Newton's method on the secular equation itself, as in the released code of ProxSSI.

        h(r) = sum (rhs / (metric r + lam))^2 - 1 = 0,   r <- r + h / (2 sum rhs^2 metric / (metric r + lam)^3)

    It starts at r = (||rhs|| - lam) / max of the metric. h is convex and decreasing, so r increases monotonically to
    the root, but takes many steps if the metric varies much within a group. `SecularNewton` solves the same equation in
    its reciprocal form. The iteration stops when all `|h| < atol`, or all `|h - h of the step before| < rtol`.

    Args:
        max_steps: the largest number of steps per solve, an int >= 1.
        atol: the tolerance on h, >= 0.
        rtol: the tolerance on the change of h, >= 0. It is absolute despite its name, as in the released code.

    Raises:
        ValueError: max_steps is below 1; atol or rtol is negative.
        TypeError: max_steps is not an int; atol or rtol is not a number.

    Example:
        >>> import ramda_jax
        >>> optimizer = ramda_jax.prox_ssi(1e-3, ramda_jax.GroupLasso(), strength=1e-4,
        ...     solver=ramda_jax.NewtonRaphson())

    References:
        Deleu and Bengio, `Structured Sparsity Inducing Adaptive Optimizers for Deep Learning`, 2021,
        arXiv:2102.03869.
    """

    max_steps: int = 100
    atol: float = 1e-7
    rtol: float = 1e-7
    keeps_radii = True

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps, 1)
        check_non_negative("atol", self.atol, schedules=False)
        check_non_negative("rtol", self.rtol, schedules=False)

    def why_not(self, regularizer: Regularizer, metric_kind: MetricKind) -> str | None:
        if not isinstance(regularizer, GroupRegularizer):
            return "it needs a psi of the group norms"
        if not regularizer.convex:
            return "its start is below the root for a convex psi only"
        return None

    def solve(self, model: QuadraticModel, regularizer: Regularizer, context: Context) -> Solution:
        assert isinstance(regularizer, GroupRegularizer)  # why_not
        rhs = regularizer.reduced(model.rhs, model.weight)
        penalty = regularizer.leaf_penalty(rhs.shape, model.weight)
        axes = regularizer.inner_axes(rhs.ndim)
        metric = jnp.broadcast_to(model.metric, rhs.shape)
        norms = regularizer.norms(rhs)
        is_zero = norms <= penalty.lam
        largest = jnp.max(metric, axis=axes, keepdims=True, initial=0)
        start = jnp.where(is_zero, 1, (norms - penalty.lam) / jnp.where(largest == 0, 1, largest))

        def h_and_slope(r):
            t = metric * r + penalty.lam
            t = jnp.where(t == 0, 1, t)
            q2 = jnp.square(rhs / t)
            # h = 0 marks zero groups as solved.
            h = jnp.where(is_zero, 0, jnp.sum(q2, axis=axes, keepdims=True) - 1)
            slope = jnp.sum(q2 * (metric / t), axis=axes, keepdims=True)
            return h, jnp.where(slope == 0, 1, slope)

        def step(carry):
            r, previous, _, num_steps = carry
            h, slope = h_and_slope(r)
            is_done = jnp.all(jnp.abs(h) < self.atol) | jnp.all(jnp.abs(h - previous) < self.rtol)
            return r + 0.5 * h / slope, h, is_done, num_steps + 1

        def is_unfinished(carry):
            *_, is_done, num_steps = carry
            return ~is_done & (num_steps < self.max_steps)

        r, h, converged, num_steps = jax.lax.while_loop(
            is_unfinished, step, (start, jnp.zeros_like(start), jnp.zeros([], bool), jnp.zeros([], jnp.int32))
        )
        radii = jnp.where(is_zero, 0, r)
        # ||w|| / r = sqrt(1 + h), and the residual of a group is lam | ||w|| / r - 1 |. (h is its value before the last
        # step.)
        residual = norm(penalty.lam * jnp.abs(h) / (jnp.sqrt(jnp.maximum(1 + h, 0)) + 1))
        return Solution(penalty.point(rhs, model.metric, radii), radii, num_steps, residual, converged)
