"""The base class of sums over single entries, and soft thresholding."""

import jax
import jax.numpy as jnp

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.typing import Axes, Scalar


def soft_threshold(x: jax.Array, threshold: Scalar) -> jax.Array:
    """`sign(x) max(|x| - threshold, 0)`, the prox of `threshold ||x||_1`; NaN stays NaN."""
    # Compute it as a difference, so that no entry becomes -0.0.
    return x - jnp.clip(x, -threshold, threshold)


class ElementwiseRegularizer(Regularizer):
    """A sum over single entries: `solve_scaled` must hold for any diagonal metric, entry by entry."""

    elementwise = True

    def inner_axes(self, ndim: int) -> Axes:
        return ()
