"""The roots of the secular equations of one or several leaves, by passes over the data (`secular_pass`).

There are two stopping rules. `roots_to_rounding` goes on until every group is exact to rounding, in a loop.
`roots_by_passes` takes a fixed number of passes: on accelerators, without branches and loops, the device never waits
for its host.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.solvers.secular_pass import LeafEquations, join_groups, lower_minimum, moments_at, next_radii, per_group
from ramda_jax.typing import Scalar
from ramda_jax.xla.execution import Execution

#: The number of passes over the data, by the bits of the dtype. In float32 two passes are enough for nearly all
#: subproblems of real training, also from cold starts (`python -m benchmarks.fixed_passes`).
PASSES = {32: 2, 64: 3}


class Roots(NamedTuple):
    """The result of the passes.

    Attributes:
        radii: the norms of the solution's groups by leaf, with axes of length one inside the groups; exactly 0 where
            the group is zero.
        errors: bounds on `|S(radii)^(1/2) - 1|`, apart from rounding: a vector of all groups, or for a single leaf an
            array of its radii's shape; 0 where the root is exact, infinite where no bound is known.
        passes: int32 `[]`, the number of passes.
    """

    radii: list[jax.Array]
    errors: jax.Array
    passes: jax.Array


def roots_to_rounding(leaves: Sequence[LeafEquations], run: Execution, most: int) -> Roots:
    """The roots of several leaves' equations of one dtype, exact to rounding.

    A start may lie on either side of its root. After the first pass a radius is left of the root, or it is 0, and the
    next pass decides exactly whether it stays 0: zero is stationary if and only if `||rhs / lam|| <= 1`. From the left
    a pass goes at least as far as Newton's step, and never beyond the root (`gauss_root`). Only where the sums overflow
    at 0 may a radius land on the right. The next passes reduce it. A group that is done keeps its radius, so that its
    result does not depend on other groups.

    Args:
        leaves: the equations.
        run: how the passes are run.
        most: the largest number of passes.
    """
    groups = join_groups(leaves, run)
    eps, tiny = jnp.finfo(groups.start.dtype).eps, jnp.finfo(groups.start.dtype).tiny
    # Without a weight every radius gives the same point, rhs / metric.
    is_free = groups.penalty.lam == 0

    def is_unfinished(carry):
        errors, number = carry[1], carry[-1]
        return (run.largest(jnp.max(errors, initial=0)) > eps) & (number < most)

    def one_pass(carry):
        radii, errors, is_zero, number = carry
        is_done, from_zero = errors <= eps, radii == 0
        _, moments = moments_at(groups, radii, run)
        step = next_radii(moments, radii, groups.penalty, num_steps=2)
        zero_now = (from_zero | is_free) & (moments.total <= jnp.where(is_free, 0, 1 + 2 * eps))
        settled = zero_now | is_free | jnp.isnan(step.radii)
        if groups.is_concave:
            # Only from the left is it certain that there is no root below the knee.
            settled |= ~step.has_root & (from_zero | (number > 0))
        new = jnp.where(is_free & ~jnp.isnan(step.radii), 1, step.radii)
        new = jnp.where(zero_now | (step.is_far_right & (number == 0) & ~settled), 0, new)
        errors = jnp.where(is_done, errors, jnp.where(settled, 0, step.error))
        return jnp.where(is_done, radii, new), errors, jnp.where(is_done, is_zero, zero_now), number + 1

    # Without a weight start where the sums underflow only if the point does.
    radii = jnp.where(is_free, jnp.sqrt(tiny), groups.start)
    first = radii, jnp.full_like(radii, jnp.inf), jnp.zeros_like(radii, bool), jnp.zeros([], jnp.int32)
    radii, error, is_zero, number = jax.lax.while_loop(is_unfinished, one_pass, first)
    return _roots(groups, radii, error, is_zero, number, run)


def roots_by_passes(leaves: Sequence[LeafEquations], run: Execution) -> Roots:
    """The roots of several leaves' equations of one dtype, with a fixed number of passes over the data.

    The last pass also sums `(rhs / lam)^2`. Zero is stationary if and only if this sum is at most 1, so the pass
    decides exactly which groups are zero. `errors` bounds the remaining error of the others. The next step's solve
    continues from there.

    A concave penalty needs a third pass. It compares the objective at the root below the knee with that at the point
    beyond it.

    Args:
        leaves: the equations.
        run: how the passes are run.
    """
    groups = join_groups(leaves, run)
    # Without a weight every nonzero radius gives the same point, rhs / metric.
    radii = jnp.where((groups.start > 0) | (groups.penalty.lam > 0), groups.start, 1)
    passes = PASSES[jnp.finfo(radii.dtype).bits]
    for _ in range(passes - 1):
        # From 0 a step leads below 0 if the group is zero, which only the last pass decides.
        _, moments = moments_at(groups, radii, run)
        radii = jnp.maximum(next_radii(moments, radii, groups.penalty, num_steps=4).radii, 0)
    # The first pass has a sum less. XLA for GPUs then makes it one kernel with the writing of V and U for more leaves:
    # 66.2 to 59.6 bytes a parameter for RAMDA's step of a decoder on an H100 (`benchmarks/NOTES.md`).
    (at_zero,), moments = moments_at(groups, radii, run, sums_at_zero=True)
    is_zero = at_zero <= jnp.where(groups.penalty.lam > 0, 1 + 2 * jnp.finfo(radii.dtype).eps, 0)
    step = next_radii(moments, radii, groups.penalty, num_steps=4)
    radii = jnp.where(is_zero, 0, step.radii)
    error = jnp.where(is_zero | (groups.penalty.lam == 0), 0, step.error)
    return _roots(groups, radii, error, is_zero, jnp.asarray(passes, jnp.int32), run)


def _roots(groups, radii, error, is_zero, passes, run):
    """The `Roots` after the last pass; `is_zero` says where zero is stationary."""
    if groups.is_concave:
        radii, error = lower_minimum(groups, radii, error, is_zero, run)
    error = jnp.where(jnp.isfinite(radii), error, jnp.inf)
    return Roots(groups.split(radii), error, passes)


def left_over(errors: jax.Array, lam: Scalar) -> tuple[jax.Array, jax.Array]:
    """How far the groups are from their exact solutions.

    Args:
        errors: `Roots.errors`, one number per group, any shape.
        lam: the slopes of the penalty at 0; a scalar, or of the shape of `errors`.

    Returns:
        A bound on the distance of 0 to the subdifferential over all groups, apart from rounding, `[]`; and a bool `[]`,
        whether all groups are at rounding.
    """
    bounds = jnp.where(errors > 0, jnp.where(lam > 0, lam, 1) * errors, 0)
    # Both results are maxima over all groups, so that on a mesh XLA makes one all-reduce of them.
    residual = jnp.max(bounds, initial=0) * jnp.sqrt(jnp.asarray(errors.size, errors.dtype))
    return residual, jnp.max(errors, initial=0) <= jnp.finfo(errors.dtype).eps


def left_over_of_all(leaves: Sequence[LeafEquations], errors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`left_over` of all groups of several leaves; `errors` as in `Roots`."""
    return left_over(errors, per_group([leaf.penalty.lam for leaf in leaves], leaves))
