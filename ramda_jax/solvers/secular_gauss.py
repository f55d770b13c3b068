"""One pass from the last radii to the roots of the secular equation, with a bound of what is missing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.typing import Axes, Scalar, Sums
from ramda_jax.xla.reductions import plain_sums

#: The smallest tau: a radius is not made smaller by more than this at once.
SHORTEST = -63 / 64


class GaussStep(NamedTuple):
    """Where one pass has come to; one number per group, with axes of length one inside the groups.

    Attributes:
        radii: left of the root; 0 where the group is zero, and where the pass has found out nothing.
        error: bound on `|S(radii)^(1/2) - 1|`, rounding aside; 0 where the group is zero, infinite where the pass has
            found out nothing.
    """

    radii: jax.Array
    error: jax.Array


def gauss_step(
    rhs: jax.Array, metric: jax.Array, lam: Scalar, axes: Axes, radii: jax.Array, sums: Sums = plain_sums
) -> GaussStep:
    """Nearer to the roots of `S(r) = ||rhs_g / (metric r + lam)||^2 = 1`, all groups at once, by one pass.

    With q = rhs / (metric r + lam) and h = metric r / (metric r + lam), in [0, 1), at the radius r of a group

        S((1 + tau) r) = sum_i q_i^2 (1 + h_i tau)^-2,

    the integral of a function of h by the weights q^2. The sums of q^2 h^k for k = 0 to 3 give the Gauss rule with
    two nodes; the root of the rule is the next radius. (The rule with one node gives Newton's step of `newton_root`.)
    As the function's fourth derivative is positive, the rule is nowhere above S, and its root is left of S's, from
    whichever side one comes. The error is of fourth order, and bounded without another pass: with v and a of
    `gauss_root`

        0 <= S - rule <= 5 S(r) tau^4 v a (1 - a) / (1 + min(tau, 0))^6.

    At r = 0 a pass only finds out whether the group stays zero.

    Args:
        rhs: the right-hand side, any shape, float32 or float64.
        metric: positive, broadcasts against rhs.
        lam: weight of the norm, >= 0; a scalar or one number per group.
        axes: the axes inside a group.
        radii: where to start, >= 0, one number per group with axes of length one inside the groups.
        sums: how to sum several arrays over axes; `Execution.sums`.
    """

    is_zero = radii == 0
    growth = metric * radii
    t = growth + jnp.where(is_zero & (lam == 0), 1, lam)
    q, h = rhs / t, growth / t
    b = q * h
    total, s1, s2, s3 = sums((q * q, q * b, b * b, (b * h) * b), axes)
    tau, error = gauss_root(total, s1, s2, s3)
    # Not where the weight is 0 too: what S is there cannot be told from q.
    stays_zero = is_zero & (total <= 1 + 2 * jnp.finfo(rhs.dtype).eps) & (lam > 0)
    # From many decades away the rule's own numbers overflow: such a radius is no better than none.
    known = ~is_zero & (tau > -0.5) & (total < jnp.inf) & (error < jnp.inf)
    radii = jnp.where(known, radii * (1 + tau), 0)
    return GaussStep(radii, jnp.where(known, error, jnp.where(stays_zero, 0, jnp.inf)))


def gauss_root(
    total: jax.Array,
    s1: jax.Array,
    s2: jax.Array,
    s3: jax.Array,
    lowest: Scalar | None = None,
    highest: Scalar = 1.0,
    longest: Scalar | None = None,
    num_steps: int = 2,
) -> tuple[jax.Array, jax.Array]:
    """tau > -1 where the Gauss rule has the value 1, and a bound on `|S^(1/2) - 1|` there.

    With the mean c and the variance v of h, and a = c + E[(h - c)^3] / v, which is in [0, 1], the rule is

        total ((1 + a tau)^2 + v tau^2) / ((1 + c tau)(1 + a tau) - v tau^2)^2,

    the derivative of tau times the second convergent of the continued fraction of E[1 / (1 + h tau)].

    Args:
        total: the sum of q^2 over each group.
        s1: that of q^2 h; s2 that of q^2 h^2, s3 that of q^2 h^3.
        lowest: below all h, <= 0; None for 0.
        highest: above all h. The bound is one for 1 only.
        longest: the largest tau, where `1 + lowest tau` is positive; None for no end.
        num_steps: of Newton's method for the root of the rule.
    """
    inverse = 1 / jnp.where(total > 0, total, 1)
    mean, second = s1 * inverse, s2 * inverse
    variance = jnp.maximum(second - mean * mean, 0)
    skew = s3 * inverse - mean * (3 * variance + mean * mean)
    # Where the variance is rounding one node is enough, and what the skewness would say of the other is noise.
    spread = variance > 16 * jnp.finfo(total.dtype).eps * (mean * mean)
    other = mean + skew / jnp.where(spread, variance, 1)
    other = jnp.where(spread, jnp.clip(other, 0 if lowest is None else lowest, highest), mean)
    product = mean * other - variance

    def within(tau):
        tau = jnp.maximum(tau, SHORTEST)
        return tau if longest is None else jnp.minimum(tau, longest)

    # Newton's method for rule(tau)^(-1/2) = 1, concave in tau: from either side the first step lands left of the
    # root. From tau = 0 that is the step of the rule with one node.
    tau = within((jnp.sqrt(total) - 1) / jnp.where(mean > 0, mean, 1))
    length = tau
    for _ in range(num_steps):
        x = 1 + other * tau
        top = x * x + variance * (tau * tau)
        root = 1 + tau * (mean + other + tau * product)
        slope = top * (mean + other + 2 * tau * product) - root * (other * x + variance * tau)
        length = (jnp.sqrt(total * top) - root) * top / jnp.where(slope > 0, slope, 1)
        tau = within(tau + length)
    fourth = tau * tau
    fourth = fourth * fourth
    # `variance other (1 - other)` is at least the spread of the fourth moments of probabilities on [0, 1] that share
    # their first three (Dette and Studden, `The Theory of Canonical Moments`, 1997, section 1.3).
    from_lowest = other if lowest is None else other - lowest
    remainder = 2.5 * total * fourth * (variance * from_lowest * (1 - other))
    left = 1 + jnp.minimum(tau, 0 if lowest is None else lowest * tau)
    left = left * left
    error = (1.5 * (length * length) * (left * left) + remainder) / (left * left * left)
    # The moments' rounding grows with the distance: from afar the point is good to start from, and not to stay at.
    return tau, jnp.where(jnp.abs(mean * tau) < 0.25, error, jnp.maximum(error, 1))
