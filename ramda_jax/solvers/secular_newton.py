"""Secular Newton: the exact solution for psi of the group norms in a diagonal metric."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupRegularizer, is_beyond_knee
from ramda_jax.solvers.base import Context, Solution, Solutions, Solver
from ramda_jax.solvers.secular_gauss import gauss_step
from ramda_jax.solvers.secular_passes import LeafEquations, group_roots, roots_by_passes
from ramda_jax.solvers.secular_root import SecularRoot, newton_root
from ramda_jax.typing import MetricKind
from ramda_jax.validation import check_count, check_flag


@dataclasses.dataclass(frozen=True)
class SecularNewton(Solver):
    """The exact minimiser for psi of the group norms in any diagonal metric.

        w_g = 0                            if ||rhs_g|| <= lam_g
        w_g = rhs_g / (metric + lam_g / r) otherwise, where r = ||w_g|| solves ||rhs_g / (metric r + lam_g)|| = 1

    where rhs is `regularizer.reduced(model.rhs, weight)` and lam_g the slope of `leaf_penalty` at 0. There is one
    scalar equation per group, and all groups are solved together.

    A solve starts from the radii of the last step's solution if they are known, as in the methods' chains. One pass
    over the data (`gauss_step`) improves them with an error of fourth order and bounds that error. In training this
    pass is usually enough. If any group's bound is above rounding, Newton's method (`newton_root`), which cannot
    overshoot, continues for the whole leaf or tile. Without radii Newton's method starts from zero; it took 3 steps on
    subproblems of real training. The KKT residual is at rounding, a few machine eps times ||rhs||.

    For group MCP the result is the global minimiser, for any metric. Let m = metric - concavity (`NormPenalty`). The
    equation in m stays concave for r up to the knee, even if entries of m are negative. So only two candidates exist:
    the smallest root below the knee (or 0), and the unpenalised rhs / metric beyond it. The lower one is taken.

    On accelerators the library solves all leaves by a fixed number of passes (`secular_passes`), unless `strict`.
    Zeros are exact there too. If two passes do not bring a group to rounding, `SolverInfo` has a bound on its error,
    and the next step continues from there.

    Args:
        max_steps: the largest number of Newton steps per solve, an int >= 1. In tests over 12 decades of metric no
            problem needed 40.
        strict: whether every group must be exact to rounding on every kind of device. This needs a branch and a loop
            for every leaf, and a GPU waits for the host at each of them.

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
        Moré and Sorensen, `Computing a trust region step`, 1983. Huang and Lee, NeurIPS 2024
        (arXiv:2403.14398), section 3, is the subproblem.
    """

    max_steps: int = 40
    strict: bool = False
    keeps_radii = True
    by_group = True

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps, 1)
        check_flag("strict", self.strict)

    @property
    def solves_at_once(self) -> bool:
        return not self.strict

    def why_not(self, regularizer: Regularizer, metric_kind: MetricKind) -> str | None:
        if not isinstance(regularizer, GroupRegularizer):
            return "it needs a psi of the group norms"
        return None

    def solve(self, model: QuadraticModel, regularizer: Regularizer, context: Context) -> Solution:
        assert isinstance(regularizer, GroupRegularizer)  # `why_not` has refused every other
        # `run` only controls XLA (`xla.execution`). With the plain `Execution`, `keep(x, ...)` is x and
        # `right_hand_side(...)` is rhs. A start from the last radii reads rhs in the pass, in the branch and for the
        # solution.
        run = context.run
        model = model._replace(metric=run.keep(model.metric, model.anchor))
        right_hand_side = run.each_pass(lambda model: regularizer.reduced(model.rhs, model.weight), model)
        rhs = right_hand_side()
        penalty = regularizer.leaf_penalty(rhs.shape, model.weight)
        axes = regularizer.inner_axes(rhs.ndim)
        if penalty.knee is not None:
            root = self._concave_root(rhs, model.metric, penalty, regularizer)
        elif context.radii is None:
            root = newton_root(rhs, model.metric, penalty.lam, axes, self.max_steps)
        else:
            root = self._root_from(context.radii, rhs, right_hand_side, model.metric, penalty.lam, axes, run)
            rhs = right_hand_side(after=root.num_steps)
        return _solution(rhs, model.metric, penalty, root)

    def solve_at_once(self, leaves: Sequence[tuple[QuadraticModel, Regularizer, Context]]) -> Solutions:
        # All leaves are run in the same way, so the first leaf's `run` has the sums for all.
        roots = roots_by_passes([_equations(*leaf) for leaf in leaves], leaves[0][-1].run.sums)
        values = [_point(*leaf, radii) for leaf, radii in zip(leaves, roots.radii, strict=True)]
        return Solutions(values, roots.radii, jnp.asarray(roots.passes, jnp.int32), roots.residual, roots.converged)

    def solve_groups(
        self, model: QuadraticModel, regularizer: Regularizer, context: Context
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What `solve_at_once` computes for one leaf, or for some of its groups, before it sums up over the groups.

        Returns:
            The minimiser; the norms of its groups, and for each group what is left (`GroupRoots.errors`), with axes of
            length one inside the groups.
        """
        (radii,), (errors,) = group_roots([_equations(model, regularizer, context)], context.run.sums)
        return model.center_if_weightless(_point(model, regularizer, context, radii)), radii, errors

    def _concave_root(self, rhs, metric, penalty, regularizer):
        """The radii of the global minimum for a concave penalty: the root below the knee, 0, or one beyond the knee."""
        axes = regularizer.inner_axes(rhs.ndim)
        root = newton_root(rhs, metric - penalty.concavity, penalty.lam, axes, self.max_steps, limit=penalty.knee)
        return root._replace(radii=_lower_minimum(rhs, metric, penalty, root.radii, regularizer))

    def _root_from(self, last_radii, rhs, right_hand_side, metric, lam, axes, run):
        """One pass from the last radii, and Newton's method where one pass is not enough."""
        step = gauss_step(rhs, metric, lam, axes, last_radii, run.sums)
        error = run.largest(jnp.max(step.error, initial=0))
        done = error <= jnp.finfo(error.dtype).eps

        def one_pass():
            return SecularRoot(step.radii, step.error, done, jnp.ones([], jnp.int32))

        def newton():
            # `step.radii` are left of the roots, as `newton_root` requires, or 0, from where it can always start. The
            # branch computes rhs again (`each_pass`): keeping the pass's copy would be one more live temporary.
            root = newton_root(
                right_hand_side(), metric, lam, axes, self.max_steps - 1, start=step.radii, sums=run.sums
            )
            return root._replace(num_steps=root.num_steps + 1)

        return run.unless(done, one_pass, newton)


def _equations(model, regularizer, context):
    """The secular equations of one leaf."""
    rhs = regularizer.reduced(model.rhs, model.weight)
    radii = context.radii
    if radii is None:
        radii = jnp.zeros(regularizer.radii_shape(rhs.shape), rhs.dtype)
    penalty = regularizer.leaf_penalty(rhs.shape, model.weight)
    return LeafEquations(rhs, model.metric, penalty, regularizer.inner_axes(rhs.ndim), radii)


def _point(model, regularizer, context, radii):
    """The solution of one leaf whose groups have the norms `radii`."""
    return regularizer.point(context.run.read_again(model), radii)


def _solution(rhs, metric, penalty, root):
    """The `Solution` that belongs to a root."""
    # A bound on the norm of all groups' residuals. Computing the norm itself would dominate the cost for small leaves.
    residual = math.sqrt(root.error.size) * jnp.max(penalty.lam * root.error, initial=0)
    # For a concave penalty `root.converged` is about the root alone, and the point may lie beyond the knee.
    converged = root.converged if penalty.knee is None else root.converged & jnp.all(jnp.isfinite(root.radii))
    value = penalty.point(rhs, metric, root.radii)
    return Solution(value, root.radii, root.num_steps, residual, converged)


def _lower_minimum(rhs, metric, penalty, radii, regularizer):
    """The radii of the lower of two minima: the stationary point below the knee (or 0), and the one beyond it."""
    inner = penalty.point(rhs, metric, radii)
    outer = rhs / metric
    outer_radii = regularizer.norms(outer)
    axes = regularizer.inner_axes(inner.ndim)

    def objective(w, r):
        terms = w * (0.5 * metric * w - rhs)
        return jnp.sum(terms, axis=axes, keepdims=True) + penalty.value(r)

    is_lower = objective(outer, outer_radii) < objective(inner, radii)
    leaves_zero = regularizer.norms(rhs) > penalty.lam
    is_outer = is_beyond_knee(radii, outer_radii, is_lower, leaves_zero, penalty.knee)
    return jnp.where(is_outer, outer_radii, radii)
