"""Which leaves a fused kernel updates, and why the other leaves take the default path."""

import dataclasses
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupLasso, GroupRegularizer, PerGroup, SparseGroupLasso
from ramda_jax.regularizers.scaled import Scaled
from ramda_jax.solvers.base import Solver
from ramda_jax.solvers.secular_newton import SecularNewton
from ramda_jax.xla.tile_kernels import has_backend
from ramda_jax.xla.tile_plans import Chip, TilePlan, plan_tiles

#: The regularizers whose subproblem a tile can solve: convex, with one weight for all groups of a leaf.
_KINDS = (GroupLasso, SparseGroupLasso)
#: The dtypes of parameters and gradients that a kernel supports.
DTYPES = ("float32", "bfloat16")


class Claim(NamedTuple):
    """How a fused kernel updates a leaf.

    Attributes:
        plan: the leaf's tiles.
        regularizer: the regularizer, with the groups of `plan.shape`.
        solver: the leaf's solver.
    """

    plan: TilePlan
    regularizer: GroupRegularizer
    solver: SecularNewton


def check_fused(fused: Any) -> None:
    """Raises a ValueError unless `fused` is a bool or the name of a chip."""
    if not isinstance(fused, bool) and fused not in get_args(Chip):
        raise ValueError(
            f"`fused` must be a bool or one of {get_args(Chip)}, got {fused!r}; use True for kernels on TPUs and "
            "NVIDIA's GPUs."
        )


def claim_leaf(leaf: Any, regularizer: Regularizer | None, solver: Solver | None, chip: Chip) -> Claim | str:
    """The claim on a leaf, or the reason why the leaf takes the default path.

    Args:
        leaf: the parameters, or anything with their shape and dtype.
        regularizer: the regularizer, resolved for the leaf.
        solver: the regularizer's solver.
        chip: the chip that the kernel is for.
    """
    if regularizer is None:
        return "no regularizer"
    inner = regularizer.regularizer if isinstance(regularizer, Scaled) else regularizer
    if type(inner) not in _KINDS or not isinstance(regularizer, GroupRegularizer):
        return f"{type(inner).__name__} is not a group LASSO"
    if isinstance(regularizer.group_weight, PerGroup):
        return "its groups have weights of their own"
    if not isinstance(solver, SecularNewton) or solver.strict:
        return f"its solver is {solver!r}"
    if str(leaf.dtype) not in DTYPES:
        return f"its dtype is {leaf.dtype}"
    if not has_backend(chip):
        return "this JAX has no Pallas for such a chip"
    if chip == "tpu" and jax.config.read("jax_enable_x64"):
        return "JAX is in its 64-bit mode, in which Mosaic compiles no kernel"
    shape = tuple(leaf.shape)
    plan = plan_tiles(shape, regularizer.inner_axes(len(shape)), jnp.dtype(leaf.dtype).itemsize, chip)
    if isinstance(plan, str):
        return plan
    between = tuple(axis for axis in range(len(plan.shape)) if axis not in plan.inside)
    return Claim(plan, _with_groups(regularizer, between), solver)


def _with_groups(regularizer: Any, groups):
    if isinstance(regularizer, Scaled):
        return dataclasses.replace(regularizer, regularizer=_with_groups(regularizer.regularizer, groups))
    return dataclasses.replace(regularizer, groups=groups)
