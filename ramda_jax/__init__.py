"""Training of structured neural networks in JAX: regularised dual averaging and its family, for Optax.

A regularizer such as the group LASSO gives a network structure only if the optimizer treats it by its proximal
operator, and only if the iterates reach the structure of their limit. RMDA and RAMDA provably do.

    optimizer = ramda_jax.ramda(1e-2, ramda_jax.GroupLasso(), strength=1e-4)
"""

from ramda_jax import compaction, metrics, regularizers, solvers, structure
from ramda_jax.averaging import IterateAveragingState, iterate_averaging, sqrt_growth, stage_growth, stages
from ramda_jax.builders import (
    AdaptiveDualAveragingState,
    DualAveragingState,
    ModelState,
    PreconditionedState,
    QuadraticModel,
    adaptive_dual_averaging,
    dual_averaging,
    preconditioned,
)
from ramda_jax.fused import fused_step
from ramda_jax.inspection import check_donation, check_last, describe, eval_params, solver_info
from ramda_jax.methods import prox_adamw, prox_gen, prox_sgd, prox_ssi, ramda, rmda
from ramda_jax.phases import HoldZerosState, hold_zeros, ramda_then_hold
from ramda_jax.regularizers import (
    L1,
    MCP,
    Binary,
    Box,
    GroupLasso,
    GroupMCP,
    NofM,
    NuclearNorm,
    Null,
    Projection,
    Quantized,
    Regularizer,
    Scaled,
    SparseGroupLasso,
    SparseGroupMCP,
    TopEntries,
    TopGroups,
)
from ramda_jax.solvers import (
    ClosedForm,
    Context,
    DouglasRachford,
    NewtonRaphson,
    ProximalGradient,
    SecularNewton,
    Solution,
    Solver,
    SolverInfo,
    default_solver,
    summable_tolerance,
)
from ramda_jax.subproblem import ProximalPointState, Target, prox, proximal_point

__version__ = "0.2.0"

__all__ = [
    "AdaptiveDualAveragingState",
    "Binary",
    "Box",
    "ClosedForm",
    "Context",
    "DouglasRachford",
    "DualAveragingState",
    "GroupLasso",
    "GroupMCP",
    "HoldZerosState",
    "IterateAveragingState",
    "L1",
    "MCP",
    "ModelState",
    "NewtonRaphson",
    "NofM",
    "NuclearNorm",
    "Null",
    "PreconditionedState",
    "Projection",
    "ProximalGradient",
    "ProximalPointState",
    "QuadraticModel",
    "Quantized",
    "Regularizer",
    "Scaled",
    "SecularNewton",
    "Solution",
    "Solver",
    "SolverInfo",
    "SparseGroupLasso",
    "SparseGroupMCP",
    "Target",
    "TopEntries",
    "TopGroups",
    "adaptive_dual_averaging",
    "check_donation",
    "check_last",
    "compaction",
    "default_solver",
    "describe",
    "dual_averaging",
    "eval_params",
    "fused_step",
    "hold_zeros",
    "iterate_averaging",
    "metrics",
    "preconditioned",
    "prox",
    "prox_adamw",
    "prox_gen",
    "prox_sgd",
    "prox_ssi",
    "proximal_point",
    "ramda",
    "ramda_then_hold",
    "regularizers",
    "rmda",
    "solver_info",
    "solvers",
    "sqrt_growth",
    "stage_growth",
    "stages",
    "structure",
    "summable_tolerance",
]
