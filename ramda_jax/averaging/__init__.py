"""Averaging of iterates, and the papers' schedules."""

from ramda_jax.averaging.iterate_averaging import IterateAveragingState, iterate_averaging
from ramda_jax.averaging.schedules import sqrt_growth, stage_growth
from ramda_jax.averaging.stages import stages

__all__ = ["IterateAveragingState", "iterate_averaging", "sqrt_growth", "stage_growth", "stages"]
