"""Roots of the secular equation by Newton's method."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.numerics import group_scales
from ramda_jax.typing import Axes, Scalar, Sums
from ramda_jax.xla.reductions import plain_sums


class SecularRoot(NamedTuple):
    """The root of each group's secular equation. The first two fields have axes of length one inside the groups.

    Attributes:
        radii: the root; 0 where there is no root.
        error: a bound on `| ||rhs_g / (metric r + lam)|| - 1 |` at the radius, apart from rounding; 0 without a root.
        converged: bool `[]`, whether all radii are exact to rounding.
        num_steps: int32 `[]`, passes over the data.
    """

    radii: jax.Array
    error: jax.Array
    converged: jax.Array
    num_steps: jax.Array


def newton_root(
    rhs: jax.Array,
    metric: jax.Array,
    lam: Scalar,
    axes: Axes,
    max_steps: int = 40,
    limit: Scalar | None = None,
    start: jax.Array | None = None,
    sums: Sums = plain_sums,
) -> SecularRoot:
    """Solves `||rhs_g / (metric r + lam)|| = 1` for r > 0, all groups at once.

    There is no root if `||rhs_g|| <= lam`. Otherwise Newton's method solves

        phi(r) = 1 / ||rhs_g / (metric r + lam)|| = 1,

    the reciprocal form of Moré and Sorensen for trust regions. phi is a power mean (of exponent -2) of affine functions
    of r, and so it is concave where these are positive. Started left of the smallest root, Newton's method therefore
    increases to it without overshooting, and converges quadratically. It needs neither a bracket nor a line search. The
    relative error obeys e+ <= 1.5 e^2, so a step below sqrt(machine eps) is the last one.

    Args:
        rhs: the right-hand side, any shape, float32 or float64. A NaN makes its group's radius NaN, because it must not
            silently become zero.
        metric: an array that broadcasts against rhs; positive, unless a limit is given.
        lam: weight of the norm, >= 0; a scalar or one number per group.
        axes: the axes inside a group.
        max_steps: the largest number of Newton steps.
        limit: radii up to which `metric r + lam` is positive, for a metric with negative entries. There is no root
            below it if an iterate passes it or the slope of phi is not positive.
        start: radii left of the roots from which to start, one number per group; 0 where no radius is known.
        sums: a function that sums several arrays over axes; `Execution.sums`.

    Returns:
        A `SecularRoot`.
    """
    eps = jnp.finfo(rhs.dtype).eps

    # Use units of about the group's largest entry, r = scale * rho, so that squares neither overflow nor underflow.
    scale, inverse = group_scales(rhs, axes)
    x = rhs * inverse
    sum_squares, in_metric = sums((x * x, (x * metric) * x), axes)
    length_of_x = jnp.sqrt(sum_squares)
    exists = ~(length_of_x * scale <= lam)
    # Zero groups are computed with harmless numbers too, because otherwise `jax.debug_nans` would find inf * 0.
    lam = jnp.where(exists, lam, 0) / scale
    # Newton's step from r = 0, where phi(0) = lam / ||rhs||. Near the threshold rounding could make it negative.
    mean_metric = in_metric / jnp.where(sum_squares == 0, 1, sum_squares)
    if limit is not None:
        exists &= ~(mean_metric <= 0)
        limit = limit / scale
    rho = jnp.where(exists, jnp.maximum(length_of_x - lam, 0) / jnp.where(exists, mean_metric, 1), 1)
    if start is not None:
        rho = jnp.where(exists & (start > 0), start / scale, rho)
    # If lam = 0, w = rhs / metric for every r > 0, without an iteration. The radius is then not the norm of w.
    active = exists & (lam > 0)

    def step(carry):
        rho, relative, exists, active, num_steps = carry
        if limit is not None:
            exists &= ~active | (rho <= limit)
            active &= exists
        growth = metric * rho
        t = growth + lam
        t = jnp.where(t > 0, t, 1)
        q = x / t
        # The moments of order 0 and 1 of `secular_gauss.Moments`: the second is at most the first.
        total, first = sums((q * q, (q * (growth / t)) * q), axes)
        if limit is not None:
            exists &= ~active | ~(first <= 0)
            active &= exists
        # Newton's step (1 - phi) / phi', where phi = total^(-1/2) and phi' = first / (rho total^(3/2)). In this form
        # nothing cancels at the root, where total = 1, and there is no product total^2, which may overflow.
        length = rho * (total / jnp.where(first == 0, 1, first)) * ((total - 1) / (jnp.sqrt(total) + 1))
        length = jnp.where(active, jnp.maximum(length, 0), 0)
        new = rho + length
        relative = jnp.where(active, length / jnp.where(new == 0, 1, new), relative)
        return new, relative, exists, active & (relative > jnp.sqrt(eps)), num_steps + 1

    def is_unfinished(carry):
        *_, active, num_steps = carry
        return jnp.any(active) & (num_steps < max_steps)

    # Assume a relative error of 1 until a step has shown that it is smaller.
    relative = jnp.where(active, jnp.ones_like(rho), 0)
    rho, relative, exists, _, num_steps = jax.lax.while_loop(
        is_unfinished, step, (rho, relative, exists, active, jnp.zeros([], jnp.int32))
    )
    if limit is not None:
        exists &= ~(rho > limit)
    # A radius that is not finite is not near a root, whatever the length of the last step.
    converged = jnp.all(~exists | ((relative <= jnp.sqrt(eps)) & jnp.isfinite(rho)))
    # With (metric + lam / r) w = rhs the residual of a group is lam | ||w|| / r - 1 |, at most lam times
    # r's relative error, which the last step squared. (Rounding, a few eps ||rhs||, is not in it.)
    return SecularRoot(jnp.where(exists, rho * scale, 0), 1.5 * jnp.square(relative), converged, num_steps)
