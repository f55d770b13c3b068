"""The roots of several leaves' secular equations with a fixed number of passes over the data, for accelerators.

Without branches and loops the device never waits for its host. The groups of all leaves are one vector, so that kernels
and compile time do not grow with the number of leaves (`python -m benchmarks.compiled` counts both).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.regularizers.groups import NormPenalty, is_beyond_knee
from ramda_jax.solvers.secular_gauss import Moments, gauss_root, moment_terms
from ramda_jax.typing import Axes, Scalar, Sums
from ramda_jax.xla.many_leaves import join

#: The number of passes over the data, by the bits of the dtype. In float32 two passes are enough for nearly all
#: subproblems of real training, also from cold starts (`python -m benchmarks.fixed_passes`).
PASSES = {32: 2, 64: 3}
#: The largest tau of a pass: its fourth power must be in the range of the dtype.
FARTHEST = 2.0**20


class LeafEquations(NamedTuple):
    """The secular equations of one leaf: `||rhs_g / ((metric - concavity) r + lam)|| = 1` for r up to the knee.

    Attributes:
        rhs: an array of the leaf's shape.
        metric: a positive array of the leaf's shape.
        penalty: the penalty of the group norms; without concavity and knee if it is convex.
        axes: the axes inside a group.
        radii: the start, >= 0, one number per group with axes of length one inside the groups; 0 where none is known.
    """

    rhs: jax.Array
    metric: jax.Array
    penalty: NormPenalty
    axes: Axes
    radii: jax.Array


class Roots(NamedTuple):
    """The result of the passes.

    Attributes:
        radii: by leaf, the norms of the solution's groups; exactly 0 where the group is zero.
        passes: the number of passes.
        residual: `[]`, a bound on the distance of 0 to the subdifferential over all leaves, apart from rounding.
        converged: bool `[]`, whether all are at rounding.
    """

    radii: list[jax.Array]
    passes: int
    residual: jax.Array
    converged: jax.Array


class GroupRoots(NamedTuple):
    """The result of the passes for each group, by leaf, with axes of length one inside the groups.

    Attributes:
        radii: the norms of the solution's groups; exactly 0 where the group is zero.
        errors: bounds on `|S(radii)^(1/2) - 1|`, apart from rounding; 0 where the root is exact, infinite where no
            bound is known.
    """

    radii: list[jax.Array]
    errors: list[jax.Array]


def roots_by_passes(leaves: Sequence[LeafEquations], sums: Sums) -> Roots:
    """The roots of several leaves' equations of one dtype (`group_roots`), and the residual over all groups."""
    radii, errors = group_roots(leaves, sums)
    error, _ = join(errors)
    lam, _ = join([_per_group(leaf.penalty.lam, leaf.radii) for leaf in leaves])
    return Roots(radii, PASSES[jnp.finfo(error.dtype).bits], *left_over(error, lam))


def left_over(errors: jax.Array, lam: Scalar) -> tuple[jax.Array, jax.Array]:
    """`residual` and `converged` of `Roots`, from the `errors` of `GroupRoots`.

    Args:
        errors: one number per group, any shape.
        lam: the slopes of the penalty at 0; a scalar, or of the shape of `errors`.
    """
    bounds = jnp.where(errors > 0, jnp.where(lam > 0, lam, 1) * errors, 0)
    # Both results are maxima over all groups, so that on a mesh XLA makes one all-reduce of them.
    residual = jnp.max(bounds, initial=0) * jnp.sqrt(jnp.asarray(errors.size, errors.dtype))
    return residual, jnp.max(errors, initial=0) <= jnp.finfo(errors.dtype).eps


def group_roots(leaves: Sequence[LeafEquations], sums: Sums) -> GroupRoots:
    """The roots of several leaves' equations of one dtype, with a fixed number of passes over the data.

    Each pass is the step of `gauss_step`, with two additions. The first pass also sums `(rhs / lam)^2`. Zero is
    stationary if and only if this sum is at most 1, so the first pass decides exactly which groups are zero. And there
    is a step at r = 0 too. With h = metric instead of metric r / (metric r + lam),

        S(lam tau) = sum_i (rhs_i / lam)^2 (1 + h_i tau)^-2,

    so the same rule gives the root r = lam tau. `errors` bounds the remaining error. The next step's solve continues
    from there.

    A concave penalty needs a third pass. It compares the objective at the root below the knee with that at the point
    beyond it.

    Args:
        leaves: the equations.
        sums: how to sum several arrays over axes.
    """
    groups, split = _groups(leaves)
    # A radius beyond the knee is not a root, so do not start from it.
    radii = jnp.where(groups.start < groups.knee, groups.start, 0)
    # Without a weight every nonzero radius gives the same point, rhs / metric.
    radii = jnp.where((radii > 0) | (groups.lam > 0), radii, 1)
    is_zero, error = jnp.zeros(radii.shape, bool), jnp.full_like(radii, jnp.inf)
    passes = PASSES[jnp.finfo(radii.dtype).bits]
    for number in range(passes):
        at = zip(leaves, split(radii), split(jnp.where(radii == 0, groups.lam, radii)), strict=True)
        by_leaf = [_leaf_sums(*leaf, sums, number == 0) for leaf in at]
        at_zero, *moments = [join(column)[0] for column in zip(*by_leaf, strict=True)]
        if number == 0:
            is_zero = at_zero <= jnp.where(groups.lam > 0, 1 + 2 * jnp.finfo(radii.dtype).eps, 0)
        radii, error = _next_radii(Moments(*moments), radii, groups)
        radii = jnp.where(is_zero, 0, radii)
    error = jnp.where(is_zero | (groups.lam == 0), 0, error)
    if groups.is_concave:
        radii, error = _lower_minimum(leaves, split, groups, radii, error, is_zero, sums)
    error = jnp.where(jnp.isfinite(radii), error, jnp.inf)
    return GroupRoots(split(radii), split(error))


class _Groups(NamedTuple):
    """Vectors with one number per group of all leaves."""

    start: jax.Array
    lam: jax.Array
    knee: jax.Array
    concavity: jax.Array
    is_concave: bool


def _groups(leaves):
    """The `_Groups` of all leaves, and a function that splits a vector into arrays by leaf."""
    start, split = join([leaf.radii for leaf in leaves])

    def joined(name, convex):
        fields = [getattr(leaf.penalty, name) for leaf in leaves]
        filled = [convex if x is None else x for x in fields]
        return join([_per_group(x, leaf.radii) for x, leaf in zip(filled, leaves, strict=True)])[0]

    is_concave = any(leaf.penalty.knee is not None for leaf in leaves)
    return _Groups(start, joined("lam", 0), joined("knee", jnp.inf), joined("concavity", 0), is_concave), split


def _per_group(x, radii):
    """A field of the penalty as one number per group."""
    return jnp.broadcast_to(jnp.asarray(x, radii.dtype), radii.shape)


def _leaf_sums(leaf, radii, reach, sums, is_first):
    """The sum over each group of (rhs / lam)^2 (only in the first pass), and the four `Moments`.

    Args:
        reach: the factor of the metric in h: the radius, or lam at r = 0, so that h is the metric.
    """
    rhs, metric, penalty, axes, _ = leaf
    lam = penalty.lam
    if penalty.knee is not None:
        metric = metric - penalty.concavity
    # q and h share one division. The divisor is at least the smallest normal number, because 0 times infinity would be
    # NaN.
    tiny = jnp.finfo(rhs.dtype).tiny
    inverse = 1 / jnp.maximum(metric * radii + lam, tiny)
    terms = moment_terms(rhs * inverse, metric * (reach * inverse))
    if not is_first:
        moments = sums(terms, axes)
        return (moments[0], *moments)
    at_zero = rhs * (1 / jnp.maximum(lam, tiny))
    return sums([at_zero * at_zero, *terms], axes)


def _next_radii(moments, radii, groups):
    """The radii after a pass, 0 where there is no root, and the bound of `gauss_root`, infinite if it is unknown."""
    from_zero = radii == 0
    is_finite = (moments.total < jnp.inf) & (moments.first < jnp.inf)
    total, first = jnp.where(is_finite, moments.total, 1), jnp.where(is_finite, moments.first, 0)
    # At r = 0 h is the metric, which may have any size, so take its mean as the unit.
    mean = first / jnp.where(total > 0, total, 1)
    unit = jnp.where(from_zero & (mean > 0), mean, 1)
    first, second, third = first / unit, moments.second / unit / unit, moments.third / unit / unit / unit
    # If the higher moments overflow or underflow, use those of the rule with one node, which is Newton's step.
    in_range = is_finite & (second < jnp.inf) & (jnp.abs(third) < jnp.inf) & (third != 0)
    second = jnp.where(in_range, second, first * (first / jnp.where(total > 0, total, 1)))
    third = jnp.where(in_range, third, 0)
    lowest, to_knee = _limits(radii, groups, unit) if groups.is_concave else (None, jnp.inf)
    longest, highest = jnp.minimum(to_knee, FARTHEST), jnp.where(from_zero, jnp.inf, 1)
    tau, error = gauss_root(Moments(total, first, second, third), lowest, highest, longest, num_steps=4)
    known = ~from_zero & (tau > -0.5) & is_finite & (error < jnp.inf)
    # If even the first two moments overflow, the radius is many decades too small.
    tau = jnp.where(is_finite, tau, 2.0**60)
    new = jnp.where(from_zero, groups.lam / unit * tau, radii * (1 + tau))
    if groups.is_concave:
        has_root = (first > 0) & (tau < to_knee)
        new = jnp.where(has_root | (groups.knee == jnp.inf), new, 0)
    # A NaN must stay NaN.
    return jnp.where(jnp.isnan(moments.total), moments.total, new), jnp.where(known, error, jnp.inf)


def _limits(radii, groups, unit):
    """A lower bound on all h for concave penalties, and the tau at the knee; 0 and infinity for convex ones.

    With a concave penalty the entries of metric - concavity are at least -concavity. `1 + h tau` is positive up to the
    knee.
    """
    from_zero, is_convex = radii == 0, groups.knee == jnp.inf
    left = jnp.where(is_convex, 1, groups.knee - radii)
    at_zero = jnp.where(is_convex | (groups.lam == 0), 1, groups.concavity) / unit
    lowest = -jnp.where(from_zero, at_zero, radii / left)
    to_knee = jnp.where(from_zero, 1 / at_zero, left / jnp.where(from_zero, 1, radii))
    return jnp.where(is_convex, 0, lowest), jnp.where(is_convex, jnp.inf, to_knee)


def _lower_minimum(leaves, split, groups, radii, error, is_zero, sums):
    """The radii and errors of the lower of two minima: the stationary point below the knee, and the one beyond it.

    The objective is summed by the same kind of pass as the moments.
    """
    terms = []
    for leaf, r in zip(leaves, split(radii), strict=True):
        rhs, metric, penalty, axes, _ = leaf
        if penalty.knee is None:
            terms.append((r, r, r))  # not used, because a convex penalty has one minimum
            continue
        # Use units in which the knee and the slope at 0 are 1, so that no square overflows.
        push = rhs / jnp.where(penalty.lam > 0, penalty.lam, 1)
        inner = penalty.point(rhs, metric, r)
        outer = rhs / metric / jnp.where(penalty.knee > 0, penalty.knee, 1)
        inner_units = inner / jnp.where(penalty.knee > 0, penalty.knee, 1)
        pull = 0.5 * metric * inner / jnp.where(penalty.lam > 0, penalty.lam, 1)
        terms.append(sums([outer * outer, push * outer, inner_units * (pull - push)], axes))
    square, gain, inner_value = [join(column)[0] for column in zip(*terms, strict=True)]
    outer = jnp.sqrt(square)
    inner = radii / groups.knee
    is_lower = 0.5 - 0.5 * gain < inner_value + inner * (1 - 0.5 * inner)
    is_outer = is_beyond_knee(radii, outer, is_lower, ~is_zero, knee=1)
    is_outer = (is_outer | (groups.lam == 0)) & (groups.knee < jnp.inf)
    outer = outer * jnp.where(groups.knee < jnp.inf, groups.knee, 0)
    return jnp.where(is_outer, outer, radii), jnp.where(is_outer, 0, error)
