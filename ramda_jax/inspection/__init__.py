"""Inspection: the regularizer of each leaf, the structured point, the solver's report, and a check of the chain."""

from ramda_jax.inspection.check_donation import check_donation
from ramda_jax.inspection.check_last import check_last
from ramda_jax.inspection.describe import describe
from ramda_jax.inspection.states import eval_params, solver_info

__all__ = ["check_donation", "check_last", "describe", "eval_params", "solver_info"]
