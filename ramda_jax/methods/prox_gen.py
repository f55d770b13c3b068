"""ProxGen: proximal steps in the metric of any adaptive method."""

from collections.abc import Callable
from typing import Any

import optax

from ramda_jax.averaging.iterate_averaging import iterate_averaging
from ramda_jax.builders.preconditioned import preconditioned
from ramda_jax.subproblem import proximal_point
from ramda_jax.subproblem.checks import check_solvable
from ramda_jax.typing import RegularizerSpec, SolverSpec, StrengthSpec


def prox_gen(
    learning_rate: optax.ScalarOrSchedule,
    regularizer: RegularizerSpec = None,
    strength: StrengthSpec | None = None,
    *,
    transform: optax.GradientTransformation,
    metric: Callable[[Any], Any] | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    decay_after_step: bool = False,
    numerator: Callable[[Any], tuple[Any, Any]] | None = None,
    solver: SolverSpec = None,
) -> optax.GradientTransformationExtraArgs:
    """ProxGen: the proximal version of any Optax transformation with a diagonal metric.

        W_t = argmin_W <eta_t D_t u_t, W> + 1/2 ||W - (1 - eta_t wd) W_{t-1}||^2_{D_t} + strength eta_t psi(W)

    Here u_t is the output of `transform` for the gradient, and D_t is `metric` of its state; `preconditioned` has a
    table of transformations and metrics. The iterate is exactly structured at every step. But the noise of the last
    gradients may change its structure at every step. That of `ramda` settles where its iterates converge.

    Args:
        learning_rate: eta_t >= 0; a scalar or a schedule of the 0-based step.
        regularizer: which leaf gets which psi, as in `ramda`.
        strength: lambda >= 0, the weight of psi: a scalar or a schedule; or a `Target`, the share that should be zero;
            or a mapping of patterns on the leaves' paths to these, the first match wins.
            Required with a regularizer.
        transform: from gradients to u_t, unscaled, such as `optax.scale_by_adam()`.
        metric: a function from the transformation's state to D_t > 0, a tree of the parameters' shapes; None for 1.
            (Under `optax.inject_hyperparams` name it in `static_args`: Optax takes other functions for schedules.)
        weight_decay: wd >= 0, decoupled; a scalar or a schedule.
        decay_after_step: whether to decay the result of the step instead of the point that it starts from.
        numerator: a function from the transformation's state to (v, a), a tree and a scalar with D_t u_t = a v. It
            saves arrays in memory. None to multiply u_t by D_t. (Name it in `static_args` too.)
        solver: a `Solver` for all regularizers, a mapping of patterns to solvers, or None for each regularizer's
            `default_solver`.

    Returns:
        A `GradientTransformationExtraArgs`; `update` needs params.

    Raises:
        ValueError, TypeError: as `ramda` and `preconditioned`.

    Example:
        >>> import jax, jax.numpy as jnp, optax, ramda_jax
        >>> optimizer = ramda_jax.prox_gen(
        ...     0.1, ramda_jax.L1(), strength=0.1,
        ...     transform=optax.scale_by_rss(0.0, eps=1e-7),  # Adagrad
        ...     metric=lambda state: jax.tree.map(lambda s: jnp.sqrt(s + 1e-7), state.sum_of_squares))

    References:
        Yun, Lozano and Yang, `Adaptive Proximal Gradient Methods for Structured Neural Networks`, NeurIPS 2021,
        arXiv:2006.07484.
    """
    check_solvable(regularizer, solver, "scalar" if metric is None else "diagonal")
    return optax.chain(
        preconditioned(
            learning_rate, transform, metric, weight_decay, decay_after_step=decay_after_step, numerator=numerator
        ),
        proximal_point(regularizer, strength, solver),
        iterate_averaging(1.0),
    )
