"""The middle part of every method: from a quadratic model to the minimiser of model plus psi, on whole trees."""

from ramda_jax.subproblem.prox import prox
from ramda_jax.subproblem.proximal_point import proximal_point
from ramda_jax.subproblem.state import ProximalPointState
from ramda_jax.subproblem.strengths.target import Target

__all__ = ["ProximalPointState", "Target", "prox", "proximal_point"]
