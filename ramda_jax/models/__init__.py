"""Model builders: from gradients to the `QuadraticModel` of a step, one method of the papers each."""

from ramda_jax.models.adaptive_dual_averaging import AdaptiveDualAveragingState, adaptive_dual_averaging
from ramda_jax.models.dual_averaging import DualAveragingState, dual_averaging
from ramda_jax.models.preconditioned import PreconditionedState, preconditioned
from ramda_jax.models.quadratic import QuadraticModel

__all__ = [
    "AdaptiveDualAveragingState",
    "DualAveragingState",
    "PreconditionedState",
    "QuadraticModel",
    "adaptive_dual_averaging",
    "dual_averaging",
    "preconditioned",
]
