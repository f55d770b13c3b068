"""The model of the methods that step from the last iterate: ProxSGD, ProxGen, ProxSSI."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.numerics import at_step, gradient_limit, limited, next_count, scalars_dtype, sums_dtype, zeros_for_sums
from ramda_jax.structure.belonging import FRESH, check_belongs, check_same_state, check_state, check_step
from ramda_jax.structure.paths import named_leaves
from ramda_jax.validation import check_non_negative, check_params, require_params


class PreconditionedState(NamedTuple):
    """State of `preconditioned`.

    Attributes:
        model_step: int32 `[]`, the number of steps taken, with which schedules are called.
        direction_state: the state of the Optax transformation that gives the direction; in at least float32.
    """

    model_step: jax.Array
    direction_state: Any


def preconditioned(
    learning_rate: optax.ScalarOrSchedule,
    transform: optax.GradientTransformation,
    metric: Callable[[Any], Any] | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    *,
    decay_after_step: bool = False,
    numerator: Callable[[Any], tuple[Any, Any]] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Model builder of ProxGen: the proximal version of any Optax transformation with a diagonal metric.

        <eta_t D_t u_t, W> + 1/2 ||W - (1 - eta_t wd) W_{t-1}||^2_{D_t} + eta_t psi(W)

    Here u_t is the output of `transform` for the gradient, and D_t is the diagonal by which `transform` has divided.
    Without psi the minimiser is the step of the transformation itself, `W_{t-1} - eta_t (u_t + wd W_{t-1})`.

    This is the first part of a chain, which `proximal_point` and `iterate_averaging(1.0)` complete. `prox_gen` is that
    chain, and `prox_sgd`, `prox_adamw` and `prox_ssi` are special cases of it.

    | transform | metric |
    |---|---|
    | `optax.ema(b1, debias=False)` | None |
    | `optax.scale_by_adam(b1, b2, eps)` | `sqrt(nu / (1 - b2^count)) + eps` |
    | `optax.scale_by_amsgrad(b1, b2, eps)` | `sqrt(nu_max) + eps` |
    | `optax.scale_by_rms(decay, eps)` | `sqrt(nu + eps)` |
    | `optax.scale_by_rss(0.0, eps)` (Adagrad) | `sqrt(sum_of_squares + eps)` |

    Args:
        learning_rate: eta_t >= 0; a scalar or a schedule of the 0-based step.
        transform: an Optax transformation from gradients to u_t, unscaled and not negated. It gets gradients, and at
            `init` zeros, in at least float32, so that its sums have at least this dtype.
        metric: a function from the transformation's new state to D_t > 0, a tree of the parameters' structure; None
            for 1.
        weight_decay: wd >= 0, decoupled as in AdamW; a scalar or a schedule.
        decay_after_step: whether to decay the result of the step, `(1 - eta_t wd)(W_{t-1} - eta_t u_t)`, as ProxSSI
            does.
        numerator: a function from the transformation's new state to `(v, a)` with `D_t u_t = a v`, the direction before
            the division by D_t: `v` a tree like the parameters, ideally one that the state already holds, and `a` a
            scalar. None to compute `D_t u_t` as a product.

    Returns:
        A `GradientTransformationExtraArgs` whose updates are a `QuadraticModel` of trees.

    Raises:
        ValueError: learning_rate or weight_decay is negative; in `update`, params are missing, or the gradients or the
            state do not belong to them.
        TypeError: transform is not an Optax transformation; parameters or gradients are not real floating-point arrays.

    Example:
        >>> import jax, jax.numpy as jnp, optax, ramda_jax
        >>> optimizer = optax.chain(
        ...     ramda_jax.preconditioned(0.1, optax.scale_by_rms(decay=0.9, eps=1e-8),
        ...         lambda state: jax.tree.map(lambda nu: jnp.sqrt(nu + 1e-8), state.nu)),
        ...     ramda_jax.proximal_point(ramda_jax.L1(), strength=0.1),
        ...     ramda_jax.iterate_averaging(1.0))

    References:
        Yun, Lozano and Yang, `Adaptive Proximal Gradient Methods for Structured Neural Networks` (ProxGen),
        NeurIPS 2021, arXiv:2006.07484. Huang and Lee, NeurIPS 2024, arXiv:2403.14398, Algorithm 3.
    """
    check_non_negative("learning_rate", learning_rate)
    check_non_negative("weight_decay", weight_decay)
    if not (hasattr(transform, "init") and hasattr(transform, "update")):
        raise TypeError(
            f"`transform` must be an `optax.GradientTransformation`, got {transform!r}; use for example "
            "`optax.scale_by_adam()`."
        )
    transform = optax.with_extra_args_support(transform)

    def widen(tree, params):
        # Use the parameters' dtype and not the gradients', because the dtype of sums must not change.
        return jax.tree.map(lambda x, p: x.astype(sums_dtype(p.dtype)), tree, params)

    def limit(grads, params):
        return jax.tree.map(lambda g, p: limited(g, sums_dtype(p.dtype)), grads, params)

    def init(params):
        check_params(named_leaves(params))
        return PreconditionedState(
            model_step=jnp.zeros([], jnp.int32), direction_state=transform.init(zeros_for_sums(params))
        )

    def update(updates, state, params=None, **extra_args):
        require_params(params)
        check_state(PreconditionedState, state)
        check_step(updates, params)
        try:
            direction, direction_state = transform.update(
                limit(updates, params), state.direction_state, widen(params, params), **extra_args
            )
        except Exception as error:
            # If the state belongs to another method, say so instead. (This is checked only now, because it is
            # expensive.)
            own = jax.eval_shape(transform.init, jax.eval_shape(zeros_for_sums, params))
            try:
                check_same_state(state.direction_state, own)
            except ValueError as reason:
                raise reason from error
            raise
        check_same_state(state.direction_state, direction_state)
        check_belongs("The directions of `transform`", direction, "the parameters", params, FRESH)
        dtype = scalars_dtype(params)
        rate = at_step(learning_rate, state.model_step, dtype)
        kept = 1 - rate * at_step(weight_decay, state.model_step, dtype)
        diagonal = jax.tree.map(lambda u: jnp.ones([], u.dtype), direction)
        if metric is not None:
            diagonal = metric(direction_state)
        # Use the dtype of the sums: the decayed point is not stored, and need not be rounded to the parameters' dtype.
        anchor = jax.tree.map(lambda p, u: kept.astype(u.dtype) * p.astype(u.dtype), params, direction)
        if numerator is None:
            diagonal = jax.tree.map(_without_overflow, diagonal, direction)
            linear, linear_factor = jax.tree.map(lambda u, d: u * d, direction, diagonal), rate
        else:
            linear, linear_factor = numerator(direction_state)
            linear_factor = rate * linear_factor
        if decay_after_step:
            linear_factor = linear_factor * kept
        model = QuadraticModel(linear, anchor, diagonal, weight=rate, objective_scale=rate, linear_factor=linear_factor)
        new_state = PreconditionedState(next_count(state.model_step), direction_state)
        return model, new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _without_overflow(diagonal, direction):
    """The diagonal, with the root of the largest float where it has overflowed although the direction is finite.

    This happens where a sum of squares overflows; its root would be at most that number. (An infinite metric times a
    direction of 0 would be NaN.)
    """
    root = 2 * gradient_limit(diagonal.dtype)
    is_finite = jnp.isfinite(direction)
    # A scalar metric stays a scalar, because it has other solvers.
    is_finite = is_finite if jnp.ndim(diagonal) else jnp.all(is_finite)
    return jnp.where(jnp.isinf(diagonal) & is_finite, root, diagonal)
