"""RAMDA's whole step for a tile of groups, as a fused kernel computes it.

The kernel calls the same functions as the parts of the chain.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.averaging.iterate_averaging import averaging_step
from ramda_jax.builders.adaptive_dual_averaging import metric_of, with_gradient, with_square
from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.builders.restarts import reset
from ramda_jax.fused.claims import Claim
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.solvers.base import Context
from ramda_jax.solvers.secular_newton import SecularNewton
from ramda_jax.xla.execution import OnChip
from ramda_jax.xla.tile_kernels import TileKernel, TileValues


class StepScalars(NamedTuple):
    """The inputs of a step in addition to the arrays: real numbers.

    Attributes:
        step_size: s_t.
        epsilon: eps_t.
        weight: the weight of psi, including the strength.
        is_first: whether this is the first step of a stage.
        averaging: c_t.
    """

    step_size: jax.Array
    epsilon: jax.Array
    weight: jax.Array
    is_first: jax.Array
    averaging: jax.Array


class LeafArrays(NamedTuple):
    """The arrays of a leaf before or after a step.

    Attributes:
        grad_sum, grad_sq_sum, anchor: as in the builder's state.
        radii: the norms of the groups in the last solution.
        point: W_hat, after a step that does not write the parameters.
        params: the parameters, after a step that writes them.
        errors: the groups' error bounds after a step (`Roots`).
    """

    grad_sum: jax.Array
    grad_sq_sum: jax.Array
    anchor: jax.Array
    radii: jax.Array
    point: jax.Array | None = None
    params: jax.Array | None = None
    errors: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class TileStep:
    """A `TileFunction`.

    Attributes:
        regularizer, solver: those of the `Claim`.
        restarts: whether the run has stages, so that W_0 may become the parameters.
        writes_params: whether the result is the next parameters; otherwise it is W_hat.
    """

    regularizer: GroupRegularizer
    solver: SecularNewton
    restarts: bool
    writes_params: bool

    def __call__(self, scalars: tuple[jax.Array, ...], values: TileValues) -> TileValues:
        step = StepScalars(*scalars)
        gradient, grad_sum, grad_sq_sum, anchor, *params = values.entries
        is_first = step.is_first != 0 if self.restarts else None
        grad_sum = with_gradient(grad_sum, gradient, step.step_size, is_first)
        grad_sq_sum = with_square(grad_sq_sum, gradient, step.step_size, is_first)
        anchor = reset(is_first, anchor, params[0]) if self.restarts else anchor
        metric = metric_of(grad_sq_sum, step.epsilon)
        model = QuadraticModel(grad_sum, anchor.astype(grad_sum.dtype), metric, step.weight, weight_is_sum=True)
        context = Context(start=model.anchor, radii=values.groups[0], run=OnChip())
        point, radii, errors = self.solver.solve_groups(model, self.regularizer, context)
        result = _next_params(params[0], point, step.averaging) if self.writes_params else point
        anchors = (anchor,) if self.restarts else ()
        return TileValues((grad_sum, grad_sq_sum, *anchors, result), (radii, errors))


def _next_params(params, point, averaging):
    """The parameters after `optax.apply_updates` of the averaging's update."""
    update = averaging_step(point, params, averaging)
    # Add in float32, because not every chip can add in bfloat16. It is rounded once, so the result is the same.
    return (params.astype(jnp.float32) + update.astype(jnp.float32)).astype(params.dtype)


def step_leaf(
    claim: Claim,
    scalars: StepScalars,
    gradient: jax.Array,
    params: jax.Array,
    before: LeafArrays,
    *,
    restarts: bool,
    writes_params: bool,
    interpret: bool,
) -> LeafArrays:
    """One step of one leaf in one kernel.

    Args:
        claim: the claim on the leaf.
        scalars: the scalars of the step.
        gradient, params: the leaf's gradient and parameters.
        before: the leaf's state before the step.
        restarts, writes_params: as in `TileStep`.
        interpret: as in `TileKernel`.
    """
    reads_params = restarts or writes_params
    result = params.dtype if writes_params else before.grad_sum.dtype
    dtypes = (before.grad_sum.dtype, before.grad_sq_sum.dtype, *((before.anchor.dtype,) if restarts else ()), result)
    in_place = ((1, 0), (2, 1), *(((3, 2),) if restarts else ()), *(((4, len(dtypes) - 1),) if writes_params else ()))
    kernel = TileKernel(
        plan=claim.plan,
        function=TileStep(claim.regularizer, claim.solver, restarts, writes_params),
        entries=tuple(np.dtype(dtype) for dtype in dtypes),
        groups=2,
        in_place=in_place,
        interpret=interpret,
    )
    entries = (gradient, before.grad_sum, before.grad_sq_sum, before.anchor, *((params,) if reads_params else ()))
    (grad_sum, grad_sq_sum, *anchors, new), (radii, errors) = kernel(scalars, TileValues(entries, (before.radii,)))
    anchor = anchors[0] if restarts else before.anchor
    if writes_params:
        return LeafArrays(grad_sum, grad_sq_sum, anchor, radii, params=new, errors=errors)
    return LeafArrays(grad_sum, grad_sq_sum, anchor, radii, point=new, errors=errors)
