"""Solvers, which find the minimiser of a leaf's model plus psi."""

from ramda_jax.solvers.base import Context, Solution, Solver, SolverInfo
from ramda_jax.solvers.closed_form import ClosedForm
from ramda_jax.solvers.douglas_rachford import DouglasRachford
from ramda_jax.solvers.newton_raphson import NewtonRaphson
from ramda_jax.solvers.proximal_gradient import ProximalGradient, summable_tolerance
from ramda_jax.solvers.secular_newton import SecularNewton
from ramda_jax.solvers.select import choose_solver, default_solver

__all__ = [
    "ClosedForm",
    "Context",
    "DouglasRachford",
    "NewtonRaphson",
    "ProximalGradient",
    "SecularNewton",
    "Solution",
    "Solver",
    "SolverInfo",
    "choose_solver",
    "default_solver",
    "summable_tolerance",
]
