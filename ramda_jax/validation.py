"""Checks of users' arguments that are Python or NumPy numbers.

Traced values (under `jax.jit`, or injected by `optax.inject_hyperparams`), device arrays and schedules pass unchecked:
their values are unknown, or need a host sync.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.numerics import LAST_COUNT
from ramda_jax.typing import Tree


def _is_known(value: Any) -> bool:
    return isinstance(value, (int, float, complex, np.number, np.bool_, str, bytes)) or value is None


def _number(name: str, value: Any, rule: Callable[[float], bool], remedy: str) -> bool:
    if isinstance(value, (bool, np.bool_, str, bytes, complex, np.complexfloating)) or value is None:
        raise TypeError(f"`{name}` must be a real number or a schedule, got {value!r}; {remedy}")
    if isinstance(value, np.ndarray):
        if value.ndim or not np.issubdtype(value.dtype, np.number):
            raise TypeError(f"`{name}` must be one real number, got {value!r}; {remedy}")
        value = value.item()
    if not (_is_known(value) or callable(value) or isinstance(value, jax.Array)):
        raise TypeError(f"`{name}` must be a real number or a schedule, got {value!r}; {remedy}")
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating) and value.dtype.itemsize < 4:
        warnings.warn(
            f"`{name}` should be of float32 or wider, got {value.dtype}, which rounds it (0.999 to "
            f"{float(jnp.asarray(0.999, value.dtype))}); give `hyperparam_dtype=jnp.float32` to "
            "`optax.inject_hyperparams`, which makes numbers of the parameters' dtype.",
            UserWarning,
            stacklevel=2,
        )
    try:
        return not _is_known(value) or rule(float(value))  # pyright: ignore[reportArgumentType]
    except OverflowError:  # an int beyond all floats
        return False


def check_non_negative(
    name: str, value: Any, remedy: str = "use 0.0 or a positive number.", *, schedules: bool = True
) -> None:
    """Raises unless the number `value` is finite and at least 0, or a schedule if `schedules` is True."""
    if not schedules:
        check_no_schedule(name, value, remedy)
    if not _number(name, value, lambda x: 0 <= x < float("inf"), remedy):
        raise ValueError(f"`{name}` must be finite and at least 0, got {value!r}; {remedy}")


def check_positive(
    name: str, value: Any, remedy: str = "use a small positive number.", *, schedules: bool = True
) -> None:
    """Raises unless the number `value` is finite and above 0, or a schedule if `schedules` is True."""
    if not schedules:
        check_no_schedule(name, value, remedy)
    if not _number(name, value, lambda x: 0 < x < float("inf"), remedy):
        raise ValueError(f"`{name}` must be finite and above 0, got {value!r}; {remedy}")


def check_number_above(name: str, value: Any, minimum: float, remedy: str) -> None:
    """Raises unless `value` is a Python or NumPy number, finite and above `minimum`, for use by Python itself."""
    if callable(value) or isinstance(value, jax.Array):
        raise TypeError(f"`{name}` must be a Python number, got {value!r}; {remedy}")
    if not _number(name, value, lambda x: minimum < x < float("inf"), remedy):
        raise ValueError(f"`{name}` must be finite and above {minimum}, got {value!r}; {remedy}")


def check_averaging(value: Any) -> None:
    """Raises unless the number `value` is in (0, 1]."""
    remedy = "use `averaging=1.0` for no averaging."
    if not _number("averaging", value, lambda x: 0 < x <= 1, remedy):
        raise ValueError(f"`averaging` must be in (0, 1], got {value!r}; {remedy}")


def check_ratio(value: Any) -> None:
    """Raises unless the number `value` is in [0, 1]."""
    remedy = "use 0.0 for the groups alone, 1.0 for l1 alone."
    check_no_schedule("l1_ratio", value, remedy)
    if not _number("l1_ratio", value, lambda x: 0 <= x <= 1, remedy):
        raise ValueError(f"`l1_ratio` must be in [0, 1], got {value!r}; {remedy}")


def check_share(value: Any) -> None:
    """Raises unless `value` is a number in [0, 1] or a function of the step."""
    remedy = "use 0.9 for nine tenths to be zero, or a function of the step, such as `optax.linear_schedule`."
    if isinstance(value, jax.Array):
        raise TypeError(f"`share` must be a Python number or a schedule, got {value!r}; {remedy}")
    if not _number("share", value, lambda x: 0 <= x <= 1, remedy):
        raise ValueError(f"`share` must be in [0, 1], got {value!r}; {remedy}")


def check_decay(name: str, value: Any) -> None:
    """Raises unless the number `value` is in [0, 1)."""
    remedy = "use 0.0 for no memory, 0.9 for a memory of about ten steps."
    check_no_schedule(name, value, remedy)
    if not _number(name, value, lambda x: 0 <= x < 1, remedy):
        raise ValueError(f"`{name}` must be in [0, 1), got {value!r}; {remedy}")


def check_flag(name: str, value: Any) -> None:
    """Raises unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {value!r}; use one of these.")


def check_count(name: str, value: Any, minimum: int) -> None:
    """Raises unless `value` is an int of at least `minimum`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}; use an int.")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}, got {value!r}; use {minimum} or more.")


def checked_restarts(name: str, restarts: Any) -> tuple[int, ...]:
    """`restarts` as a tuple of ints: positive and increasing step counts below the end of the counter, an int32."""
    remedy = f"use increasing step counts, such as `{name}=(40_000, 80_000)`."
    try:
        steps = tuple(restarts)
    except TypeError:
        raise TypeError(f"`{name}` must be a sequence of step counts, got {restarts!r}; {remedy}") from None
    for step in steps:
        if isinstance(step, (bool, np.bool_)) or not isinstance(step, (int, np.integer)):
            raise TypeError(f"`{name}` must hold whole numbers, got {step!r} in {restarts!r}; {remedy}")
    steps = tuple(int(step) for step in steps)
    if any(a >= b for a, b in zip((0, *steps), steps, strict=False)):
        raise ValueError(f"`{name}` must be positive and increasing, got {restarts!r}; {remedy}")
    # At its end the counter stays the same, so that a stage that begins there would begin again at every step.
    if steps and steps[-1] >= LAST_COUNT:
        raise ValueError(
            f"`{name}` must be below {LAST_COUNT}, where the counter of steps ends, got {restarts!r}; leave out steps "
            "that no run reaches."
        )
    return steps


def checked_dtype(name: str, dtype: Any, example: str = "float32") -> np.dtype | None:
    """`dtype` as a floating-point dtype that JAX has, or None; `example` is what an error proposes."""
    if dtype is None:
        return None
    remedy = f"use `jnp.{example}`, or its name where `optax.inject_hyperparams` would take it for a schedule."
    try:
        # An array has a dtype but is not one; `optax.inject_hyperparams` turns `jnp.float32` into an array.
        known = None if isinstance(dtype, (jax.Array, np.ndarray, np.generic)) else jnp.dtype(dtype)
    except TypeError:
        known = None
    if known is None or not jnp.issubdtype(known, jnp.floating):
        raise TypeError(f"`{name}` must be a floating-point dtype or None, got {dtype!r}; {remedy}")
    return jax.dtypes.canonicalize_dtype(known)


def check_no_schedule(name: str, value: Any, remedy: str) -> None:
    """Raises a `TypeError` if the value is a schedule where it must be one number."""
    if callable(value):
        raise TypeError(f"`{name}` must be one number, got {value!r}; {remedy}")


def check_real_number(name: str, value: Any, remedy: str) -> None:
    """Raises unless `value` is a real number, or an array that may be one; traced values pass."""
    check_no_schedule(name, value, remedy)
    if not _number(name, value, lambda x: True, remedy):
        raise ValueError(f"`{name}` must be a float's number, got {value!r}; {remedy}")


def check_arrays(what: str, named_leaves: Iterable[tuple[str, Any]]) -> None:
    """Raises a `TypeError` that names the first leaf that is not an array of numbers, of booleans or of PRNG keys."""
    for path, leaf in named_leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not hasattr(leaf, "shape") or getattr(dtype, "kind", "f") in "OSUMm":
            kind = f"dtype {dtype}" if dtype is not None else f"type {type(leaf).__name__}"
            raise TypeError(
                f"{what} must be arrays of numbers, got {kind} at '{path}'; split such leaves off, as "
                "`eqx.filter(model, eqx.is_array)` does, or make them arrays by `jnp.asarray`."
            )


def check_params(named_leaves: Iterable[tuple[str, Any]]) -> None:
    """Raises a `TypeError` that names the first leaf that is not a real floating-point array."""
    for path, leaf in named_leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            kind = f"dtype {dtype}" if dtype is not None else f"type {type(leaf).__name__}"
            raise TypeError(
                f"Parameters must be arrays of real floating-point numbers, got {kind} at '{path}'; train such "
                "leaves with another optimizer by `optax.partition`, or split them off the parameters."
            )


def require_params(params: Tree) -> None:
    """Raises unless `update` was given the parameters."""
    if params is None:
        raise ValueError(
            "You are using a transformation that requires the current value of parameters, but `update` was called "
            "without them; call `optimizer.update(grads, state, params)`."
        )
