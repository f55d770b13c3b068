"""Roots of the secular equation by Newton's method."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.numerics import group_scales
from ramda_jax.typing import Axes, Scalar, Sums
from ramda_jax.xla.reductions import plain_sums


class SecularRoot(NamedTuple):
    """The root of each group's secular equation; the first two with axes of length one inside the groups.

    Attributes:
        radii: the root, 0 where there is none.
        error: bound on `| ||rhs_g / (metric r + lam)|| - 1 |` at the radius, rounding aside; 0 where there is none.
        converged: bool `[]`, whether all are at rounding.
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

    There is none if `||rhs_g|| <= lam`. Otherwise Newton's method on

        phi(r) = 1 / ||rhs_g / (metric r + lam)|| = 1,

    the reciprocal form of Moré and Sorensen for trust regions: phi is a power mean (of exponent -2) of
    affine functions of r, hence concave where these are positive, so that Newton started left of the
    smallest root climbs to it without overshooting, quadratically: no bracket, no line search. The relative error
    obeys e+ <= 1.5 e^2, so that a step below sqrt(machine eps) needs no second look.

    Args:
        rhs: the right-hand side, any shape, float32 or float64. A NaN makes its group's radius NaN:
            a NaN is not zero, and must not become a silent zero.
        metric: broadcasts against rhs; positive, unless a limit is given.
        lam: weight of the norm, >= 0; a scalar or one number per group.
        axes: the axes inside a group.
        max_steps: most Newton steps.
        limit: radii up to which `metric r + lam` is positive, for a metric with negative entries. There is no
            root below it once an iterate passes it or the slope of phi is not positive.
        start: radii left of the roots to start from, one number per group; 0 where none is known.
        sums: how to sum several arrays over axes; `Execution.sums`.

    Returns:
        A `SecularRoot`.
    """
    eps = jnp.finfo(rhs.dtype).eps

    # In units of about the group's largest entry, r = scale * rho: squares then neither over- nor underflow.
    scale, inverse = group_scales(rhs, axes)
    x = rhs * inverse
    sum_squares, in_metric = sums((x * x, (x * metric) * x), axes)
    length_of_x = jnp.sqrt(sum_squares)
    exists = ~(length_of_x * scale <= lam)
    # Zero groups are computed too, with harmless numbers: otherwise `jax.debug_nans` would find inf * 0.
    lam = jnp.where(exists, lam, 0) / scale
    # Newton's step from r = 0, where phi(0) = lam / ||rhs||. Next to the border rounding could make it negative.
    mean_metric = in_metric / jnp.where(sum_squares == 0, 1, sum_squares)
    if limit is not None:
        exists &= ~(mean_metric <= 0)
        limit = limit / scale
    rho = jnp.where(exists, jnp.maximum(length_of_x - lam, 0) / jnp.where(exists, mean_metric, 1), 1)
    if start is not None:
        rho = jnp.where(exists & (start > 0), start / scale, rho)
    # If lam = 0, w = rhs / metric for every r > 0: no iteration is needed. The radius is then not the norm of w.
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
        # Newton's step (1 - phi) / phi', where phi = total^(-1/2) and phi' = first / (rho total^(3/2)). Written so that
        # nothing cancels at the root, where total = 1, and without the product total^2, which may overflow.
        length = rho * (total / jnp.where(first == 0, 1, first)) * ((total - 1) / (jnp.sqrt(total) + 1))
        length = jnp.where(active, jnp.maximum(length, 0), 0)
        new = rho + length
        relative = jnp.where(active, length / jnp.where(new == 0, 1, new), relative)
        return new, relative, exists, active & (relative > jnp.sqrt(eps)), num_steps + 1

    def is_unfinished(carry):
        *_, active, num_steps = carry
        return jnp.any(active) & (num_steps < max_steps)

    # The relative error is taken for 1 until a step has shown that it is smaller.
    relative = jnp.where(active, jnp.ones_like(rho), 0)
    rho, relative, exists, _, num_steps = jax.lax.while_loop(
        is_unfinished, step, (rho, relative, exists, active, jnp.zeros([], jnp.int32))
    )
    if limit is not None:
        exists &= ~(rho > limit)
    # A radius that is not finite is not near a root, whatever the length of the last step was.
    converged = jnp.all(~exists | ((relative <= jnp.sqrt(eps)) & jnp.isfinite(rho)))
    # With (metric + lam / r) w = rhs the residual of a group is lam | ||w|| / r - 1 |, at most lam times
    # r's relative error, which the last step squared. (Rounding, a few eps ||rhs||, is not in it.)
    return SecularRoot(jnp.where(exists, rho * scale, 0), 1.5 * jnp.square(relative), converged, num_steps)
