"""What a solver is: the minimiser of one leaf's quadratic model plus psi."""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import Grouped
from ramda_jax.typing import MetricKind
from ramda_jax.xla.execution import PLAIN, Execution


class Solution(NamedTuple):
    """What a solve knows.

    Attributes:
        value: the minimiser of one leaf, in the dtype of the model.
        radii: `||value_g||`, one number per group, exactly 0 where the group is; None from a solver that does
            not find them.
        num_steps: int32 `[]`, iterations.
        residual: `[]`, the distance of 0 to the subdifferential of the objective at `value`, or a bound on it.
        converged: bool `[]`, whether the solver's own stopping rule was met.
    """

    value: jax.Array
    radii: Any
    num_steps: jax.Array
    residual: jax.Array
    converged: jax.Array


class Solutions(NamedTuple):
    """What a solve of several leaves at once knows.

    Attributes:
        values: the leaves' minimisers.
        radii: the norms of their groups, as in `Solution`.
        num_steps, residual, converged: as in `Solution`, over all leaves.
    """

    values: list[jax.Array]
    radii: list[jax.Array]
    num_steps: jax.Array
    residual: jax.Array
    converged: jax.Array


class SolverInfo(NamedTuple):
    """How the last step's solves went, over all the regularized leaves.

    Attributes:
        num_steps: int32 `[]`, the most iterations on any leaf.
        residual: `[]`, root of the sum of the leaves' squared residuals.
        converged: bool `[]`, whether all converged.
    """

    num_steps: jax.Array
    residual: jax.Array
    converged: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("start", "step", "radii", "run"), meta_fields=("share",)
)
@dataclasses.dataclass(frozen=True)
class Context:
    """What a solve may know beside the model. A pytree; `share` is static.

    Attributes:
        start: the current parameters of the leaf, in the dtype of the model.
        step: the 0-based step, for a tolerance that is a schedule.
        share: the leaf's share of a tolerance on the norm over all regularized leaves:
            the root of its size over the size of all.
        radii: the norms of the leaf's groups in the last solution, from which a solver may start; None if unknown.
        run: how the library runs the solve; a solver may ignore it.
    """

    start: jax.Array
    step: Any = 0
    share: float = 1.0
    radii: Any = None
    run: Execution = PLAIN


class Solver(abc.ABC):
    """Minimises `<linear, W> + 1/2 ||W - anchor||^2_metric + weight psi(W)` for one leaf.

    Subclasses are frozen dataclasses, hashable, without `__call__`: the optimizer's state names them.
    """

    #: Whether `Solution.radii` are the groups' norms. They are kept in the state, one number per group.
    keeps_radii: ClassVar[bool] = False

    #: Whether it takes several steps: False for a closed form.
    iterates: ClassVar[bool] = True

    #: Whether it solves every group by itself, so that any groups of a leaf may be solved together.
    by_group: ClassVar[bool] = False

    @property
    def solves_at_once(self) -> bool:
        """Whether it has `solve_at_once`."""
        return False

    @abc.abstractmethod
    def why_not(self, regularizer: Regularizer, metric_kind: MetricKind) -> str | None:
        """What it lacks to solve for this regularizer in a `"scalar"` or `"diagonal"` metric; None if it can."""

    @abc.abstractmethod
    def solve(self, model: QuadraticModel, regularizer: Regularizer, context: Context) -> Solution:
        """The minimiser; where the model's weight is 0, `proximal_point` takes the centre instead."""

    def solve_at_once(self, leaves: Sequence[tuple[QuadraticModel, Regularizer, Context]]) -> Solutions:
        """The minimisers of several leaves of one dtype, without a branch or a loop; what accelerators run.

        There a branch or a loop makes the device wait for its host. What is left undone, within the bound `residual`,
        is for the next step.
        """
        raise NotImplementedError(f"{type(self).__name__} solves leaf by leaf; use `solve`.")

    def restore(
        self, model: QuadraticModel, regularizer: Regularizer, context: Context, radii: jax.Array | None
    ) -> jax.Array:
        """The minimiser that `solve` found earlier for the same model.

        Args:
            radii: what `solve` left as `Solution.radii`; None from a solver that finds none, or for a psi
                without groups. The minimiser is then found again.
        """
        if radii is None:
            return self.solve(model, regularizer, context).value
        assert isinstance(regularizer, Grouped)
        return regularizer.point(model, radii)


def check_solver(solver: Solver, regularizer: Regularizer, metric_kind: MetricKind) -> None:
    """Raises a ValueError that names both and the remedy if the solver cannot solve that regularizer."""
    reason = solver.why_not(regularizer, metric_kind)
    if reason is not None:
        raise ValueError(
            f"{type(solver).__name__} cannot solve {regularizer!r} in a {metric_kind} metric: {reason}; use "
            "`solver=None` for the default, `default_solver(regularizer, metric_kind)` to see which that is, or "
            "`ProximalGradient()`, which solves every regularizer."
        )
