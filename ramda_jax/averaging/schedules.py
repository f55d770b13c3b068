"""The papers' schedules: stages, and the averaging that grows to 1."""

import math
from collections.abc import Iterable
from typing import Any, cast, overload

import jax.numpy as jnp
import numpy as np
import optax

from ramda_jax.numerics import LAST_COUNT, next_count
from ramda_jax.typing import AdaptiveStageSettings, StageSettings
from ramda_jax.validation import (
    check_averaging,
    check_count,
    check_no_schedule,
    check_non_negative,
    check_number_above,
    check_positive,
    checked_restarts,
)


def sqrt_growth(averaging: float, start: int = 0) -> optax.Schedule:
    """The averaging schedule of the NeurIPS paper: c until `start`, then `min(c sqrt(i), 1)`, i = 1, 2, ...

    It must reach 1, at i = 1 / c^2, for the iterate itself to have exact zeros: with c = 0.01 the last
    stage must be longer than 10,000 steps.

    Args:
        averaging: c in (0, 1].
        start: steps before the last stage; i counts those after it.

    Returns:
        A schedule of the 0-based step.

    Raises:
        ValueError: averaging outside (0, 1], a negative start.

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
    # 1 / c^2 in Python's arithmetic: the step at which c_t is to be exactly 1, not 1 less a rounding.
    # By a product, which overflows to infinity where a power raises.
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
        averaging: c in (0, 1], that of the first stage.
        ends: 1-based step counts after which a stage ends.
        growth: above 1.

    Returns:
        A schedule of the 0-based step.

    Raises:
        ValueError: averaging outside (0, 1], ends that do not increase or end beyond the step counter, growth of 1 or
            less.

    Example:
        >>> import ramda_jax
        >>> schedule = ramda_jax.stage_growth(0.01, ends=(10, 20))
        >>> [round(float(schedule(step)), 3) for step in (9, 10, 20)]
        [0.01, 0.1, 1.0]

    References:
        Huang and Lee, ICLR 2022, arXiv:2112.02612, appendix, tables of hyperparameters.
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


class StageEnds(tuple[int, ...]):
    """1-based step counts after which a stage ends, of a run whose length is known.

    Attributes:
        total_steps: the number of steps of the run.
    """

    total_steps: int | None

    def __new__(cls, ends: Iterable[int], total_steps: int | None) -> "StageEnds":
        """`ends`, and the run's length."""
        made = super().__new__(cls, ends)
        made.total_steps = total_steps
        return made


class _Stages(dict):
    """Keyword arguments that explain themselves when they are printed."""

    def __init__(self, settings, lines):
        super().__init__(settings)
        self._lines = lines

    def __str__(self):
        return "\n".join(self._lines)


@overload
def stages(
    learning_rate: float,
    averaging: optax.ScalarOrSchedule | None = None,
    ends: tuple[int, ...] | None = None,
    factor: float = 0.1,
    eps: None = None,
    *,
    total_steps: int | None = None,
) -> StageSettings: ...


@overload
def stages(
    learning_rate: float,
    averaging: optax.ScalarOrSchedule | None = None,
    ends: tuple[int, ...] | None = None,
    factor: float = 0.1,
    *,
    eps: float,
    total_steps: int | None = None,
) -> AdaptiveStageSettings: ...


@overload
def stages(
    learning_rate: float,
    averaging: optax.ScalarOrSchedule | None = None,
    ends: tuple[int, ...] | None = None,
    factor: float = 0.1,
    eps: float | None = None,
    *,
    total_steps: int | None = None,
) -> StageSettings | AdaptiveStageSettings: ...


def stages(
    learning_rate: float,
    averaging: optax.ScalarOrSchedule | None = None,
    ends: tuple[int, ...] | None = None,
    factor: float = 0.1,
    eps: float | None = None,
    *,
    total_steps: int | None = None,
) -> StageSettings | AdaptiveStageSettings:
    """The papers' stage-wise training, as keyword arguments of `ramda` or (without eps) of `rmda`.

    After each of `ends` steps a stage ends: dual averaging restarts, and learning rate and eps are
    multiplied by `factor`. In the last stage the averaging grows as `sqrt_growth`.

    With `total_steps`, all that must be known is the length T of the run. Stages end after T/4, 3T/8 and T/2 steps,
    so that the last one is half of the run, as in the ICLR paper; and c is such that c_t reaches 1, and the parameters
    have exact zeros, after a fifth of the last stage. `print(stages(...))` says what was chosen. A `Target` as strength
    learns from it when to hold its lambda.

    Args:
        learning_rate: that of the first stage, >= 0.
        averaging: c in (0, 1]; a schedule (such as `stage_growth`) is passed on as it is. None with `total_steps`.
        ends: 1-based step counts after which a stage ends; the last stage has no end. None with `total_steps`.
        factor: above 0.
        eps: RAMDA's eps of the first stage; None for `rmda`, or for `ramda`'s own, which then stays the same.
        total_steps: the number of steps of the run, at least 8; None if ends and averaging are given.

    Returns:
        A dict with `learning_rate`, `averaging`, `restarts` and, where given, `eps`.

    Raises:
        ValueError: a number out of its range, ends that do not increase or end beyond the step counter or the run;
            neither `total_steps` nor both of averaging and ends.

    Example:
        >>> import ramda_jax
        >>> settings = ramda_jax.stages(learning_rate=1e-2, total_steps=20_000)
        >>> optimizer = ramda_jax.ramda(regularizer=ramda_jax.GroupLasso(), strength=1e-4, **settings)
        >>> print(settings)
        steps              learning rate  averaging
        1 to 5,000         0.01           0.02236
        5,001 to 7,500     0.001          0.02236
        7,501 to 10,000    0.0001         0.02236
        10,001 to 20,000   1e-05          grows to 1 at step 12,000; from then on zeros are exact

    References:
        Huang and Lee, NeurIPS 2024, arXiv:2403.14398, appendix A.1, and ICLR 2022, arXiv:2112.02612, appendix.
    """
    check_non_negative("learning_rate", learning_rate)
    check_positive("factor", factor)
    if total_steps is not None:
        check_count("total_steps", total_steps, 8)
        ends = (total_steps // 4, 3 * total_steps // 8, total_steps // 2) if ends is None else ends
    if ends is None or (averaging is None and total_steps is None):
        raise ValueError(
            "`stages` must be given `total_steps`, or both `averaging` and `ends`; use for example "
            "`stages(learning_rate=1e-2, total_steps=20_000)`."
        )
    ends = checked_restarts("ends", ends)
    last = ends[-1] if ends else 0
    if total_steps is not None and last >= total_steps:
        raise ValueError(f"`ends` must be below `total_steps`, got {ends!r} and {total_steps!r}.")
    if averaging is None:
        assert total_steps is not None  # else it was given
        averaging = min(math.sqrt(5 / (total_steps - last)), 1.0)
    check_averaging(averaging)
    scales = dict.fromkeys(ends, factor)
    settings: dict[str, Any] = {
        "learning_rate": optax.piecewise_constant_schedule(learning_rate, scales),
        "averaging": averaging if callable(averaging) else sqrt_growth(float(averaging), last),
        "restarts": ends if total_steps is None else StageEnds(ends, total_steps),
    }
    if eps is not None:
        check_positive("eps", eps)
        settings["eps"] = optax.piecewise_constant_schedule(eps, scales)
    explained = _Stages(settings, _stage_lines(learning_rate, averaging, ends, factor, eps, total_steps))
    return cast("StageSettings | AdaptiveStageSettings", explained)


def _stage_lines(learning_rate, averaging, ends, factor, eps, total_steps):
    """A table of the stages."""
    starts, last = (0, *ends), ends[-1] if ends else 0
    rows: list[tuple[str, ...]] = [("steps", "learning rate", *(["eps"] if eps is not None else []), "averaging")]
    for number, start in enumerate(starts):
        end = ends[number] if number < len(ends) else total_steps
        cells = [f"{start + 1:,} on" if end is None else f"{start + 1:,} to {end:,}"]
        cells += [f"{value * factor**number:.4g}" for value in (learning_rate, eps) if value is not None]
        if callable(averaging):
            cells.append("its schedule")
        elif start < last or float(averaging) == 1:
            cells.append(f"{float(averaging):.4g}")
        else:
            full = last + math.ceil(1 / float(averaging) ** 2 - 1e-6)
            reached = total_steps is None or full <= total_steps
            cells.append(f"grows to 1 at step {full:,}; " + ("from then on zeros are exact" if reached else "too late"))
        rows.append(tuple(cells))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    widths[0] += 1
    return ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
