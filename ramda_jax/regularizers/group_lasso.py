"""The group LASSO: whole groups at exactly zero."""

import dataclasses

import jax.numpy as jnp

from ramda_jax.regularizers.base import widened
from ramda_jax.regularizers.groups import GroupRegularizer


@dataclasses.dataclass(frozen=True)
class GroupLasso(GroupRegularizer):
    """`psi(w) = sum_g omega_g ||w_g||_2`: drives whole groups to exactly zero.

    By default a group is what reads one input channel (the row `kernel[i, :]` of a Dense layer, the slice
    `kernel[:, :, i, :]` of a convolution) and weighs the root of its size, as in the experiments of both
    papers. A group of the subproblem is zero iff `||rhs_g|| <= weight omega_g`.

    Args:
        groups: see `GroupRegularizer`.
        group_weight: see `GroupRegularizer`.

    Raises:
        ValueError: an unknown name, repeated axes, a negative weight; at `init`, axes that the leaf lacks.
        TypeError: something that is no name, axes or number.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> rows = ramda_jax.GroupLasso("input", group_weight=1.0)
        >>> kernel = jnp.array([[3.0, 4.0], [0.3, 0.4]])
        >>> rows.value(kernel)
        Array(5.5, dtype=float32)
        >>> rows.prox(kernel, 1.0)  # rows become shorter by 1, or zero
        Array([[2.4, 3.2],
               [0. , 0. ]], dtype=float32)

    References:
        Yuan and Lin, `Model selection and estimation in regression with grouped variables`, 2006.
    """

    def value(self, w):
        w = widened(w)
        return self.weights(w.shape) * jnp.sum(self.norms(w))

    def prox(self, x, weight):
        # r / (r + threshold) instead of 1 - threshold / norm: no cancellation next to the border. A zero
        # group of weight 0 is 0 / 0 in both; there the factor is 1.
        threshold = weight * self.weights(x.shape)
        norms = self.norms(x)
        kept = norms - threshold
        is_zero = norms <= threshold
        factor = jnp.where(is_zero, 0, kept / jnp.where(is_zero, 1, norms))
        return jnp.where(threshold > 0, x * factor, x)

    def screen(self, rhs, weight):
        return self.norms(rhs) <= weight * self.weights(rhs.shape)

    def secular_form(self, rhs, weight):
        """The pair (rhs, lam) of the equation `||rhs_g / (metric r + lam)|| = 1` for the radii r."""
        return rhs, weight * self.weights(rhs.shape)

    def subdifferential_distance(self, w, slope, weight):
        lam = weight * self.weights(w.shape)
        norms = self.norms(w)
        safe = jnp.where(norms == 0, 1, norms)
        alive = self.norms(slope - lam * (w / safe))
        dead = jnp.maximum(self.norms(slope) - lam, 0)
        return jnp.sqrt(jnp.sum(jnp.square(jnp.where(norms == 0, dead, alive))))
