"""Model builders, which turn gradients into the `QuadraticModel` of a step; each is for a method of the papers."""

from ramda_jax.builders.adaptive_dual_averaging import AdaptiveDualAveragingState, adaptive_dual_averaging
from ramda_jax.builders.dual_averaging import DualAveragingState, dual_averaging
from ramda_jax.builders.preconditioned import PreconditionedState, preconditioned
from ramda_jax.builders.quadratic import ModelState, QuadraticModel

__all__ = [
    "AdaptiveDualAveragingState",
    "DualAveragingState",
    "ModelState",
    "PreconditionedState",
    "QuadraticModel",
    "adaptive_dual_averaging",
    "dual_averaging",
    "preconditioned",
]
