"""Douglas-Rachford splitting: for an expensive prox, because it treats the metric exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.numerics import at_step, group_norms, norm
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.solvers.base import Context, Solution, Solver
from ramda_jax.typing import MetricKind
from ramda_jax.validation import check_count, check_non_negative

#: V moves by this factor times Z - X. Every factor in (0, 2) converges; 1 and 1.6 are behind 1.3 after five iterations
#: (`benchmarks/NOTES.md`).
RELAXATION = 1.3
#: In the first iterations rho is adapted, after each by at most this factor. Then it stays, so that theory applies.
ADAPTED, FACTOR = 30, 10.0


@dataclasses.dataclass(frozen=True)
class DouglasRachford(Solver):
    """Douglas-Rachford splitting from the current parameters, for any convex psi with a prox.

        X = (rhs + rho V) / (metric + rho),   Z = prox_{weight psi / rho}(2 X - V),   V+ = V + 1.3 (Z - X)

    The result is Z. The start is `V = W - (rhs - metric W) / rho`, with the largest entry of the metric as rho, one
    number per block of psi. So X = W, the first Z is that of proximal gradient, and a solution W stays one: a method
    that converges is not kept from its limit by the iterations that are left out. An iteration takes one prox, as in
    `ProximalGradient`. But that has the step 1 / (largest entry of the metric) for all entries, while here X minimises
    the quadratic exactly, however far the entries of the metric are apart. So the same number of iterations leads much
    closer to the solution, and this is the default for the nuclear norm, whose prox is an SVD.

    In the first 30 iterations rho adapts to the problem, and V is changed so that the iteration goes on from the same Z
    and the same `Y = rho (2 X - V - Z)`, which is `weight` times a subgradient of psi at Z:

        rho+ = rho sqrt(||Y - Y_before|| / (rho ||Z - Z_before||)),   within a factor of 10 and the metric's range

    It stops when `(metric - rho)(Z - X)`, which is a subgradient of the objective at Z, has a norm of at most
    `rtol ||rhs||`. In dual averaging both `||rhs||` and the weight grow like alpha_t, so that rtol is a tolerance
    relative to alpha_t. The objective need not decrease monotonically.

    Args:
        max_steps: the largest number of iterations per solve and leaf, an int >= 2.
        rtol: the norm of the subgradient at which it stops, relative to `||rhs||`, >= 0; a number or a schedule of the
            0-based step. Below 10 machine eps it is raised to that.

    Raises:
        ValueError: max_steps is below 2; rtol is negative.
        TypeError: an argument is of another kind.

    Example:
        >>> import ramda_jax
        >>> optimizer = ramda_jax.ramda(1e-2, ramda_jax.NuclearNorm(), strength=1e-3,
        ...     solver=ramda_jax.DouglasRachford(max_steps=20, rtol=1e-4))

    References:
        Lions and Mercier, `Splitting algorithms for the sum of two nonlinear operators`, 1979. Eckstein and Bertsekas,
        `On the Douglas-Rachford splitting method and the proximal point algorithm`, 1992. Xu, Figueiredo and Goldstein,
        `Adaptive ADMM with spectral penalty parameter selection`, 2017, arXiv:1605.07246, whose rho this one resembles.
    """

    max_steps: int = 100
    rtol: float | optax.Schedule = 1e-6

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps, 2)
        check_non_negative("rtol", self.rtol)
        try:
            hash(self)
        except TypeError:
            raise TypeError(
                "`rtol` must be a Python number or a function, for the solver is a static part of the state; got "
                f"{self.rtol!r}; use float(...) or a schedule."
            ) from None

    def why_not(self, regularizer: Regularizer, metric_kind: MetricKind) -> str | None:
        if regularizer.coupling is not None:
            return "its psi is one of all leaves together, and the prox is of one leaf"
        if not regularizer.convex:
            return "its psi is not convex"
        return None

    def solve(self, model: QuadraticModel, regularizer: Regularizer, context: Context) -> Solution:
        rhs, weight = model.rhs, model.weight
        metric = jnp.broadcast_to(model.metric, rhs.shape)
        blocks = regularizer.inner_axes(rhs.ndim)
        screened = regularizer.screen(rhs, weight)
        alive = None if screened is None else jnp.broadcast_to(~screened, rhs.shape)

        def clip(z):
            return z if alive is None else jnp.where(alive, z, 0)

        start = clip(context.start)
        positive = jnp.where(metric == 0, 1, metric)
        lowest = jnp.min(positive, axis=blocks, keepdims=True, initial=jnp.inf)
        highest = jnp.max(positive, axis=blocks, keepdims=True, initial=0)
        # The fixed point if `start` is the solution. A smaller rho would take entries of a much larger metric far
        # beyond the minimum.
        first_v = start - (rhs - metric * start) / highest
        rtol = at_step(self.rtol, context.step, rhs.dtype)
        target = jnp.maximum(rtol, 10 * jnp.finfo(rhs.dtype).eps) * norm(rhs)

        def adapted(rho, z, y, z_before, y_before, num_steps):
            moved, turned = group_norms(rho * (z - z_before), blocks), group_norms(y - y_before, blocks)
            is_known = (moved > 0) & (turned > 0) & (num_steps < ADAPTED)
            ratio = jnp.sqrt(jnp.where(is_known, turned, 1)) / jnp.sqrt(jnp.where(is_known, moved, 1))
            return jnp.clip(rho * jnp.clip(ratio, 1 / FACTOR, FACTOR), lowest, highest)

        def step(carry):
            v, z_before, y_before, rho, _, _, num_steps = carry
            x = (rhs + rho * v) / (metric + rho)
            z = clip(regularizer.prox(2 * x - v, weight / rho))
            y = rho * (2 * x - v - z)
            residual = norm(clip((metric - rho) * (z - x)))
            # `isfinite`, because for an infinite rhs the target is infinite.
            is_done = (residual <= target) & jnp.isfinite(residual)
            next_rho = adapted(rho, z, y, z_before, y_before, num_steps)
            v = v + RELAXATION * (z - x) + (y / rho - y / next_rho)
            return v, z, y, next_rho, residual, is_done, num_steps + 1

        def is_unfinished(carry):
            *_, is_done, num_steps = carry
            return ~is_done & (num_steps < self.max_steps)

        first = (
            first_v,
            start,
            highest * (start - first_v),
            highest,
            jnp.zeros([], rhs.dtype),
            jnp.zeros([], bool),
            jnp.zeros([], jnp.int32),
        )
        _, value, _, _, residual, converged, num_steps = jax.lax.while_loop(is_unfinished, step, first)
        return Solution(value, None, num_steps, residual, converged)
