"""The interface of solvers, which minimise a leaf's quadratic model plus psi."""

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
    """The result of a solve.

    Attributes:
        value: the minimiser for one leaf, of its shape, in the dtype of the model.
        radii: `||value_g||`, one number per group, exactly 0 for a zero group; None from a solver that does not compute
            them.
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
    """The result of a solve of several leaves at once.

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
    """How the last step's solves went, over all regularized leaves.

    Attributes:
        num_steps: int32 `[]`, the largest number of iterations on any leaf.
        residual: `[]`, the root of the sum of the leaves' squared residuals.
        converged: bool `[]`, whether all leaves converged.
    """

    num_steps: jax.Array
    residual: jax.Array
    converged: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("start", "step", "radii", "run"), meta_fields=("share",)
)
@dataclasses.dataclass(frozen=True)
class Context:
    """What a solver gets in addition to the model. A pytree; `share` is static.

    Attributes:
        start: the current parameters of the leaf, of its shape, in the dtype of the model.
        step: the 0-based step, for a tolerance that is a schedule.
        share: the leaf's share of a tolerance on the norm over all regularized leaves, in (0, 1]: the root of its size
            over the size of all.
        radii: the norms of the leaf's groups in the last solution, from which a solver may start; None if unknown.
        run: how the library runs the solve (`xla.execution`); a solver may ignore it.
    """

    start: jax.Array
    step: Any = 0
    share: float = 1.0
    radii: Any = None
    run: Execution = PLAIN


class Solver(abc.ABC):
    """Minimises `<linear, W> + 1/2 ||W - anchor||^2_metric + weight psi(W)` for one leaf.

    Subclasses are frozen dataclasses. They are hashable, because they are a static part of the optimizer's state, and
    do not define `__call__`.
    """

    #: Whether `Solution.radii` are the groups' norms. The state then keeps them, one number per group.
    keeps_radii: ClassVar[bool] = False

    #: Whether the solver iterates: False for a closed form.
    iterates: ClassVar[bool] = True

    #: Whether the solver treats every group by itself, so that a part of the groups can be solved apart (in tiles).
    by_group: ClassVar[bool] = False

    #: Whether the solver has `solve_at_once`. A subclass with a `solve` of its own must have its own `solve_at_once`
    #: too, or the library calls `solve` for every leaf.
    solves_at_once: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "solve" in vars(cls) and "solve_at_once" not in vars(cls):
            cls.solves_at_once = False

    @abc.abstractmethod
    def why_not(self, regularizer: Regularizer, metric_kind: MetricKind) -> str | None:
        """Why the solver cannot solve for this regularizer in a `"scalar"` or `"diagonal"` metric; None if it can."""

    @abc.abstractmethod
    def solve(self, model: QuadraticModel, regularizer: Regularizer, context: Context) -> Solution:
        """The minimiser for one leaf. If the model's weight is 0, `proximal_point` takes the centre instead."""

    def solve_at_once(
        self, leaves: Sequence[tuple[QuadraticModel, Regularizer, Context]], to_rounding: bool
    ) -> Solutions:
        """The minimisers of several leaves of one dtype, all run in the same way.

        Args:
            leaves: the leaves.
            to_rounding: whether to solve to rounding, as `solve` does. Accelerators pass False. They wait for their
                host at each branch and loop, so there should be none. The remaining error, whose bound is `residual`,
                is then reduced in the next step.
        """
        raise NotImplementedError(f"{type(self).__name__} can only solve leaf by leaf; use `solve`.")

    def restore(
        self, model: QuadraticModel, regularizer: Regularizer, context: Context, radii: jax.Array | None
    ) -> jax.Array:
        """The minimiser that `solve` found earlier for the same model.

        Args:
            radii: the `Solution.radii` of that solve. They are None from a solver that does not compute them, or for a
                psi without groups; the subproblem is then solved again.
        """
        if radii is None:
            return self.solve(model, regularizer, context).value
        assert isinstance(regularizer, Grouped)
        return regularizer.point(model, radii)


def check_solver(solver: Solver, regularizer: Regularizer, metric_kind: MetricKind) -> None:
    """Raises a ValueError if the solver cannot solve for that regularizer; it names both, and the remedy."""
    reason = solver.why_not(regularizer, metric_kind)
    if reason is not None:
        raise ValueError(
            f"{type(solver).__name__} cannot solve {regularizer!r} in a {metric_kind} metric: {reason}; use "
            "`solver=None` for the default, `default_solver(regularizer, metric_kind)` to see which that is, or "
            "`ProximalGradient()`, which solves every regularizer."
        )
