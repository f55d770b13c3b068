"""The choice of a default solver."""

from typing import NamedTuple, get_args

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.solvers.base import Solver
from ramda_jax.solvers.closed_form import ClosedForm
from ramda_jax.solvers.douglas_rachford import DouglasRachford
from ramda_jax.solvers.proximal_gradient import ProximalGradient
from ramda_jax.solvers.secular_newton import SecularNewton
from ramda_jax.typing import MetricKind

METRIC_KINDS = get_args(MetricKind)


class SolverChoice(NamedTuple):
    """A solver, and the reason why it is the default."""

    solver: Solver
    reason: str


def choose_solver(regularizer: Regularizer, metric_kind: MetricKind) -> SolverChoice:
    """The default solver for a regularizer in a kind of metric, and why: the first row that fits.

    | regularizer | metric | solver | why |
    |---|---|---|---|
    | any | `"scalar"` (RMDA, ProxSGD) | `ClosedForm()` | the subproblem is the ordinary prox |
    | a sum over single entries | `"diagonal"` (RAMDA, ProxAdamW) | `ClosedForm()` | one scalar prox per entry |
    | a hard target | `"diagonal"` | `ClosedForm()` | keeps the parts whose removal would cost most |
    | a function of the group norms | `"diagonal"` | `SecularNewton()` | one scalar equation per group, solved exactly |
    | convex, expensive prox | `"diagonal"` | `DouglasRachford(max_steps=5, rtol=1e-3)` | an SVD: the scripts' five |
    | not convex, expensive prox | `"diagonal"` | `ProximalGradient(max_steps=5, rtol=1e-3)` | the same five |
    | any other | `"diagonal"` | `ProximalGradient()` | needs nothing but the prox |

    Raises:
        TypeError: regularizer is not a `Regularizer`.
        ValueError: metric_kind is unknown.

    Example:
        >>> import ramda_jax
        >>> ramda_jax.solvers.choose_solver(ramda_jax.GroupLasso(), "diagonal").reason
        'psi is a function of the group norms: one scalar equation per group, solved exactly'
    """
    if not isinstance(regularizer, Regularizer):
        raise TypeError(f"`regularizer` must be a `Regularizer`, got {regularizer!r}; use for example `GroupLasso()`.")
    if metric_kind not in METRIC_KINDS:
        raise ValueError(
            f"`metric_kind` must be one of {METRIC_KINDS}, got {metric_kind!r}; use 'diagonal', as for RAMDA, or "
            "'scalar', as for RMDA."
        )
    if metric_kind == "scalar":
        return SolverChoice(ClosedForm(), "the metric is a multiple of the identity: the ordinary prox")
    if regularizer.elementwise:
        return SolverChoice(ClosedForm(), "psi is a sum over single entries: one scalar prox per entry")
    if regularizer.any_metric:
        return SolverChoice(ClosedForm(), "psi says that it has a closed form in any metric")
    if isinstance(regularizer, GroupRegularizer):
        return SolverChoice(
            SecularNewton(), "psi is a function of the group norms: one scalar equation per group, solved exactly"
        )
    if regularizer.expensive_prox:
        kind = DouglasRachford if regularizer.convex else ProximalGradient
        return SolverChoice(
            kind(max_steps=5, rtol=1e-3), "each iteration is an expensive prox, an SVD: the released scripts' five"
        )
    return SolverChoice(ProximalGradient(), "psi has a prox but no exact form in a diagonal metric")


def default_solver(regularizer: Regularizer, metric_kind: MetricKind = "diagonal") -> Solver:
    """The solver that the methods use for a regularizer by default; `solvers.choose_solver` also says why.

    Args:
        regularizer: a `Regularizer`.
        metric_kind: `"diagonal"` (RAMDA) or `"scalar"` (RMDA).

    Returns:
        A `Solver`, by the table in `solvers.choose_solver`.

    Raises:
        TypeError: regularizer is not a `Regularizer`.
        ValueError: metric_kind is unknown.

    Example:
        >>> import ramda_jax
        >>> ramda_jax.default_solver(ramda_jax.GroupLasso())
        SecularNewton(max_steps=40, strict=False)
    """
    return choose_solver(regularizer, metric_kind).solver
