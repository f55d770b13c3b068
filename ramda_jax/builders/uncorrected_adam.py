"""ProxSSI's direction: Adam's in the metric without bias correction."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from ramda_jax.numerics import weight_of_average


class UncorrectedAdamState(NamedTuple):
    """State of `scale_by_uncorrected_adam`: the fields of Adam's, in another class, so that the two are not confused.

    Attributes:
        count: int32 `[]`, steps taken.
        mu: m_t, the average of the gradients.
        nu: v_t, the average of their squares.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # as Optax names it
    mu: optax.Updates
    nu: optax.Updates


def scale_by_uncorrected_adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> optax.GradientTransformation:
    """`sqrt(1 - b2^t) / (1 - b1^t) m_t / (sqrt(v_t) + eps)`: the bias correction in the step, not in the metric.

    The formula is that of AdamW in the `transformers` package, and of ProxSSI's code, which follows it. Without eps the
    direction is Adam's. The metric in which the prox is taken, `sqrt(v_t) + eps`, differs from Adam's.

    Args:
        b1, b2: decay of the averages of the gradient and of its square, in [0, 1).
        eps: a number > 0 that is added to the uncorrected root.
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
