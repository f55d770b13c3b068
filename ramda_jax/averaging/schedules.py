"""The papers' schedules: stages, and the averaging that grows to 1."""

import math

import jax.numpy as jnp
import numpy as np
import optax

from ramda_jax.numerics import LAST_COUNT, next_count
from ramda_jax.validation import (
    check_averaging,
    check_count,
    check_no_schedule,
    check_number_above,
    checked_restarts,
)


def sqrt_growth(averaging: float, start: int = 0) -> optax.Schedule:
    """The averaging schedule of the NeurIPS paper: c until `start`, then `min(c sqrt(i), 1)`, i = 1, 2, ...

    The iterate itself has exact zeros only after the schedule has reached 1, at i = 1 / c^2. With c = 0.01 the last
    stage must therefore be longer than 10,000 steps.

    Args:
        averaging: c in (0, 1].
        start: the number of steps before the last stage, an int >= 0; i counts the steps after it.

    Returns:
        A schedule of the 0-based step.

    Raises:
        ValueError: averaging is outside (0, 1], or start is negative.
        TypeError: averaging is a schedule, or start is not an int.

    Example:
        >>> import ramda_jax
        >>> schedule = ramda_jax.sqrt_growth(0.5, start=10)
        >>> [round(float(schedule(step)), 3) for step in (9, 10, 11, 12, 13, 14)]
        [0.5, 0.5, 0.707, 0.866, 1.0, 1.0]

    References:
        Huang and Lee, NeurIPS 2024, arXiv:2403.14398, appendix A.1.
    """
    check_no_schedule("averaging", averaging, "use for example 0.1.")
    check_averaging(averaging)
    check_count("start", start, 0)
    # 1 / c^2 in Python's arithmetic: from this step on c_t must be exactly 1, not 1 less a rounding error.
    # As a product, because a product overflows to infinity where a power raises an error.
    inverse = 1 / float(averaging)
    full = inverse * inverse - 1e-6
    # A step that the counter does not reach; beyond int32 JAX could not compare with it.
    full = math.ceil(full) if full <= LAST_COUNT else None
    # The counter stays at its end, and so does a start beyond it.
    start = min(start, LAST_COUNT)

    def schedule(step):
        i = next_count(jnp.maximum(jnp.asarray(step) - start, 0))
        growing = jnp.minimum(averaging * jnp.sqrt(i.astype(float)), 1.0)
        return growing if full is None else jnp.where(i >= full, 1.0, growing)

    return schedule


def stage_growth(averaging: float, ends: tuple[int, ...], growth: float = 10.0) -> optax.Schedule:
    """The averaging schedule of the ICLR paper: c, times `growth` after every stage, at most 1.

    Args:
        averaging: c in (0, 1], the weight of the first stage.
        ends: 1-based step counts after which a stage ends.
        growth: a number > 1.

    Returns:
        A schedule of the 0-based step.

    Raises:
        ValueError: averaging is outside (0, 1]; ends do not increase, or lie beyond the step counter; growth is at
            most 1.

    Example:
        >>> import ramda_jax
        >>> schedule = ramda_jax.stage_growth(0.01, ends=(10, 20))
        >>> [round(float(schedule(step)), 3) for step in (9, 10, 20)]
        [0.01, 0.1, 1.0]

    References:
        Huang and Lee, ICLR 2022, arXiv:2112.02612, section 5 and Tables 3 to 10, 14 and 17.
    """
    check_no_schedule("averaging", averaging, "use for example 0.01.")
    check_averaging(averaging)
    ends = checked_restarts("ends", ends)
    check_number_above("growth", growth, 1, "use 10.0, as the paper does.")
    growth = float(growth)
    values = [averaging * (1 + 1e-9)]
    for stage in range(1, len(ends) + 1):
        # Powers in Python's arithmetic, so that 0.01 * 10 * 10 is 1 and not the float32 below it; no more of them once
        # c is 1.
        try:
            values.append(1.0 if values[-1] >= 1 else averaging * growth**stage * (1 + 1e-9))
        except OverflowError:
            values.append(math.exp(min(math.log(averaging) + stage * math.log(growth), 0.0)))
    values = np.minimum(values, 1.0)

    def schedule(step):
        stage = jnp.sum(jnp.asarray(step) >= jnp.asarray(ends, int))
        return jnp.asarray(values, float)[stage]

    return schedule
