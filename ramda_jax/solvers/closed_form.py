"""Closed forms: a formula without iterations."""

import dataclasses

import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.numerics import norms_for_step
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import Grouped, GroupRegularizer
from ramda_jax.solvers.base import Context, Solution, Solver
from ramda_jax.typing import MetricKind


@dataclasses.dataclass(frozen=True)
class ClosedForm(Solver):
    """The closed form of the subproblem: the ordinary prox of the centre, or a formula for each entry.

        W = argmin_W 1/2 ||W||^2_metric - <rhs, W> + weight psi(W)

    It solves any psi in a scalar metric (RMDA, ProxSGD). In a diagonal metric (RAMDA, ProxAdamW) it solves sums over
    single entries and hard targets.

    Example:
        >>> import ramda_jax
        >>> ramda_jax.default_solver(ramda_jax.GroupLasso(), "scalar")
        ClosedForm()
    """

    keeps_radii = True
    iterates = False

    def why_not(self, regularizer: Regularizer, metric_kind: MetricKind) -> str | None:
        if metric_kind == "diagonal" and not (regularizer.elementwise or regularizer.any_metric):
            return "its psi is not a sum over single entries, so that there is no closed form in such a metric"
        return None

    def solve(self, model: QuadraticModel, regularizer: Regularizer, context: Context) -> Solution:
        if isinstance(regularizer, GroupRegularizer):
            # This is the prox, computed from the radii, which the state keeps.
            rhs = regularizer.reduced(context.run.keep(model.rhs, model.anchor), model.weight)
            penalty = regularizer.leaf_penalty(rhs.shape, model.weight)
            radii = penalty.radii(norms_for_step(rhs, regularizer.inner_axes(rhs.ndim)), model.metric)
            value = penalty.point(rhs, model.metric, radii)
        else:
            value = regularizer.solve_scaled(model.rhs, model.metric, model.weight)
            radii = regularizer.norms(value) if isinstance(regularizer, Grouped) else None
        # A formula always converges, but a NaN is not a solution. For groups it is enough to check the radii, of which
        # there are fewer. For a sum over entries, checking all entries would make the step half as long again; there
        # `solver_info` looks for values that are not finite in the state.
        is_solved = jnp.ones([], bool)
        if radii is not None or not (regularizer.elementwise or regularizer.any_metric):
            is_solved = jnp.all(jnp.isfinite(value if radii is None else radii))
        residual = jnp.where(is_solved, jnp.zeros([], value.dtype), jnp.inf)
        return Solution(value, radii, jnp.zeros([], jnp.int32), residual, is_solved)
