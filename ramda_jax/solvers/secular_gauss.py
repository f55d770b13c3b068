"""One pass from the last radii to the roots of the secular equation, with a bound on the error."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.typing import Scalar

#: The smallest tau: a step reduces a radius by no more than this share.
SHORTEST = -63 / 64


class Moments(NamedTuple):
    """The sums of q^2 h^k over each group for k = 0 to 3, which a pass over the data computes.

    At the radius r of a group q = rhs / (metric r + lam), and h = metric r / (metric r + lam) is in [0, 1).

    Attributes:
        total: of q^2, which is S(r).
        first: of q^2 h.
        second: of q^2 h^2.
        third: of q^2 h^3.
    """

    total: jax.Array
    first: jax.Array
    second: jax.Array
    third: jax.Array


def moment_terms(q: jax.Array, h: jax.Array) -> Moments:
    """The arrays whose sums over each group are the `Moments`; each has the leaf's shape."""
    b = q * h
    return Moments(q * q, q * b, b * b, (b * h) * b)


def gauss_root(
    moments: Moments, lowest: Scalar | None, highest: Scalar, longest: Scalar, num_steps: int
) -> tuple[jax.Array, jax.Array]:
    """The tau > -1 at which the Gauss rule is 1, and a bound on `|S^(1/2) - 1|` there.

    S is `||rhs_g / (metric r + lam)||^2`. At the radius (1 + tau) r it is

        S((1 + tau) r) = sum_i q_i^2 (1 + h_i tau)^-2,

    the integral of a function of h with the weights q^2. The moments give the Gauss rule with two nodes. (The rule with
    one node gives Newton's step for S^(-1/2) = 1.) With the mean c and the variance v of h, and
    a = c + E[(h - c)^3] / v, which is in [0, 1], the rule is

        total ((1 + a tau)^2 + v tau^2) / ((1 + c tau)(1 + a tau) - v tau^2)^2,

    the derivative of tau times the second convergent of the continued fraction of E[1 / (1 + h tau)]. The fourth
    derivative of the function is positive. So the rule is nowhere above S, and its root lies left of the root of S,
    whether r lies left or right of it. The error is of fourth order, and it is bounded without another pass:

        0 <= S - rule <= 5 S(r) tau^4 v a (1 - a) / (1 + min(tau, 0))^6.

    Args:
        moments: the moments of each group.
        lowest: a lower bound on all h, <= 0; None for 0.
        highest: an upper bound on all h. The second result is a bound only if this is 1.
        longest: the largest tau allowed, for which `1 + lowest tau` is positive.
        num_steps: the number of Newton's steps for the root of the rule.

    Returns:
        tau and the bound, one number per group.
    """
    # In the formula mean is c, variance is v and other is a. The nodes of the rule themselves are not needed.
    total = moments.total
    inverse = 1 / jnp.where(total > 0, total, 1)
    mean, mean_square = moments.first * inverse, moments.second * inverse
    variance = jnp.maximum(mean_square - mean * mean, 0)
    skew = moments.third * inverse - mean * (3 * variance + mean * mean)
    # If the variance is only rounding, one node is enough: the skewness would only add noise.
    spread = variance > 16 * jnp.finfo(total.dtype).eps * (mean * mean)
    other = mean + skew / jnp.where(spread, variance, 1)
    other = jnp.where(spread, jnp.clip(other, 0 if lowest is None else lowest, highest), mean)
    product = mean * other - variance

    def within(tau):
        return jnp.minimum(jnp.maximum(tau, SHORTEST), longest)

    # Newton's method for rule(tau)^(-1/2) = 1, which is concave in tau: the first step ends left of the root from
    # either side. From tau = 0 it is the step of the rule with one node.
    tau = within((jnp.sqrt(total) - 1) / jnp.where(mean > 0, mean, 1))
    length = tau
    for _ in range(num_steps):
        x = 1 + other * tau
        top = x * x + variance * (tau * tau)
        root = 1 + tau * (mean + other + tau * product)
        slope = top * (mean + other + 2 * tau * product) - root * (other * x + variance * tau)
        # Only rounding makes a step negative. Next to the border of zero it could make a radius negative.
        length = jnp.maximum((jnp.sqrt(total * top) - root) * top / jnp.where(slope > 0, slope, 1), 0)
        tau = within(tau + length)
    fourth = tau * tau
    fourth = fourth * fourth
    # `variance other (1 - other)` is at least the spread of the fourth moments of probabilities on [0, 1] that share
    # their first three (Dette and Studden, `The Theory of Canonical Moments`, 1997, section 1.3).
    from_lowest = other if lowest is None else other - lowest
    remainder = variance * from_lowest * (1 - other) * fourth * (2.5 * total)
    left = 1 + jnp.minimum(tau, 0 if lowest is None else lowest * tau)
    left = left * left
    error = (1.5 * (length * length) * (left * left) + remainder) / (left * left * left)
    # The rounding of the moments grows with the distance. A radius far from the start of the pass is a good start for
    # the next pass, but not accurate enough to stop.
    return tau, jnp.where(jnp.abs(mean * tau) < 0.25, error, jnp.maximum(error, 1))
