"""The LASSO: single entries at exactly zero."""

import dataclasses

import jax
import jax.numpy as jnp

from ramda_jax.numerics import norm
from ramda_jax.regularizers.base import Regularizer, widened
from ramda_jax.regularizers.elementwise import ElementwiseRegularizer, soft_threshold
from ramda_jax.typing import Scalar
from ramda_jax.validation import check_flag, check_non_negative


@dataclasses.dataclass(frozen=True)
class L1(ElementwiseRegularizer):
    """`psi(w) = factor * sum_i |w_i|`: drives single entries to exactly zero.

    The subproblem has a closed form in any diagonal metric: `w = soft_threshold(rhs, weight * factor) / metric`.

    Args:
        factor: a number >= 0, the weight relative to other regularizers of the same optimizer.
        non_negative: whether entries must be at least 0; then `w = max(rhs - weight * factor, 0) / metric`. With a
            factor of 0 this is the only constraint.

    Raises:
        ValueError: factor is negative.
        TypeError: factor is not a number, or non_negative is not a bool.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ramda_jax.L1().prox(jnp.array([3.0, -0.5]), 1.0)
        Array([2., 0.], dtype=float32)

    References:
        Tibshirani, `Regression shrinkage and selection via the lasso`, 1996.
    """

    factor: float = 1.0
    non_negative: bool = False

    def __post_init__(self) -> None:
        check_non_negative("factor", self.factor, schedules=False)
        check_flag("non_negative", self.non_negative)

    def __mul__(self, number: float) -> Regularizer:
        # Keep the class, unless there is a constraint, because 0 times a constraint is not a constraint.
        if self.non_negative:
            return super().__mul__(number)
        check_non_negative("factor", number, schedules=False)
        return dataclasses.replace(self, factor=float(self.factor * number))

    def value(self, w: jax.Array) -> jax.Array:
        w = widened(w)
        value = self.factor * jnp.sum(jnp.abs(w))
        return jnp.where(jnp.any(w < 0), jnp.inf, value) if self.non_negative else value

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        return self._reduced(x, weight)

    def solve_scaled(self, rhs: jax.Array, metric: Scalar, weight: Scalar) -> jax.Array:
        return self._reduced(rhs, weight) / metric

    def screen(self, rhs: jax.Array, weight: Scalar) -> jax.Array:
        if self.non_negative:
            return (rhs <= weight * self.factor) & (weight > 0)
        return jnp.abs(rhs) <= weight * self.factor

    def zeroing_weight(self, rhs: jax.Array, metric: Scalar) -> jax.Array:
        size = jnp.where(rhs <= 0, 0, rhs) if self.non_negative else jnp.abs(rhs)
        return size / self.factor if self.factor else jnp.full_like(rhs, jnp.inf)

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        lam = weight * self.factor
        alive = slope - lam * jnp.sign(w)
        distance = norm(jnp.where(w == 0, self._reduced(slope, weight), alive))
        return jnp.where(jnp.any((w < 0) & (weight > 0)), jnp.inf, distance) if self.non_negative else distance

    def _reduced(self, rhs, weight):
        if not self.non_negative:
            return soft_threshold(rhs, weight * self.factor)
        # A NaN is not zero, so it is kept.
        return jnp.where((weight > 0) & (rhs <= weight * self.factor), 0, rhs - weight * self.factor)
