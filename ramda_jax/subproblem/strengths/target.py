"""A strength that is found while training, from a share of zeros instead of lambda."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.null import Null
from ramda_jax.regularizers.scaled import Scaled
from ramda_jax.structure.assignment import Assignment
from ramda_jax.validation import check_count, check_positive, checked_restarts

#: In the length of a stage log lambda changes by GAIN (wanted - share).
GAIN = 40.0


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """The share of the regularized weights that should be zero. lambda is found while training, and then held.

        A_t = min(A_{t-1} + s_t lambda_t, q_t)                 the weight of psi; A = 0 at the start of each stage
        log lambda_{t+1} = log lambda_t + 40 / (length of the stage) (share - share of W_hat in the last ten steps)

    Here s_t is the increment of alpha_t. (For the methods with c_t = 1 the weight is eta_t lambda_t.) q_t is the
    smallest weight for which the wanted share of the model's minimiser is zero. This cap keeps a start that is too high
    from zeroing the whole network; when it is active, lambda becomes at most q_t / alpha_t. From the step `hold` on
    lambda is constant. The weight of psi then tends to alpha_t lambda, and from the next restart on it equals that
    bitwise. So every theorem for a constant lambda applies.

    All regularized leaves of an optimizer share one lambda. In a mapping, `strength={"conv": Target(0.5), "dense":
    Target(0.9)}`, the leaves of a pattern do. A target is given as `strength` to any method, with `L1`, `MCP` and the
    group regularizers. `optax.tree.get(state, "strength")` has lambda (`current`, and `next` for the next step) and the
    `share`. Weights that read inputs that are never active are zero at any strength, and a share below theirs cannot be
    reached.

    Args:
        share: the share that should be zero, in (0, 1); or a schedule of it, a function of the 0-based step that JAX
            can trace. The number may be traced too, so that one program serves many shares. The range of a schedule or
            a traced number is not checked.
        of: `"weights"` (groups count by their sizes, as in `metrics.weighted_group_sparsity`), `"groups"`, or a mapping
            from the leaves' paths to NumPy or JAX arrays of one cost per group, >= 0, which broadcast to the groups'
            norms. Or a function of boolean arrays by path, which say which groups are alive. It returns the share that
            is removed, a scalar that JAX can trace and that grows with the number of dead groups, as
            `compaction.share_removed` does.
        start: lambda of the first step, > 0.
        hold: the 0-based step from which on lambda is constant. None for the middle of the last stage if its length is
            known (`total_steps`), else for its start.
        ends: 1-based step counts after which a stage ends; `ramda` and `rmda` fill in their `restarts`.
        total_steps: the length of the run; `stages(total_steps=...)` fills it in.
        exact_at: a 0-based step in which the weight of psi is q_t itself, whatever lambda is. So the share of W_hat is
            the wanted one in this step, or up to one group above it (in leaves of more than 65,536 groups, of which
            a sample counts, to about 1e-4). It is for the last step before zeros are held, as in `ramda_then_hold`.
            From this step to the next restart the weight is not that of a constant lambda.

    Raises:
        ValueError: share is outside (0, 1); start is not above 0; hold is 0, or the run does not reach it; the run does
            not reach exact_at; ends are beyond the run; costs are negative, infinite or NaN, or all 0; in a method,
            hold, ends and total_steps are all missing.
        TypeError: a number is of the wrong kind; `of` is neither a name nor a mapping of arrays of real numbers nor a
            function.

    Example:
        >>> import ramda_jax
        >>> settings = ramda_jax.stages(learning_rate=1e-2, total_steps=20_000)
        >>> optimizer = ramda_jax.ramda(regularizer=ramda_jax.GroupLasso(), strength=ramda_jax.Target(0.9), **settings)
    """

    share: Any  # a float, a traced one or a schedule
    of: Literal["weights", "groups"] | Mapping[str, Any] | Callable[[Mapping[str, Any]], Any] = "weights"
    start: float = 1e-4
    hold: int | None = None
    ends: tuple[int, ...] = ()
    total_steps: int | None = None
    exact_at: int | None = None

    def __post_init__(self) -> None:
        remedy = "use for example `Target(0.9)` for nine tenths."
        share: Any = self.share
        if not callable(share) and not (isinstance(share, jax.Array) and share.ndim == 0):
            if isinstance(share, bool) or not isinstance(share, (int, float)):
                raise TypeError(f"`share` must be a number, a traced one or a schedule, got {share!r}; {remedy}")
            if not 0 < share < 1:
                raise ValueError(f"`share` must be above 0 and below 1, got {share!r}; {remedy}")
        if isinstance(self.of, str) and self.of not in ("weights", "groups"):
            raise ValueError(
                f"`of` must be 'weights', 'groups' or a mapping of costs, got {self.of!r}; use "
                "`compaction.share_removed(dims, 'parameters', regularizer)` for the parameters or FLOPs to be removed."
            )
        if not isinstance(self.of, (str, Mapping)) and not callable(self.of):
            raise TypeError(
                f"`of` must be 'weights', 'groups', a mapping of costs or a function, got {self.of!r}; use 'weights' "
                "for the regularized weights."
            )
        check_positive("start", self.start, schedules=False)
        for name, least in (("hold", 1), ("exact_at", 0), ("total_steps", 1)):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least)
        object.__setattr__(self, "ends", checked_restarts("ends", self.ends))
        last_end = self.ends[-1] if self.ends else 0
        for name, step in (("ends", last_end), ("hold", self.hold or 0), ("exact_at", self.exact_at or 0)):
            if self.total_steps is not None and step >= self.total_steps:
                raise ValueError(
                    f"`{name}` must be below `total_steps`, got {getattr(self, name)!r} and {self.total_steps!r}; use "
                    "steps that the run reaches."
                )
        if isinstance(self.of, Mapping):
            _check_costs(self.of)

    def at_step(self, step: Any) -> "Target":
        """This target at a 0-based step, with a number as share."""
        return dataclasses.replace(self, share=jnp.asarray(self.share(step))) if callable(self.share) else self

    def within(self, restarts: Sequence[int]) -> "Target":
        """This target in a run of these stages, and of their length if they are `StageEnds`.

        `ends` and `total_steps` that the target was given are kept.
        """
        total_steps = getattr(restarts, "total_steps", None) if self.total_steps is None else self.total_steps
        return dataclasses.replace(
            self, ends=self.ends or checked_restarts("restarts", restarts), total_steps=total_steps
        )

    def held_from(self) -> int:
        """The 0-based step from which on lambda is constant.

        Raises:
            ValueError: hold, ends and total_steps are all missing.
        """
        if self.hold is not None:
            return self.hold
        start = self.ends[-1] if self.ends else 0
        if self.total_steps is not None and self.total_steps > start:
            return start + math.ceil((self.total_steps - start) / 2)
        if start == 0:
            raise ValueError(
                "A `Target` must know when to hold its lambda, but neither `hold` nor stages nor `total_steps` are "
                "given; use for example `Target(0.9, total_steps=20_000)`, or `**stages(total_steps=20_000, ...)`."
            )
        return start

    def stage_lengths(self) -> tuple[int, ...]:
        """The number of steps of each stage in which lambda moves."""
        starts = (0, *self.ends)
        last = starts[-1]
        # If the length of the last stage is unknown: lambda moves in half of a stage, so take twice that time.
        length = self.total_steps - last if self.total_steps is not None else 2 * (self.held_from() - last)
        return (*(end - start for start, end in itertools.pairwise(starts)), max(length, 1))


def _check_costs(costs):
    remedy = "use for example `{'dense/kernel': np.ones((8, 1))}`."
    for path, array in costs.items():
        array = np.asarray(array)
        if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
            raise TypeError(f"Costs must be arrays of real numbers, got {array.dtype} at '{path}'; {remedy}")
        is_right = np.isfinite(array) & (array >= 0)
        if not np.all(is_right):
            raise ValueError(f"Costs must be finite and at least 0, got {array[~is_right][0]} at '{path}'; {remedy}")
    if not any(np.any(np.asarray(array) > 0) for array in costs.values()):
        raise ValueError(f"Some cost must be above 0, got none at {list(costs)}; {remedy}")


def check_target(target: Target, assignment: Assignment) -> None:
    """Raises a ValueError unless the target knows when to hold lambda, and there is a regularizer."""
    target.held_from()
    if not assignment.regularizers:
        raise ValueError("A `Target` must be given with a regularizer, got None; use for example `GroupLasso()`.")


def check_targeted(regularizer: Regularizer) -> None:
    """Raises a ValueError unless a regularizer has more zeros at a larger weight, as a target needs."""
    inner = regularizer.regularizer if isinstance(regularizer, Scaled) else regularizer
    if type(inner).zeroing_weight is Regularizer.zeroing_weight and not isinstance(inner, Null):
        raise ValueError(
            f"A `Target` must be given with regularizers whose zeros grow with their weight, got {regularizer!r}; "
            "use for example `GroupLasso()` or `L1()`, or a number as `strength`."
        )
