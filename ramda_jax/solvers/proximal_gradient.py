"""Proximal gradient: the NeurIPS paper's own solver, which works for every regularizer."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.numerics import at_step, norm
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.solvers.base import Context, Solution, Solver
from ramda_jax.typing import MetricKind
from ramda_jax.validation import check_count, check_non_negative, check_number_above


@dataclasses.dataclass(frozen=True)
class ProximalGradient(Solver):
    """Algorithm 2 of the NeurIPS paper, from the current parameters, for any psi with a prox.

        Z+ = prox_{theta weight psi}(Z - theta (metric Z - rhs))

    Here theta is 1 / max of the metric, and half of that for a nonconvex psi. Blocks that are certain to be zero
    (`Regularizer.screen`) start and stay at zero. There are two stopping rules.

    `tolerance=None` selects the rule of the NeurIPS paper's section 6 and of its released code: a leaf stops when
    `(Q_before - Q) / (|Q| + 1) < rtol`, where Q is the objective over the blocks that survived the screening. The rule
    first applies after two iterations, as the paper demands for ProxGen. In float32 an rtol of 1e-8 means: when Q stops
    decreasing. No theorem covers this rule.

    `tolerance=epsilon_t` selects condition (7) of the NeurIPS paper: `min ||s|| over s in dQ(Z) <= epsilon_t` and
    `Q(Z) <= Q(start)`. The check is nearly free, because `(metric - 1 / theta)(Z+ - Z)` is a subgradient of Q at Z+.
    The norm is over all regularized leaves. A leaf gets the share sqrt(its size / size of all), times eta_t if the
    model is eta_t times the paper's (`QuadraticModel.objective_scale`). A tolerance below 10 machine eps ||rhs|| cannot
    be reached in floating point, and is raised to that. The paper's theorems on RAMDA are stated for a finite sum of
    epsilon_t^2, which `summable_tolerance` gives. Their proofs only use epsilon_t / alpha_t -> 0, and so a constant
    epsilon is enough for RAMDA. ProxGen's theorem does need the finite sum.

    On a metric of many decades the result of the default 100 iterations can be tens of percent off; `SecularNewton` is
    exact.

    Args:
        max_steps: the largest number of iterations per solve and leaf, an int >= 2.
        rtol: the relative decrease at which the released rule stops, >= 0. With 0 it never stops early, and a leaf has
            converged if the residual is below 10 machine eps ||rhs||.
        tolerance: epsilon_t >= 0 of condition (7), a number or a schedule of the 0-based step; None for the released
            rule.
        accelerate: whether to use FISTA with gradient restart, which needs far fewer iterations for the nuclear norm.
            It does not descend monotonically, so the released rule uses the absolute value of the change of Q.
        stepsize: `"block"` for one theta per block of psi (per group), as in the released code; `"leaf"` for one theta
            per leaf, which is up to hundreds of times slower. (The paper has one theta for all leaves.)

    Raises:
        ValueError: max_steps is below 2; rtol or tolerance is negative; stepsize is unknown.
        TypeError: an argument is of another kind.

    Example:
        >>> import ramda_jax
        >>> optimizer = ramda_jax.ramda(1e-2, ramda_jax.GroupLasso(), strength=1e-4,
        ...     solver=ramda_jax.ProximalGradient(tolerance=ramda_jax.summable_tolerance(1e-3)))

    References:
        Huang and Lee, NeurIPS 2024, arXiv:2403.14398, Algorithm 2 and equation (7).
    """

    max_steps: int = 100
    rtol: float = 1e-8
    tolerance: float | optax.Schedule | None = None
    accelerate: bool = False
    stepsize: Literal["block", "leaf"] = "block"

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps, 2)
        check_non_negative("rtol", self.rtol, schedules=False)
        if self.tolerance is not None:
            check_non_negative("tolerance", self.tolerance)
        if self.stepsize not in ("block", "leaf"):
            raise ValueError(f"`stepsize` must be 'block' or 'leaf', got {self.stepsize!r}; use 'block'.")
        try:
            hash(self)
        except TypeError:
            raise TypeError(
                "`rtol` and `tolerance` must be Python numbers or functions, for the solver is a static part of the "
                f"state; got {self.rtol!r} and {self.tolerance!r}; use float(...) or a schedule."
            ) from None

    def why_not(self, regularizer: Regularizer, metric_kind: MetricKind) -> str | None:
        if regularizer.coupling is not None:
            return "its psi is one of all leaves together, and the prox is of one leaf"
        return None

    def solve(self, model: QuadraticModel, regularizer: Regularizer, context: Context) -> Solution:
        rhs, weight = model.rhs, model.weight
        metric = jnp.broadcast_to(model.metric, rhs.shape)
        blocks = regularizer.inner_axes(rhs.ndim) if self.stepsize == "block" else None
        largest = jnp.max(metric, axis=blocks, keepdims=True, initial=0)
        curvature = (1 if regularizer.convex else 2) * jnp.where(largest == 0, 1, largest)
        screened = regularizer.screen(rhs, weight)
        alive = None if screened is None else jnp.broadcast_to(~screened, rhs.shape)

        def clip(z):
            return z if alive is None else jnp.where(alive, z, 0)

        start = clip(context.start)
        floor = target = 10 * jnp.finfo(rhs.dtype).eps * norm(rhs)
        if self.tolerance is not None:
            target = jnp.maximum(
                at_step(self.tolerance, context.step, rhs.dtype) * (context.share * model.objective_scale), floor
            )

        def step(carry):
            z, y, momentum, q, _, _, num_steps = carry
            # Screened entries are zero before and after the prox. `prox_and_value` takes both from one decomposition.
            forward = clip(y - (metric * y - rhs) / curvature)
            new, psi = regularizer.prox_and_value(forward, weight / curvature)
            new = clip(new)
            new_q = model.smooth_value(new, where=alive) + weight * psi
            subgradient = clip((metric - curvature) * (new - y))
            residual = norm(subgradient)
            if self.tolerance is not None:
                # `isfinite`, because for an infinite rhs the floor, and so the target, is infinite.
                is_done = (residual <= target) & jnp.isfinite(residual)
            else:
                change = jnp.abs(q - new_q) if self.accelerate else q - new_q
                # The first iteration has no Q to compare with, because the released code does not compute Q(start).
                # With rtol = 0 the rule must never stop; without the last condition it would stop when rounding makes Q
                # rise.
                is_done = (num_steps >= 1) & (change / (jnp.abs(new_q) + 1) < self.rtol) & (self.rtol > 0)
            if not self.accelerate:
                return new, new, momentum, new_q, residual, is_done, num_steps + 1
            # Restart where the momentum points uphill (O'Donoghue and Candes, 2015).
            is_uphill = jnp.sum((y - new) * (new - z)) > 0
            next_momentum = jnp.where(is_uphill, 1, (1 + jnp.sqrt(1 + 4 * jnp.square(momentum))) / 2)
            extrapolation = jnp.where(is_uphill, 0, (momentum - 1) / next_momentum)
            return new, new + extrapolation * (new - z), next_momentum, new_q, residual, is_done, num_steps + 1

        def is_unfinished(carry):
            *_, is_done, num_steps = carry
            return ~is_done & (num_steps < self.max_steps)

        # The released rule does not use Q(start), which may cost a decomposition.
        start_q = jnp.zeros_like(floor)
        if self.tolerance is not None:
            start_q = model.smooth_value(start, where=alive) + weight * regularizer.value(start)
        value, _, _, q, residual, converged, num_steps = jax.lax.while_loop(
            is_unfinished,
            step,
            (
                start,
                start,
                jnp.ones_like(start_q),
                start_q,
                jnp.zeros_like(start_q),
                jnp.zeros([], bool),
                jnp.zeros([], jnp.int32),
            ),
        )
        if self.tolerance is None and self.rtol == 0:
            converged = (residual <= floor) & jnp.isfinite(residual)
        converged &= jnp.isfinite(q)
        if self.tolerance is not None:
            # The second half of condition (7). The iterates descend, so only rounding can violate it.
            slack = 10 * jnp.finfo(rhs.dtype).eps * (jnp.abs(start_q) + 1)
            converged &= q <= start_q + slack
        return Solution(value, None, num_steps, residual, converged)


def summable_tolerance(scale: float, power: float = 0.75) -> optax.Schedule:
    """The schedule `epsilon_t = scale / t^power`, t = 1, 2, ..., for `ProximalGradient(tolerance=...)`.

    Args:
        scale: epsilon_1 > 0.
        power: a number > 1/2, so that the sum of epsilon_t^2 is finite, as in the NeurIPS paper's theorems.

    Returns:
        A schedule, from the 0-based step to the tolerance.

    Raises:
        ValueError: scale is not above 0, power is not above 1/2, or one of them is infinite or NaN.

    Example:
        >>> import ramda_jax
        >>> print(f"{ramda_jax.summable_tolerance(1e-3, power=1.0)(9):.4f}")
        0.0001

    References:
        Huang and Lee, NeurIPS 2024, arXiv:2403.14398, equation (8), Theorems 2 and 4.
    """
    check_number_above("scale", scale, 0, "use for example 1e-3.")
    check_number_above("power", power, 0.5, "use 0.75, for a finite sum of squares.")

    # Divide by powers of at most 4: near the end of the step counter a greater power would overflow in float32.
    parts = math.ceil(power / 4)

    def schedule(step):
        divisor = (jnp.asarray(step, dtype=float) + 1) ** (power / parts)
        tolerance = scale
        for _ in range(parts):
            tolerance = tolerance / divisor
        return tolerance

    return schedule
