"""Secular Newton: the exact solution for psi of the group norms in a diagonal metric."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.solvers.base import Context, Solution, Solutions, Solver
from ramda_jax.solvers.secular_pass import LeafEquations
from ramda_jax.solvers.secular_passes import left_over_of_all, roots_by_passes, roots_to_rounding
from ramda_jax.typing import MetricKind
from ramda_jax.validation import check_count, check_flag


@dataclasses.dataclass(frozen=True)
class SecularNewton(Solver):
    """The exact minimiser for psi of the group norms in any diagonal metric.

        w_g = 0                            if ||rhs_g|| <= lam_g
        w_g = rhs_g / (metric + lam_g / r) otherwise, where r = ||w_g|| solves ||rhs_g / (metric r + lam_g)|| = 1

    where rhs is `regularizer.reduced(model.rhs, weight)` and lam_g the slope of `leaf_penalty` at 0. There is one
    scalar equation per group, and all groups are solved together.

    A solve starts from the radii of the last step's solution if they are known, as in the methods' chains, and else
    from zero. A pass over the data improves them with an error of fourth order and bounds that error. In training one
    pass is usually enough, and three from zero. Passes go on for a whole leaf or tile until the bounds of all groups
    are at rounding (`secular_passes`). The KKT residual is then a few machine eps times ||rhs||.

    For group MCP the result is the global minimiser, for any metric. Let m = metric - concavity (`NormPenalty`). The
    equation in m stays concave for r up to the knee, even if entries of m are negative. So only two candidates exist:
    the smallest root below the knee (or 0), and the unpenalised rhs / metric beyond it. The lower one is taken.

    On accelerators the library solves all leaves at once, by a fixed number of passes unless `strict`. Zeros are exact
    there too. If two passes do not bring a group to rounding, `SolverInfo` has a bound on its error, and the next step
    continues from there.

    Args:
        max_steps: the largest number of passes per solve, an int >= 1. In tests over 12 decades of metric no problem
            needed more than 12.
        strict: whether every group must be exact to rounding on every kind of device. This needs a loop, and a GPU
            waits for the host after each pass.

    Raises:
        ValueError: max_steps is below 1.
        TypeError: max_steps is not an int, or strict is not a bool.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> model = ramda_jax.QuadraticModel(
        ...     linear=jnp.array([[-3.0, -4.0], [0.3, 0.4]]), anchor=jnp.zeros((2, 2)),
        ...     metric=jnp.array([[1.0, 2.0], [1.0, 2.0]]), weight=jnp.array(1.0))
        >>> rows = ramda_jax.GroupLasso((0,), group_weight=1.0)
        >>> context = ramda_jax.solvers.Context(start=jnp.zeros((2, 2)))
        >>> ramda_jax.SecularNewton().solve(model, rows, context).value
        Array([[2.206981 , 1.6954015],
               [0.       , 0.       ]], dtype=float32)

    References:
        Moré and Sorensen, `Computing a trust region step`, 1983, solve one like it by Newton's method. Huang
        and Lee, NeurIPS 2024 (arXiv:2403.14398), section 3, is the subproblem.
    """

    max_steps: int = 40
    strict: bool = False
    keeps_radii = True
    by_group = True
    solves_at_once = True

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps, 1)
        check_flag("strict", self.strict)

    def why_not(self, regularizer: Regularizer, metric_kind: MetricKind) -> str | None:
        if not isinstance(regularizer, GroupRegularizer):
            return "it needs a psi of the group norms"
        return None

    def solve(self, model: QuadraticModel, regularizer: Regularizer, context: Context) -> Solution:
        solved = self.solve_at_once([(model, regularizer, context)], to_rounding=True)
        return Solution(solved.values[0], solved.radii[0], *solved[2:])

    def solve_at_once(
        self, leaves: Sequence[tuple[QuadraticModel, Regularizer, Context]], to_rounding: bool
    ) -> Solutions:
        # `run` only controls XLA (`xla.execution`). The passes and the point read the metric.
        leaves = [
            (model._replace(metric=context.run.keep(model.metric, model.anchor)), regularizer, context)
            for model, regularizer, context in leaves
        ]
        equations, run = [_equations(*leaf) for leaf in leaves], leaves[0][-1].run
        if to_rounding or self.strict:
            roots = roots_to_rounding(equations, run, self.max_steps)
        else:
            roots = roots_by_passes(equations, run)
        values = [_point(*leaf, radii) for leaf, radii in zip(leaves, roots.radii, strict=True)]
        return Solutions(values, roots.radii, roots.passes, *left_over_of_all(equations, roots.errors))

    def solve_groups(
        self, model: QuadraticModel, regularizer: Regularizer, context: Context
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What `solve_at_once` computes for one leaf, or for some of its groups, before it sums up over the groups.

        Returns:
            The minimiser; the norms of its groups, and for each group what is left (`Roots.errors`), with axes of
            length one inside the groups.
        """
        (radii,), errors, _ = roots_by_passes([_equations(model, regularizer, context)], context.run)
        return model.center_if_weightless(_point(model, regularizer, context, radii)), radii, errors


def _equations(model, regularizer, context):
    """The secular equations of one leaf."""
    assert isinstance(regularizer, GroupRegularizer)  # `why_not` has refused every other
    rhs = regularizer.reduced(model.rhs, model.weight)
    radii = context.radii
    if radii is None:
        radii = jnp.zeros(regularizer.radii_shape(rhs.shape), rhs.dtype)
    penalty = regularizer.leaf_penalty(rhs.shape, model.weight)
    return LeafEquations(rhs, model.metric, penalty, regularizer.inner_axes(rhs.ndim), radii)


def _point(model, regularizer, context, radii):
    """The solution of one leaf whose groups have the norms `radii`."""
    return regularizer.point(context.run.read_again(model), radii)
