"""ProxSSI's direction: Adam's in the metric without bias correction."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from ramda_jax.numerics import weight_of_average


class UncorrectedAdamState(NamedTuple):
    """State of `scale_by_uncorrected_adam`: Adam's, in a class of its own, so that neither is taken for the other.

    Attributes:
        count: int32 `[]`, steps taken.
        mu: m_t, the average of the gradients.
        nu: v_t, that of their squares.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # as Optax names it
    mu: optax.Updates
    nu: optax.Updates


def scale_by_uncorrected_adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> optax.GradientTransformation:
    """`sqrt(1 - b2^t) / (1 - b1^t) m_t / (sqrt(v_t) + eps)`: the bias correction in the step, not in the metric.

    As AdamW of the `transformers` package has it, and ProxSSI's code after it. Without eps it is Adam's
    direction; what differs is the metric, `sqrt(v_t) + eps`, in which the prox is taken.

    Args:
        b1, b2: decay of the averages of the gradient and its square, in [0, 1).
        eps: > 0, beside the uncorrected root.
    """
    adam = optax.scale_by_adam(b1=b1, b2=b2)

    def init(params) -> Any:
        return UncorrectedAdamState(*cast("Any", adam.init(params)))

    def update(updates, state: Any, params=None) -> tuple[Any, Any]:
        _, made = adam.update(updates, state, params)
        state = UncorrectedAdamState(*cast("Any", made))

        def direction(m, v):
            return bias_correction(state.count, b1, b2, m.dtype) * m / (jnp.sqrt(v) + eps)

        return jax.tree.map(direction, state.mu, state.nu), state

    return optax.GradientTransformation(init, update)


def bias_correction(count: jax.Array, b1: float, b2: float, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`sqrt(1 - b2^t) / (1 - b1^t)`, a scalar of `dtype`."""
    return jnp.sqrt(weight_of_average(b2, count, dtype)) / weight_of_average(b1, count, dtype)
