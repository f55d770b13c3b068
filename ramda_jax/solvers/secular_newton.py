"""Secular Newton: the exact solution for psi of the group norms in a diagonal metric."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.numerics import group_scales, in_turn, norm
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.solvers.base import Solution, Solver
from ramda_jax.validation import check_count


class SecularRoot(NamedTuple):
    """The root of each group's secular equation; all but `num_steps` with axes of length one inside the groups.

    Attributes:
        radii: the root, 0 where there is none.
        exists: whether there is one.
        relative_step: length of the last Newton step relative to the root, 0 where none was taken.
        num_steps: int32 `[]`.
    """

    radii: jax.Array
    exists: jax.Array
    relative_step: jax.Array
    num_steps: jax.Array


def secular_root(rhs, metric, lam, axes, max_steps=40, limit=None) -> SecularRoot:
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

    Returns:
        A `SecularRoot`.
    """
    eps = jnp.finfo(rhs.dtype).eps

    def over_group(x):
        return jnp.sum(x, axis=axes, keepdims=True)

    # In units of about the group's largest entry, r = scale * rho: squares then neither over- nor underflow.
    scale, inverse = group_scales(rhs, axes)
    x = rhs * inverse
    squares = jnp.square(x)
    sum_squares = over_group(squares)
    length_of_x = jnp.sqrt(sum_squares)
    exists = ~(length_of_x * scale <= lam)
    # Zero groups go through the motions on harmless numbers: no inf * 0 for `jax.debug_nans` to find.
    lam = jnp.where(exists, lam, 0) / scale
    # Newton's step from r = 0, where phi(0) = lam / ||rhs||. Next to the border rounding could make it negative.
    mean_metric = over_group(squares * metric) / jnp.where(sum_squares == 0, 1, sum_squares)
    if limit is not None:
        exists &= ~(mean_metric <= 0)
        limit = limit / scale
    rho = jnp.where(exists, jnp.maximum(length_of_x - lam, 0) / jnp.where(exists, mean_metric, 1), 1)
    # Without a weight the first step lands on the centre's direction, and any r gives the centre.
    active = exists & (lam > 0)

    def step(carry):
        rho, relative, exists, active, num_steps = carry
        if limit is not None:
            exists &= ~active | (rho <= limit)
            active &= exists
        growth = metric * rho
        t = growth + lam
        t = jnp.where(t > 0, t, 1)
        q2 = jnp.square(x / t)
        s2 = over_group(q2)
        s3 = over_group(q2 * (growth / t))  # times rho, so that it is at most s2
        if limit is not None:
            exists &= ~active | ~(s3 <= 0)
            active &= exists
        # phi / phi' written without cancellation at the root, where s2 = 1, and without the product s2^2
        length = rho * (s2 / jnp.where(s3 == 0, 1, s3)) * ((s2 - 1) / (jnp.sqrt(s2) + 1))
        length = jnp.where(active, jnp.maximum(length, 0), 0)
        new = rho + length
        relative = jnp.where(active, length / jnp.where(new == 0, 1, new), relative)
        return new, relative, exists, active & (relative > jnp.sqrt(eps)), num_steps + 1

    def is_unfinished(carry):
        *_, active, num_steps = carry
        return jnp.any(active) & (num_steps < max_steps)

    rho, relative, exists, _, num_steps = jax.lax.while_loop(
        is_unfinished, step, (rho, jnp.zeros_like(rho), exists, active, jnp.zeros([], jnp.int32))
    )
    if limit is not None:
        exists &= ~(rho > limit)
    return SecularRoot(jnp.where(exists, rho * scale, 0), exists, relative, num_steps)


@dataclasses.dataclass(frozen=True)
class SecularNewton(Solver):
    """The exact minimiser for psi of the group norms in any diagonal metric.

        w_g = 0                            if ||rhs_g|| <= lam_g
        w_g = rhs_g / (metric + lam_g / r) otherwise, where r = ||w_g|| solves ||rhs_g / (metric r + lam_g)|| = 1

    One scalar equation per group, all groups at once, by a Newton method that cannot overshoot
    (`secular_root`). On subproblems of real training it takes at most 5 steps; the KKT residual is at
    rounding, a few machine eps times ||rhs||.

    For group MCP it is the global minimiser, for any metric: along r the equation with the metric
    `metric - weight / omega` stays concave up to the knee even where that is negative, so that there are at most two
    candidates, the smallest root below the knee (or 0) and the unpenalised rhs / metric beyond it; the lower is taken.

    Args:
        max_steps: most Newton steps per solve; 40 is more than was seen to be needed over 12 decades of metric.

    Raises:
        ValueError, TypeError: max_steps below 1, or not an int.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> model = ramda_jax.QuadraticModel(
        ...     linear=jnp.array([[-3.0, -4.0], [0.3, 0.4]]), anchor=jnp.zeros((2, 2)),
        ...     metric=jnp.array([[1.0, 2.0], [1.0, 2.0]]), weight=jnp.array(1.0))
        >>> rows = ramda_jax.GroupLasso((0,), group_weight=1.0)
        >>> context = ramda_jax.solvers.Context(start=jnp.zeros((2, 2)))
        >>> ramda_jax.SecularNewton().solve(model, rows, context).value
        Array([[2.206981 , 1.6954015],
               [0.       , 0.       ]], dtype=float32)

    References:
        Moré and Sorensen, `Computing a trust region step`, 1983. Huang and Lee, NeurIPS 2024
        (arXiv:2403.14398), section 3, is the subproblem.
    """

    max_steps: int = 40
    keeps_radii = True

    def __post_init__(self):
        check_count("max_steps", self.max_steps, 1)

    def why_not(self, regularizer, metric):
        if not isinstance(regularizer, GroupRegularizer):
            return "it needs a psi of the group norms"
        return None

    def solve(self, model, regularizer, context):
        assert isinstance(regularizer, GroupRegularizer)  # why_not
        model = model._replace(metric=in_turn(model.metric, context.after))
        form = regularizer.secular_form(model.rhs, model.weight)
        axes = regularizer.block_axes(form.rhs.ndim)
        if form.knee is None:
            root = secular_root(form.rhs, model.metric, form.lam, axes, self.max_steps)
            radii = root.radii
        else:
            shifted = model.metric - form.concavity
            root = secular_root(form.rhs, shifted, form.lam, axes, self.max_steps, limit=form.knee)
            radii = _lower_minimum(form, model.metric, root, regularizer)
        # With (metric + lam / r) w = rhs the residual of a group is lam | ||w|| / r - 1 |, at most lam times
        # r's relative error, which the last step squared. (Rounding, a few eps ||rhs||, is not in it.)
        residual = norm(form.lam * 1.5 * jnp.square(root.relative_step))
        converged = jnp.all(~root.exists | ~(root.relative_step > jnp.sqrt(jnp.finfo(radii.dtype).eps)))
        return Solution(form.point(model.metric, radii), radii, root.num_steps, residual, converged)

    def restore(self, model, regularizer, context, radii):
        assert isinstance(regularizer, GroupRegularizer)  # why_not
        return regularizer.secular_form(model.rhs, model.weight).point(model.metric, radii)


def _lower_minimum(form, metric, root, regularizer):
    """Of the stationary point at the root (below the knee, or 0) and the one beyond the knee, the lower."""
    inner = form.point(metric, root.radii)
    outer = form.rhs / metric
    outer_radii = regularizer.norms(outer)
    axes = regularizer.block_axes(inner.ndim)

    def objective(w, r):
        terms = w * (0.5 * metric * w - form.rhs)
        return jnp.sum(terms, axis=axes, keepdims=True) + form.penalty(r)

    is_outer = (outer_radii >= form.knee) & (objective(outer, outer_radii) < objective(inner, root.radii))
    # Where 0 is not stationary and nothing is below the knee it is beyond, even if rounding has it just short of it.
    is_outer |= ~root.exists & (regularizer.norms(form.rhs) > form.lam)
    return jnp.where(is_outer | jnp.isnan(outer_radii), outer_radii, root.radii)
