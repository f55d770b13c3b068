"""The LASSO: single entries at exactly zero."""

import dataclasses

import jax
import jax.numpy as jnp

from ramda_jax.numerics import norm
from ramda_jax.regularizers.base import widened
from ramda_jax.regularizers.elementwise import ElementwiseRegularizer, soft_threshold
from ramda_jax.typing import Scalar
from ramda_jax.validation import check_non_negative


@dataclasses.dataclass(frozen=True)
class L1(ElementwiseRegularizer):
    """`psi(w) = factor * sum_i |w_i|`: drives single entries to exactly zero.

    In a diagonal metric still in closed form: `w = soft_threshold(rhs, weight) / metric`.

    Args:
        factor: relative weight beside other regularizers of the same optimizer, >= 0.

    Raises:
        ValueError, TypeError: a factor that is negative or no number.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ramda_jax.L1().prox(jnp.array([3.0, -0.5]), 1.0)
        Array([2., 0.], dtype=float32)

    References:
        Tibshirani, `Regression shrinkage and selection via the lasso`, 1996.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        check_non_negative("factor", self.factor)

    def value(self, w: jax.Array) -> jax.Array:
        return self.factor * jnp.sum(jnp.abs(widened(w)))

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        return soft_threshold(x, weight * self.factor)

    def solve_scaled(self, rhs: jax.Array, metric: Scalar, weight: Scalar) -> jax.Array:
        return soft_threshold(rhs, weight * self.factor) / metric

    def screen(self, rhs: jax.Array, weight: Scalar) -> jax.Array:
        return jnp.abs(rhs) <= weight * self.factor

    def zeroing_weight(self, rhs: jax.Array, metric: Scalar) -> jax.Array:
        return jnp.abs(rhs) / self.factor if self.factor else jnp.full_like(rhs, jnp.inf)

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        lam = weight * self.factor
        alive = slope - lam * jnp.sign(w)
        return norm(jnp.where(w == 0, soft_threshold(slope, lam), alive))
