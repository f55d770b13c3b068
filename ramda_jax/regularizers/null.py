"""No regularizer: psi = 0."""

import dataclasses

import jax.numpy as jnp

from ramda_jax.numerics import norm
from ramda_jax.regularizers.base import Regularizer, widened


@dataclasses.dataclass(frozen=True)
class Null(Regularizer):
    """`psi(w) = 0`: the leaf is trained by the same method without a regularizer.

    The same as None in a mapping or tree of regularizers.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ramda_jax.Null().prox(jnp.array([1.0, -2.0]), 3.0)
        Array([ 1., -2.], dtype=float32)
    """

    elementwise = True

    def value(self, w):
        return jnp.zeros([], widened(w).dtype)

    def prox(self, x, weight):
        del weight
        return x

    def inner_axes(self, ndim):
        return ()

    def subdifferential_distance(self, w, slope, weight):
        return norm(slope)
