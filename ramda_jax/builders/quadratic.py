"""The quadratic model of the loss, which a method hands to the solver."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ramda_jax.regularizers.base import Regularizer


class QuadraticModel(NamedTuple):
    """`linear_factor <linear, W> + 1/2 ||W - anchor||^2_metric + weight * psi(W)`, to be minimised over W.

    A model builder makes a model from the gradients, and `proximal_point` minimises it. The sign convention is the one
    above: `linear_factor` has a plus. In a chain `linear`, `anchor` and `metric` are trees of the parameters'
    structure; the properties and methods below, except `leaves`, work on the model of one leaf.

    Attributes:
        linear: the coefficient of W, without `linear_factor`; the parameters' shapes, in the dtype of the sums (at
            least float32).
        anchor: the point that the quadratic is centred on; the parameters' shapes and dtypes.
        metric: the positive diagonal of the quadratic. For each leaf an array of its shape, or of shape `[]` for a
            multiple of the identity.
        weight: the multiplier of psi, a scalar >= 0. The builder gives it for `strength = 1`.
        objective_scale: the factor between the model and the NeurIPS paper's objective (equations (4) and (6)), a
            scalar. A tolerance on the gradient of that objective is multiplied by it. 1 for dual averaging, eta_t for
            the methods that step from the last iterate.
        linear_factor: the multiplier of `linear`, a scalar. With it `linear` may be an array that a state holds anyway;
            the product would be one more array in memory.
        weight_is_sum: whether `weight` is a sum over the steps of a stage, as in dual averaging. A strength that moves
            (`Target`) then weighs only the terms that are added from now on.
    """

    linear: Any
    anchor: Any
    metric: Any
    weight: Any
    objective_scale: Any = 1.0
    linear_factor: Any = 1.0
    weight_is_sum: Any = False

    @property
    def slope(self) -> jax.Array:
        """`linear_factor * linear`, the coefficient of W."""
        return self.linear_factor * self.linear

    @property
    def center(self) -> jax.Array:
        """`anchor - slope / metric`, the minimiser without psi; where the slope is 0 it is the anchor, bit for bit."""
        return self.anchor - self.slope / self.metric

    @property
    def rhs(self) -> jax.Array:
        """`metric * anchor - slope`, which needs no division.

        With the group norm a group of the minimiser is zero iff `||rhs_g|| <= weight_g`, also for a tiny metric.
        """
        return self.metric * self.anchor - self.slope

    def center_if_weightless(self, w: jax.Array) -> jax.Array:
        """`w`, or the centre if the weight is 0, so that a learning rate of 0 keeps every bit of the parameters."""
        return jnp.where(self.weight == 0, self.center, w)

    def smooth_value(self, w: jax.Array, where: jax.Array | None = None) -> jax.Array:
        """`<slope, w - anchor> + 1/2 ||w - anchor||^2_metric`, summed over the entries in `where`."""
        step = w - self.anchor
        terms = step * (self.slope + 0.5 * (self.metric * step))
        return jnp.sum(terms if where is None else jnp.where(where, terms, 0))

    def objective(self, regularizer: Regularizer, w: jax.Array) -> jax.Array:
        """`<slope, w - anchor> + 1/2 ||w - anchor||^2_metric + weight psi(w)`."""
        return self.smooth_value(w) + self.weight * regularizer.value(w)

    def leaves(self) -> list["QuadraticModel"]:
        """The models of the single leaves, in flattening order, all in the dtype of `linear`."""
        fields = (self.linear, self.anchor, self.metric)
        return [
            QuadraticModel(
                v,
                anchor.astype(v.dtype),
                metric.astype(v.dtype),
                jnp.asarray(self.weight, v.dtype),
                jnp.asarray(self.objective_scale, v.dtype),
                jnp.asarray(self.linear_factor, v.dtype),
                self.weight_is_sum,
            )
            for v, anchor, metric in zip(*map(jax.tree.leaves, fields), strict=True)
        ]


@runtime_checkable
class ModelState(Protocol):
    """What `eval_params` needs from a model builder's state to compute the last step's W_hat again.

    It is a named tuple with the attribute and the method below. A builder that is used with c_t = 1 only needs neither,
    because the parameters are then W_hat.

    Attributes:
        model_step: int32 `[]`, steps taken.
    """

    model_step: jax.Array

    def quadratic_model(self) -> QuadraticModel:
        """The model of the last step, of trees, for `strength = 1`."""
        ...
