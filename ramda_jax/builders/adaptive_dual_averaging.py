"""The model of RAMDA: dual averaging in the metric of the cube root of the squared gradients' sum."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ramda_jax.builders.dual_averaging import next_step_size
from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.builders.restarts import first_anchor, reset, starts_stage
from ramda_jax.numerics import (
    at_step,
    cbrt,
    cbrt_for_step,
    limited,
    next_count,
    saturated,
    scalars_dtype,
    zeros_for_sums,
)
from ramda_jax.structure.belonging import check_state, check_step
from ramda_jax.structure.paths import named_leaves
from ramda_jax.validation import (
    check_non_negative,
    check_params,
    check_positive,
    checked_dtype,
    checked_restarts,
    require_params,
)
from ramda_jax.xla.many_leaves import map_entries
from ramda_jax.xla.one_program import one_program


class AdaptiveDualAveragingState(NamedTuple):
    """Sums of regularised adaptive dual averaging.

    Attributes:
        model_step: int32 `[]`, the number of all steps taken, with which schedules are called.
        stage_step: int32 `[]`, t, steps taken in this stage.
        step_size_sum: `[]`, alpha_t, the sum of the stage's step sizes s.
        epsilon: `[]`, the eps of the last step.
        grad_sum: V_t, the sum of s * gradient; the parameters' shapes, at least float32.
        grad_sq_sum: U_t, the sum of s * gradient^2; like `grad_sum`.
        anchor: W_0, the parameters at the stage's start; in `anchor_dtype` if there is one.
    """

    model_step: jax.Array
    stage_step: jax.Array
    step_size_sum: jax.Array
    epsilon: jax.Array
    grad_sum: optax.Params
    grad_sq_sum: optax.Params
    anchor: optax.Params

    def quadratic_model(self) -> QuadraticModel:
        """The model of the last step, for `strength = 1`."""

        def diagonal(u):
            return metric_of(u, self.epsilon, cbrt_for_step)

        # alpha_t serves only as a scalar whose value the compiler does not know (`xla.many_leaves`).
        metric = map_entries(diagonal, self.grad_sq_sum, self.step_size_sum)
        return QuadraticModel(self.grad_sum, self.anchor, metric, self.step_size_sum, weight_is_sum=True)


@one_program("root")
def metric_of(grad_sq_sum: jax.Array, epsilon: jax.Array, root: Callable[[jax.Array], jax.Array] = cbrt) -> jax.Array:
    """`cbrt(U) + eps` of one leaf, with `root` as the cube root."""
    return root(grad_sq_sum) + epsilon.astype(grad_sq_sum.dtype)


def with_gradient(total: jax.Array, gradient: jax.Array, step_size: jax.Array, is_first: jax.Array | None) -> jax.Array:
    """`V + s g` of one leaf.

    Args:
        total: V of the last step.
        gradient: g, of any real dtype.
        step_size: s, a scalar.
        is_first: whether this is the first step of a stage, which adds to 0; None for never.
    """
    return _accumulated(total, limited(gradient, total.dtype), step_size, is_first)


def with_square(total: jax.Array, gradient: jax.Array, step_size: jax.Array, is_first: jax.Array | None) -> jax.Array:
    """`U + s g^2` of one leaf; the arguments are as those of `with_gradient`."""
    # Square in the dtype of the sum, because in float16 the square of 1e-4 is 0.
    return _accumulated(total, jnp.square(limited(gradient, total.dtype)), step_size, is_first)


def _accumulated(total, term, step_size, is_first):
    # The first step of a stage adds to 0, and takes its parameters as W_0 (`starts_stage`).
    total = reset(is_first, total, 0)
    return saturated(total + step_size.astype(total.dtype) * term, total, term)


def adaptive_dual_averaging(
    learning_rate: optax.ScalarOrSchedule,
    eps: optax.ScalarOrSchedule = 1e-6,
    restarts: tuple[int, ...] = (),
    anchor_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Model builder of RAMDA: turns gradients into a `QuadraticModel`.

        s_t = eta_t sqrt(t),  V_t = V_{t-1} + s_t g_t,  U_t = U_{t-1} + s_t g_t^2,  alpha_t = alpha_{t-1} + s_t
        <V_t, W> + 1/2 ||W - W_0||^2_{cbrt(U_t) + eps_t} + alpha_t psi(W)

    This is the first part of a chain, which `proximal_point` and `iterate_averaging` complete; `ramda` is that chain.
    Entries of a gradient are clipped at half the root of the largest float (9.2e18 in float32), so that its
    square is finite.

    Args:
        learning_rate: eta_t >= 0, a scalar or a schedule of the 0-based step.
        eps: eps_t > 0, which is added to the metric; a scalar or a schedule.
        restarts: increasing 1-based step counts after which a stage ends. The first step of the next stage sets
            t, V, U and alpha to 0 and W_0 to the parameters it is given; schedules keep counting.
        anchor_dtype: the dtype in which the state keeps W_0, where it is narrower than the parameters'; None for the
            parameters' own. `jnp.bfloat16` saves 2 bytes a parameter of float32 (`docs/scale.md` has what it changes).
            The steps of a stage then start from the rounded W_0, also with a learning rate of 0.

    Returns:
        A `GradientTransformationExtraArgs` whose updates are a `QuadraticModel` of trees.

    Raises:
        ValueError: learning_rate is negative, eps is not above 0, or restarts do not increase; in `update`, params are
            missing, or the gradients or the state do not belong to them.
        TypeError: parameters or gradients are not real floating-point arrays; anchor_dtype is not a real
            floating-point dtype.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> builder = ramda_jax.adaptive_dual_averaging(1.0)
        >>> params = jnp.array([1.0, 2.0])
        >>> model, _ = builder.update(jnp.array([8.0, 1.0]), builder.init(params), params)
        >>> model.linear, model.metric.round(3), float(model.weight)
        (Array([8., 1.], dtype=float32), Array([4., 1.], dtype=float32), 1.0)

    References:
        Huang and Lee, `Regularized Adaptive Momentum Dual Averaging with an Efficient Inexact Subproblem
        Solver for Training Structured Neural Network`, NeurIPS 2024, arXiv:2403.14398, Algorithm 1.
    """
    check_non_negative("learning_rate", learning_rate)
    check_positive("eps", eps)
    restarts = checked_restarts("restarts", restarts)
    kept_dtype = checked_dtype("anchor_dtype", anchor_dtype, "bfloat16")

    def init(params):
        check_params(named_leaves(params))
        dtype = scalars_dtype(params)
        return AdaptiveDualAveragingState(
            model_step=jnp.zeros([], jnp.int32),
            stage_step=jnp.zeros([], jnp.int32),
            step_size_sum=jnp.zeros([], dtype),
            epsilon=jnp.ones([], dtype),
            grad_sum=zeros_for_sums(params),
            grad_sq_sum=zeros_for_sums(params),
            anchor=first_anchor(params, kept_dtype),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        require_params(params)
        check_state(AdaptiveDualAveragingState, state)
        check_step(updates, params, state.grad_sum)
        is_first = starts_stage(state.model_step, restarts) if restarts else None
        stage_step, alpha, step_size = next_step_size(learning_rate, state, is_first)

        def accumulate_gradient(total, g):
            return with_gradient(total, g, step_size, is_first)

        def accumulate_square(total, g):
            return with_square(total, g, step_size, is_first)

        new_state = AdaptiveDualAveragingState(
            model_step=next_count(state.model_step),
            stage_step=stage_step,
            step_size_sum=alpha,
            epsilon=at_step(eps, state.model_step, alpha.dtype),
            grad_sum=jax.tree.map(accumulate_gradient, state.grad_sum, updates),
            grad_sq_sum=jax.tree.map(accumulate_square, state.grad_sq_sum, updates),
            anchor=reset(is_first, state.anchor, params),
        )
        return new_state.quadratic_model(), new_state

    return optax.GradientTransformationExtraArgs(init, update)
