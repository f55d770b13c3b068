"""No regularizer: psi = 0."""

import dataclasses

import jax
import jax.numpy as jnp

from ramda_jax.numerics import norm
from ramda_jax.regularizers.base import Regularizer, widened
from ramda_jax.typing import Axes, Scalar


@dataclasses.dataclass(frozen=True)
class Null(Regularizer):
    """`psi(w) = 0`: the leaf is trained by the same method without a regularizer.

    It means the same as None in a mapping or tree of regularizers.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ramda_jax.Null().prox(jnp.array([1.0, -2.0]), 3.0)
        Array([ 1., -2.], dtype=float32)
    """

    elementwise = True

    def value(self, w: jax.Array) -> jax.Array:
        return jnp.zeros([], widened(w).dtype)

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        del weight
        return x

    def inner_axes(self, ndim: int) -> Axes:
        return ()

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        return norm(slope)
