"""The end of every method: the average of the minimiser with the previous iterate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ramda_jax.numerics import at_step, next_count, sums_dtype
from ramda_jax.probe import TARGET
from ramda_jax.validation import check_averaging


class IterateAveragingState(NamedTuple):
    """State of `iterate_averaging`.

    Attributes:
        averaging_step: int32 `[]`, steps taken; what a schedule is called with.
    """

    averaging_step: jax.Array


def iterate_averaging(averaging: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Averages the point it is given with the parameters.

        W_t = (1 - c_t) W_{t-1} + c_t W_hat,    updates = W_t - W_{t-1} = c_t (W_hat - W_{t-1})

    The last part of a chain after `proximal_point`. Nothing that changes updates may come after it. Where
    c_t = 1, what is zero in W_hat is exactly 0.0 after `optax.apply_updates`; below 1 the iterate only comes
    closer to its zeros, and `eval_params` gives the structured point.

    Args:
        averaging: c_t in (0, 1], the weight on the *new* point, 1 for no averaging; a scalar or a schedule of
            the 0-based step.

    Returns:
        A `GradientTransformationExtraArgs` from W_hat to updates in the parameters' dtypes.

    Raises:
        ValueError: averaging outside (0, 1].
    """
    check_averaging(averaging)

    def init(params):
        del params
        return IterateAveragingState(averaging_step=jnp.zeros([], jnp.int32))

    def update(updates, state, params=None, **extra_args):
        def average(point, p):
            dtype = sums_dtype(p.dtype)
            c = at_step(1.0 if TARGET in extra_args else averaging, state.averaging_step, dtype)
            # As c (W_hat - W): exactly -W where W_hat is 0 and c is 1, exactly 0 where W_hat is W.
            return (c * (point.astype(dtype) - p.astype(dtype))).astype(p.dtype)

        new_state = IterateAveragingState(averaging_step=next_count(state.averaging_step))
        return jax.tree.map(average, updates, params), new_state

    return optax.GradientTransformationExtraArgs(init, update)
