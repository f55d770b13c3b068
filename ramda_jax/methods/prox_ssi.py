"""ProxSSI: proximal steps in the uncorrected metric of AdamW."""

import jax
import jax.numpy as jnp
import optax

from ramda_jax.builders.uncorrected_adam import bias_correction, scale_by_uncorrected_adam
from ramda_jax.methods.prox_gen import prox_gen
from ramda_jax.numerics import scalars_dtype
from ramda_jax.typing import RegularizerSpec, SolverSpec, StrengthSpec
from ramda_jax.validation import check_decay, check_positive


def prox_ssi(
    learning_rate: optax.ScalarOrSchedule,
    regularizer: RegularizerSpec = None,
    strength: StrengthSpec | None = None,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    solver: SolverSpec = None,
) -> optax.GradientTransformationExtraArgs:
    """ProxSSI, as in its authors' code: a step of AdamW, then the prox in its metric.

        m_t = b1 m_{t-1} + (1 - b1) g_t,  v_t = b2 v_{t-1} + (1 - b2) g_t^2,  D_t = sqrt(v_t) + eps
        Z_t = (1 - eta_t wd) (W_{t-1} - eta_t sqrt(1 - b2^t) / (1 - b1^t) m_t / D_t)
        W_t = argmin_W 1/2 ||W - Z_t||^2_{D_t} + strength eta_t psi(W)

    ProxSSI differs from `prox_adamw` in more than the solver. The metric has no bias correction, so that the prox is
    stronger: by the factor 1 / sqrt(1 - b2), about 32, at the first step, and still by 3 % after 2,800 steps. eps is
    1e-6. The decay comes after the step. Its authors' solver is `NewtonRaphson()`; the default here is `SecularNewton`,
    which solves the same equation exactly in fewer steps.

    Args:
        learning_rate: eta_t >= 0; a scalar or a schedule of the 0-based step.
        regularizer: which leaf gets which psi, as in `ramda`.
        strength: lambda >= 0, the weight of psi: a scalar or a schedule; or a `Target`, the share that should be zero;
            or a mapping of patterns on the leaves' paths to these, the first match wins.
            Required with a regularizer.
        b1, b2: decay of the averages of the gradient and of its square, in [0, 1).
        eps: a number > 0 that is added to the metric.
        weight_decay: wd >= 0, decoupled; a scalar or a schedule.
        solver: a `Solver` for all regularizers, a mapping of patterns to solvers, or None for each regularizer's
            `default_solver`.

    Returns:
        A `GradientTransformationExtraArgs`; `update` needs params. Its state holds two buffers of the parameters' size.

    Raises:
        ValueError, TypeError: as `ramda`.
        ValueError: b1 or b2 is outside [0, 1).

    Example:
        >>> import jax, jax.numpy as jnp, optax, ramda_jax
        >>> params = {"kernel": jnp.array([[1.0, 1.0], [0.01, 0.01]])}
        >>> optimizer = ramda_jax.prox_ssi(0.1, ramda_jax.GroupLasso(), strength=0.01)
        >>> grads = {"kernel": jnp.full((2, 2), 0.1)}
        >>> updates, _ = optimizer.update(grads, optimizer.init(params), params)
        >>> (optax.apply_updates(params, updates)["kernel"] != 0).any(axis=1)
        Array([ True, False], dtype=bool)

    References:
        Deleu and Bengio, `Structured Sparsity Inducing Adaptive Optimizers for Deep Learning`, 2021,
        arXiv:2102.03869, and their released code.
    """
    check_decay("b1", b1)
    check_decay("b2", b2)
    check_positive("eps", eps, schedules=False)
    return prox_gen(
        learning_rate,
        regularizer,
        strength,
        transform=scale_by_uncorrected_adam(b1, b2, eps),
        metric=lambda state: jax.tree.map(lambda nu: jnp.sqrt(nu) + eps, state.nu),
        weight_decay=weight_decay,
        decay_after_step=True,
        numerator=lambda state: (state.mu, bias_correction(state.count, b1, b2, scalars_dtype(state.mu))),
        solver=solver,
    )
