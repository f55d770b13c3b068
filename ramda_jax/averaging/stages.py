"""Stages as keyword arguments of the methods: the papers', or from the number of steps."""

import math
from collections.abc import Iterable
from typing import Any, cast, overload

import optax
from jax.core import Tracer

from ramda_jax.averaging.schedules import sqrt_growth
from ramda_jax.tables import text_table
from ramda_jax.typing import AdaptiveStageSettings, StageSettings
from ramda_jax.validation import (
    check_averaging,
    check_count,
    check_no_schedule,
    check_non_negative,
    check_positive,
    checked_restarts,
)


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

    A stage ends after each number of steps in `ends`. Then dual averaging restarts, and the learning rate and eps are
    multiplied by `factor`. In the last stage the averaging grows as `sqrt_growth`.

    With `total_steps` only the length T of the run must be known. Stages end after T/4, 3T/8 and T/2 steps, so that the
    last stage is half of the run (50 to 60 % in the ICLR paper). c is chosen so that c_t reaches 1 after a fifth of
    the last stage; from then on the parameters have exact zeros. `print(stages(...))` shows what was chosen. A `Target`
    as strength learns from the result when to hold its lambda.

    Args:
        learning_rate: eta >= 0, the learning rate of the first stage. It may be traced, as may eps: one program then
            serves a sweep.
        averaging: c in (0, 1], or a schedule such as `stage_growth`, which is passed on unchanged. None to choose it by
            `total_steps`.
        ends: 1-based step counts after which a stage ends; the last stage has no end. None to choose them by
            `total_steps`.
        factor: a number > 0.
        eps: RAMDA's eps of the first stage, > 0. None for `rmda`, or to keep the default of `ramda` in all stages.
        total_steps: the number of steps of the run, at least 8. None if ends and averaging are given.

    Returns:
        A dict with `learning_rate`, `averaging`, `restarts` and, if it was given, `eps`.

    Raises:
        ValueError: a number is out of its range; ends do not increase, or lie beyond the step counter or the run;
            `total_steps` is missing, and averaging or ends too.
        TypeError: averaging or the factor is traced; the learning rate or eps is a schedule.

    Example:
        >>> import ramda_jax
        >>> settings = ramda_jax.stages(learning_rate=1e-2, total_steps=20_000)
        >>> optimizer = ramda_jax.ramda(regularizer=ramda_jax.GroupLasso(), strength=1e-4, **settings)
        >>> print(settings)
        steps             learning rate  averaging
        1 to 5,000        0.01           0.02236
        5,001 to 7,500    0.001          0.02236
        7,501 to 10,000   0.0001         0.02236
        10,001 to 20,000  1e-05          grows to 1 at step 12,000; from then on zeros are exact

    References:
        Huang and Lee, NeurIPS 2024, arXiv:2403.14398, appendix A.1, and ICLR 2022, arXiv:2112.02612, section 5
        and appendix C.
    """
    remedy = "give that of the first stage, which `stages` lowers; a schedule of your own goes to the method itself."
    check_no_schedule("learning_rate", learning_rate, remedy)
    check_non_negative("learning_rate", learning_rate)
    check_positive("factor", factor, schedules=False)
    for name, value in (("averaging", averaging), ("factor", factor)):
        if isinstance(value, Tracer):
            raise TypeError(
                f"`{name}` must be known before the call of `jax.jit`, got {value!r}; give a number. Only "
                "`learning_rate` and `eps` may be traced."
            )
    if total_steps is not None:
        check_count("total_steps", total_steps, 8)
        ends = (total_steps // 4, 3 * total_steps // 8, total_steps // 2) if ends is None else ends
    if ends is None or (averaging is None and total_steps is None):
        raise ValueError(
            "`stages` must be given `total_steps`, or both `averaging` and `ends`, got "
            f"averaging={averaging!r} and ends={ends!r}; use for example "
            "`stages(learning_rate=1e-2, total_steps=20_000)`."
        )
    ends = checked_restarts("ends", ends)
    last = ends[-1] if ends else 0
    if total_steps is not None and last >= total_steps:
        raise ValueError(
            f"`ends` must be below `total_steps`, got {ends!r} and {total_steps!r}; use smaller ones, or leave `ends` "
            "out to have them chosen."
        )
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
        check_positive("eps", eps, schedules=False)
        settings["eps"] = optax.piecewise_constant_schedule(eps, scales)
    explained = _Stages(settings, _stage_lines(learning_rate, averaging, ends, factor, eps, total_steps))
    return cast("StageSettings | AdaptiveStageSettings", explained)


def _shown(value, scale):
    """A number times `scale` as text. A traced number has no value to show."""
    return f"traced * {scale:.4g}" if isinstance(value, Tracer) else f"{value * scale:.4g}"


def _stage_lines(learning_rate, averaging, ends, factor, eps, total_steps):
    """A table of the stages."""
    starts, last = (0, *ends), ends[-1] if ends else 0
    rows: list[tuple[str, ...]] = [("steps", "learning rate", *(["eps"] if eps is not None else []), "averaging")]
    for number, start in enumerate(starts):
        end = ends[number] if number < len(ends) else total_steps
        cells = [f"{start + 1:,} on" if end is None else f"{start + 1:,} to {end:,}"]
        cells += [_shown(value, factor**number) for value in (learning_rate, eps) if value is not None]
        if callable(averaging):
            cells.append("its schedule")
        elif start < last or float(averaging) == 1:
            cells.append(f"{float(averaging):.4g}")
        else:
            full = last + math.ceil(1 / float(averaging) ** 2 - 1e-6)
            reached = total_steps is None or full <= total_steps
            cells.append(f"grows to 1 at step {full:,}; " + ("from then on zeros are exact" if reached else "too late"))
        rows.append(tuple(cells))
    return text_table(rows)
