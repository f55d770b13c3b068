"""One pass over the data of one or several leaves, and the next radii.

The groups of all leaves are one vector, so that kernels and compile time do not grow with the number of leaves
(`python -m benchmarks.compiled` counts both).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.regularizers.groups import NormPenalty, is_beyond_knee
from ramda_jax.solvers.secular_gauss import Moments, gauss_root, moment_terms
from ramda_jax.typing import Axes, Scalar
from ramda_jax.xla.execution import PLAIN, Execution
from ramda_jax.xla.many_leaves import join, splitter
from ramda_jax.xla.one_program import one_program

#: The largest tau of a pass, by the bits of the dtype: its fourth power must be in the range of the dtype.
FARTHEST = {32: 2.0**20, 64: 2.0**160}
#: The tau of a pass whose sums overflow. `S((1 + tau) r)` is at least `S(r) / (1 + tau)^2`, so it is left of the root.
#: At r = 0, in units of lam, it may be right of it where the metric is large.
BEYOND_RANGE = {32: 2.0**60, 64: 2.0**480}


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


class Groups(NamedTuple):
    """The groups of all leaves as vectors with one number per group; for a single leaf as arrays of its own shapes.

    Attributes:
        leaves: the equations.
        split: a function that splits a vector into arrays by leaf.
        split_for_pass: the same for a pass over the data (`Execution.passes_know_starts`).
        start: `LeafEquations.radii`, and 0 where it is beyond the knee or not finite.
        penalty: the penalty of the group norms; with an infinite knee for the convex ones if another is concave.
    """

    leaves: Sequence[LeafEquations]
    split: Callable[[jax.Array], list[jax.Array]]
    split_for_pass: Callable[[jax.Array], list[jax.Array]]
    start: jax.Array
    penalty: NormPenalty

    @property
    def is_concave(self) -> bool:
        """Whether any penalty is concave."""
        return self.penalty.knee is not None


def join_groups(leaves: Sequence[LeafEquations], run: Execution) -> Groups:
    """The `Groups` of all leaves."""
    start, shapes = join([leaf.radii for leaf in leaves]), [leaf.radii.shape for leaf in leaves]
    split = splitter(shapes, run.hidden)
    split_for_pass = splitter(shapes, PLAIN.hidden) if run.passes_know_starts else split

    def joined(name, convex):
        fields = [getattr(leaf.penalty, name) for leaf in leaves]
        return per_group([convex if x is None else x for x in fields], leaves)

    penalty, knee = NormPenalty(joined("lam", 0)), jnp.inf
    if any(leaf.penalty.knee is not None for leaf in leaves):
        knee = joined("knee", jnp.inf)
        penalty = penalty._replace(concavity=joined("concavity", 0), knee=knee)
    return Groups(leaves, split, split_for_pass, jnp.where(start < knee, start, 0), penalty)


def per_group(fields: Sequence[Scalar], leaves: Sequence[LeafEquations]) -> jax.Array:
    """A field of the penalties, by leaf, as a vector of all groups; of a single leaf as it is."""
    dtype = leaves[0].radii.dtype
    if len(leaves) == 1:
        return jnp.asarray(fields[0], dtype)
    shapes = [leaf.radii.shape for leaf in leaves]
    return join([jnp.broadcast_to(jnp.asarray(x, dtype), shape) for x, shape in zip(fields, shapes, strict=True)])


def moments_at(
    groups: Groups, radii: jax.Array, run: Execution, sums_at_zero: bool = False
) -> tuple[list[jax.Array], Moments]:
    """The sum of (rhs / lam)^2 over each group in a list, empty without `sums_at_zero`; and the `Moments` at the radii.

    There is a step from r = 0 too. With h = metric instead of metric r / (metric r + lam)

        S(lam tau) = sum_i (rhs_i / lam)^2 (1 + h_i tau)^-2,

    so the same rule gives the root r = lam tau.
    """
    # The factor of the metric in h.
    reach = jnp.where(radii == 0, groups.penalty.lam, radii)
    of_leaves = zip(groups.leaves, groups.split_for_pass(radii), groups.split_for_pass(reach), strict=True)
    by_leaf = [_leaf_sums(leaf, r, factor, run, sums_at_zero) for leaf, r, factor in of_leaves]
    columns = [join(column) for column in zip(*by_leaf, strict=True)]
    return columns[:-4], Moments(*columns[-4:])


def _leaf_sums(leaf, radii, reach, run, sums_at_zero):
    """The sums of one leaf over each group."""
    rhs, metric, penalty, axes, _ = leaf
    lam = penalty.lam
    if penalty.knee is not None:
        metric = metric - penalty.concavity
    # The divisor is at least the smallest normal number, because 0 times infinity would be NaN.
    tiny = jnp.finfo(rhs.dtype).tiny
    terms = moment_terms(*run.quotients(rhs, metric, reach, jnp.maximum(metric * radii + lam, tiny)))
    if not sums_at_zero:
        return run.sums(terms, axes)
    at_zero = rhs * (1 / jnp.maximum(lam, tiny))
    return run.sums([at_zero * at_zero, *terms], axes)


class PassStep(NamedTuple):
    """What a pass finds; one number per group.

    Attributes:
        radii: the next radii; 0 where there is no root.
        error: the bound of `gauss_root` at the radii; infinite where it is unknown.
        has_root: whether the rule has a root below the knee.
        is_far_right: whether the root of the rule is below half of the radius, or does not exist. The radius is then
            reduced by a limited factor only.
    """

    radii: jax.Array
    error: jax.Array
    has_root: jax.Array
    is_far_right: jax.Array


@one_program("num_steps")
def next_radii(moments: Moments, radii: jax.Array, penalty: NormPenalty, num_steps: int) -> PassStep:
    """The `PassStep` that follows from the moments at the radii."""
    from_zero, bits = radii == 0, jnp.finfo(radii.dtype).bits
    is_finite = (moments.total < jnp.inf) & (moments.first < jnp.inf)
    total, first = jnp.where(is_finite, moments.total, 1), jnp.where(is_finite, moments.first, 0)
    # At r = 0 h is the metric, which may have any size, so take its mean as the unit.
    inverse = 1 / jnp.where(total > 0, total, 1)
    mean = first * inverse
    per_unit = jnp.where(from_zero, 1 / jnp.where(mean > 0, mean, 1), 1)
    first, second = per_unit * first, per_unit * (per_unit * moments.second)
    third = per_unit * (per_unit * (per_unit * moments.third))
    # If the higher moments overflow or underflow, use those of the rule with one node, which is Newton's step.
    in_range = is_finite & (second < jnp.inf) & (jnp.abs(third) < jnp.inf) & (third != 0)
    second = jnp.where(in_range, second, first * (first * inverse))
    third = jnp.where(in_range, third, 0)
    lowest, to_knee = (None, jnp.inf) if penalty.knee is None else _limits(radii, penalty, per_unit)
    longest, highest = jnp.minimum(to_knee, FARTHEST[bits]), jnp.where(from_zero, jnp.inf, 1)
    tau, error = gauss_root(Moments(total, first, second, third), lowest, highest, longest, num_steps)
    is_far_right = ~from_zero & (tau <= -0.5)
    known = ~from_zero & ~is_far_right & is_finite & (error < jnp.inf)
    # If even the first two moments overflow, the radius is many decades too small.
    tau = jnp.where(is_finite, tau, BEYOND_RANGE[bits])
    new = jnp.where(from_zero, penalty.lam * per_unit * tau, radii * (1 + tau))
    has_root = jnp.ones_like(radii, bool)
    if penalty.knee is not None:
        has_root = (penalty.knee == jnp.inf) | ((first > 0) & (tau < to_knee))
        new = jnp.where(has_root, new, 0)
    # A NaN must stay NaN.
    new = jnp.where(jnp.isnan(moments.total), moments.total, new)
    return PassStep(new, jnp.where(known, error, jnp.inf), has_root, is_far_right)


def _limits(radii, penalty, per_unit):
    """A lower bound on all h for concave penalties, and the tau at the knee; 0 and infinity for convex ones.

    With a concave penalty the entries of metric - concavity are at least -concavity. `1 + h tau` is positive up to the
    knee.
    """
    from_zero, is_convex = radii == 0, penalty.knee == jnp.inf
    left = jnp.where(is_convex, 1, penalty.knee - radii)
    at_zero = jnp.where(is_convex | (penalty.lam == 0), 1, penalty.concavity) * per_unit
    lowest = -jnp.where(from_zero, at_zero, radii / left)
    to_knee = jnp.where(from_zero, 1 / at_zero, left / jnp.where(from_zero, 1, radii))
    return jnp.where(is_convex, 0, lowest), jnp.where(is_convex, jnp.inf, to_knee)


def lower_minimum(
    groups: Groups, radii: jax.Array, error: jax.Array, is_zero: jax.Array, run: Execution
) -> tuple[jax.Array, jax.Array]:
    """The radii and errors of the lower of two minima: the stationary point below the knee, and the one beyond it.

    The objective is summed by the same kind of pass as the moments.
    """
    terms = []
    for leaf, r in zip(groups.leaves, groups.split_for_pass(radii), strict=True):
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
        terms.append(run.sums([outer * outer, push * outer, inner_units * (pull - push)], axes))
    square, gain, inner_value = [join(column) for column in zip(*terms, strict=True)]
    outer = jnp.sqrt(square)
    knee = groups.penalty.knee
    inner = radii / knee
    is_lower = 0.5 - 0.5 * gain < inner_value + inner * (1 - 0.5 * inner)
    is_outer = is_beyond_knee(radii, outer, is_lower, ~is_zero, knee=1)
    is_outer = (is_outer | (groups.penalty.lam == 0)) & (knee < jnp.inf)
    outer = outer * jnp.where(knee < jnp.inf, knee, 0)
    return jnp.where(is_outer, outer, radii), jnp.where(is_outer, 0, error)
