"""The model of RMDA: a weighted sum of all gradients of a stage, in the metric sqrt(t)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.builders.restarts import first_anchor, reset, starts_stage
from ramda_jax.numerics import (
    add_evenly,
    at_step,
    limited,
    next_count,
    saturated,
    scalars_dtype,
    zeros_for_sums,
)
from ramda_jax.structure.belonging import check_state, check_step
from ramda_jax.structure.paths import named_leaves
from ramda_jax.validation import check_non_negative, check_params, checked_dtype, checked_restarts, require_params


class DualAveragingState(NamedTuple):
    """Sums of regularised dual averaging.

    Attributes:
        model_step: int32 `[]`, the number of all steps taken, with which schedules are called.
        stage_step: int32 `[]`, t, steps taken in this stage.
        step_size_sum: `[]`, alpha_t, the sum of the stage's step sizes s.
        grad_sum: V_t, the sum of s * gradient; the parameters' shapes, at least float32.
        anchor: W_0, the parameters at the stage's start; in `anchor_dtype` if there is one.
    """

    model_step: jax.Array
    stage_step: jax.Array
    step_size_sum: jax.Array
    grad_sum: optax.Params
    anchor: optax.Params

    def quadratic_model(self) -> QuadraticModel:
        """The model of the last step, for `strength = 1`."""
        # At least 1, so that there is no division by zero for a fresh state. The centre of its model is the anchor.
        metric = jnp.sqrt(jnp.maximum(self.stage_step, 1).astype(self.step_size_sum.dtype))
        by_leaf = jax.tree.map(lambda v: metric.astype(v.dtype), self.grad_sum)
        return QuadraticModel(self.grad_sum, self.anchor, by_leaf, self.step_size_sum, weight_is_sum=True)


def dual_averaging(
    learning_rate: optax.ScalarOrSchedule,
    restarts: tuple[int, ...] = (),
    anchor_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Model builder of RMDA: turns gradients into a `QuadraticModel`.

        s_t = eta_t sqrt(t),  V_t = V_{t-1} + s_t g_t,  alpha_t = alpha_{t-1} + s_t
        <V_t, W> + 1/2 sqrt(t) ||W - W_0||^2 + alpha_t psi(W)

    This is the first part of a chain, which `proximal_point` and `iterate_averaging` complete; `rmda` is that chain.
    Entries of a gradient are clipped at half the root of the largest float (9.2e18 in float32), so that its
    square is finite.

    Args:
        learning_rate: eta_t >= 0, a scalar or a schedule of the 0-based step.
        restarts: increasing 1-based step counts after which a stage ends. The first step of the next stage sets
            t, V and alpha to 0 and W_0 to the parameters it is given; schedules keep counting.
        anchor_dtype: the dtype in which the state keeps W_0, where it is narrower than the parameters'; None for the
            parameters' own. `jnp.bfloat16` saves 2 bytes a parameter of float32 (`docs/scale.md` has what it changes).
            The steps of a stage then start from the rounded W_0, also with a learning rate of 0.

    Returns:
        A `GradientTransformationExtraArgs` whose updates are a `QuadraticModel` of trees.

    Raises:
        ValueError: learning_rate is negative, or restarts do not increase; in `update`, params are missing, or the
            gradients or the state do not belong to them.
        TypeError: parameters or gradients are not real floating-point arrays; anchor_dtype is not a real
            floating-point dtype.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> builder = ramda_jax.dual_averaging(0.5)
        >>> params = jnp.array([1.0, 2.0])
        >>> model, _ = builder.update(jnp.array([2.0, 0.0]), builder.init(params), params)
        >>> model.linear, float(model.metric), float(model.weight)
        (Array([1., 0.], dtype=float32), 1.0, 0.5)

    References:
        Huang and Lee, `Training Structured Neural Networks Through Manifold Identification and Variance
        Reduction`, ICLR 2022, arXiv:2112.02612, Algorithm 1.
    """
    check_non_negative("learning_rate", learning_rate)
    restarts = checked_restarts("restarts", restarts)
    kept_dtype = checked_dtype("anchor_dtype", anchor_dtype, "bfloat16")

    def init(params):
        check_params(named_leaves(params))
        return DualAveragingState(
            model_step=jnp.zeros([], jnp.int32),
            stage_step=jnp.zeros([], jnp.int32),
            step_size_sum=jnp.zeros([], scalars_dtype(params)),
            grad_sum=zeros_for_sums(params),
            anchor=first_anchor(params, kept_dtype),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        require_params(params)
        check_state(DualAveragingState, state)
        check_step(updates, params, state.grad_sum)
        is_first = starts_stage(state.model_step, restarts) if restarts else None
        stage_step, alpha, step_size = next_step_size(learning_rate, state, is_first)

        def accumulate(total, g):
            total, g = reset(is_first, total, 0), limited(g, total.dtype)
            return saturated(total + step_size.astype(total.dtype) * g, total, g)

        new_state = DualAveragingState(
            model_step=next_count(state.model_step),
            stage_step=stage_step,
            step_size_sum=alpha,
            grad_sum=jax.tree.map(accumulate, state.grad_sum, updates),
            anchor=reset(is_first, state.anchor, params),
        )
        return new_state.quadratic_model(), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def next_step_size(
    learning_rate: optax.ScalarOrSchedule, state: Any, is_first: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """t, alpha_t and s_t of the step after `state`, which needs the first three fields of `DualAveragingState`."""
    dtype = state.step_size_sum.dtype
    stage_step = next_count(reset(is_first, state.stage_step, 0))
    # Take the root in the dtype of the sums: the root of an int32 is float32 even under x64.
    step_size = at_step(learning_rate, state.model_step, dtype) * jnp.sqrt(stage_step.astype(dtype))
    alpha = add_evenly(reset(is_first, state.step_size_sum, 0), step_size, stage_step)
    return stage_step, alpha, step_size
