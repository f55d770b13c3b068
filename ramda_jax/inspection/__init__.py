"""Looking inside: who gets what, the structured point, how the solver fares."""

from ramda_jax.inspection.describe import describe
from ramda_jax.inspection.states import eval_params, solver_info

__all__ = ["describe", "eval_params", "solver_info"]
