"""The end of every method: the average of the minimiser with the previous iterate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ramda_jax.numerics import at_step, copy, next_count, promoted, reachable, sums_dtype
from ramda_jax.probe import PROBE_POINT
from ramda_jax.structure.belonging import FRESH, check_belongs, check_state
from ramda_jax.validation import check_averaging, checked_dtype, require_params


class IterateAveragingState(NamedTuple):
    """State of `iterate_averaging`.

    Attributes:
        averaging_step: int32 `[]`, steps taken; what a schedule is called with.
        iterate: W_{t-1} in `iterate_dtype`, a tree like the parameters; None without an `iterate_dtype`.
    """

    averaging_step: jax.Array
    iterate: Any = None


def averaging_step(point: jax.Array, iterate: jax.Array, weight: jax.Array) -> jax.Array:
    """`c (W_hat - W)` of one leaf, in the dtype of W.

    Args:
        point: W_hat.
        iterate: W.
        weight: c, a scalar.
    """
    dtype = sums_dtype(iterate.dtype)
    # In the form c (W_hat - W) it is exactly -W where W_hat is 0 and c is 1, and exactly 0 where W_hat is W.
    step = weight.astype(dtype) * (reachable(point.astype(dtype), iterate.dtype) - iterate.astype(dtype))
    return reachable(step, iterate.dtype).astype(iterate.dtype)


def iterate_averaging(
    averaging: optax.ScalarOrSchedule, iterate_dtype: jax.typing.DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    """Averages the point it is given with the parameters.

        W_t = (1 - c_t) W_{t-1} + c_t W_hat,    updates = W_t - W_{t-1} = c_t (W_hat - W_{t-1})

    This is the last part of a chain, after `proximal_point`. Nothing after it may change the updates. If c_t = 1, the
    zeros of W_hat are exactly 0.0 after `optax.apply_updates`. If c_t < 1, the iterate only comes closer to these
    zeros, and `eval_params` gives the structured point.

    In bfloat16 W_t is rounded to 8 bits. A step c_t (W_hat - W_{t-1}) of less than 1/512 of W_{t-1} is then lost, and
    with a small c_t the iterate stops on its way, with a relative error of up to 1 / (256 c_t). With
    `iterate_dtype=jnp.float32` the state keeps the average in float32, and the parameters are its rounding.

    Args:
        averaging: c_t in (0, 1], the weight on the *new* point, 1 for no averaging; a scalar or a schedule of
            the 0-based step.
        iterate_dtype: the dtype in which the state keeps the iterate, at 4 bytes a parameter for float32; None to
            keep it only as the parameters. Useful for parameters in bfloat16 or float16 with c_t below about 0.1;
            leaves of a wider dtype keep theirs. Any other change to the parameters between steps is then overwritten by
            the next step. (Under `optax.inject_hyperparams` write `"float32"`, or name the argument in `static_args`:
            Optax takes `jnp.float32`, which is callable, for a schedule.)

    Returns:
        A `GradientTransformationExtraArgs` from W_hat to updates in the parameters' dtypes.

    Raises:
        ValueError: averaging is outside (0, 1]; in `update`, params are missing, or the points or the state do not
            belong to them.
        TypeError: `iterate_dtype` is not a real floating-point dtype.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> averaging = ramda_jax.iterate_averaging(0.1)
        >>> params = jnp.array([1.0, 2.0])
        >>> updates, _ = averaging.update(jnp.array([0.0, 2.0]), averaging.init(params), params)
        >>> params + updates  # a tenth of the way to the point
        Array([0.9, 2. ], dtype=float32)
    """
    check_averaging(averaging)
    kept_dtype = checked_dtype("iterate_dtype", iterate_dtype)

    def widened(p):
        return p.astype(promoted(p.dtype, kept_dtype or p.dtype))

    def init(params):
        # A copy, though the dtype may be the same: parameters and state can then be donated together.
        iterate = None if kept_dtype is None else jax.tree.map(widened, copy(params))
        return IterateAveragingState(averaging_step=jnp.zeros([], jnp.int32), iterate=iterate)

    def update(updates, state, params=None, **extra_args):
        require_params(params)
        check_state(IterateAveragingState, state)
        check_belongs("Points to average with", updates, "the parameters", params, FRESH)
        if (state.iterate is None) != (kept_dtype is None):
            raise ValueError(
                f"The state must be one of `iterate_dtype={iterate_dtype!r}`, got one "
                f"{'without' if state.iterate is None else 'with'} an iterate; {FRESH}"
            )
        if kept_dtype is not None:
            check_belongs("The state's iterate", state.iterate, "the parameters", params, FRESH)

        def average(point, p):
            c = at_step(1.0 if PROBE_POINT in extra_args else averaging, state.averaging_step, sums_dtype(p.dtype))
            return averaging_step(point, p, c)

        def to_iterate(w, p):
            return reachable(reachable(w, p.dtype) - p.astype(w.dtype), p.dtype).astype(p.dtype)

        step = next_count(state.averaging_step)
        if kept_dtype is None:
            return jax.tree.map(average, updates, params), IterateAveragingState(averaging_step=step)
        iterate = jax.tree.map(lambda point, w: w + average(point, w), updates, state.iterate)
        new_updates = jax.tree.map(to_iterate, iterate, params)
        return new_updates, IterateAveragingState(averaging_step=step, iterate=iterate)

    return optax.GradientTransformationExtraArgs(init, update)
