"""ProxAdamW: ProxGen with AdamW."""

import jax
import jax.numpy as jnp
import optax

from ramda_jax.methods.prox_gen import prox_gen
from ramda_jax.numerics import scalars_dtype, weight_of_average
from ramda_jax.typing import RegularizerSpec, SolverSpec, StrengthSpec
from ramda_jax.validation import check_decay, check_positive


def prox_adamw(
    learning_rate: optax.ScalarOrSchedule,
    regularizer: RegularizerSpec = None,
    strength: StrengthSpec | None = None,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    amsgrad: bool = False,
    solver: SolverSpec = None,
) -> optax.GradientTransformationExtraArgs:
    """ProxAdamW: ProxGen with AdamW, proximal steps in Adam's metric.

        m_t = b1 m_{t-1} + (1 - b1) g_t,  v_t = b2 v_{t-1} + (1 - b2) g_t^2,  D_t = sqrt(v_t / (1 - b2^t)) + eps
        W_t = argmin_W <eta_t m_t / (1 - b1^t), W> + 1/2 ||W - (1 - eta_t wd) W_{t-1}||^2_{D_t} + strength eta_t psi(W)

    Weight decay comes before the step, and the metric is bias-corrected; `prox_ssi` does both differently. By default
    the subproblem is solved exactly if it has an exact solver. `solver=ProximalGradient(tolerance=...)` is the NeurIPS
    paper's inexact solution (Algorithm 3). Its Theorem 4 asks for a momentum that decays, which a constant b1 is not.
    Without a regularizer the method is `optax.adamw`, and with `amsgrad` it is AMSGrad as in Optax, with the largest of
    the bias-corrected v.

    Args:
        learning_rate: eta_t >= 0; a scalar or a schedule of the 0-based step.
        regularizer: which leaf gets which psi, as in `ramda`.
        strength: lambda >= 0, the weight of psi: a scalar or a schedule; or a `Target`, the share that should be zero;
            or a mapping of patterns on the leaves' paths to these, the first match wins.
            Required with a regularizer.
        b1, b2: decay of the averages of the gradient and of its square, in [0, 1).
        eps: a number > 0 that is added to the metric.
        weight_decay: wd >= 0, decoupled; a scalar or a schedule.
        amsgrad: whether the metric is the largest so far. This needs one more buffer.
        solver: a `Solver` for all regularizers, a mapping of patterns to solvers, or None for each regularizer's
            `default_solver`.

    Returns:
        A `GradientTransformationExtraArgs`; `update` needs params. Its state holds two buffers of the parameters' size
        (three with amsgrad).

    Raises:
        ValueError, TypeError: as `ramda`.
        ValueError: b1 or b2 is outside [0, 1).

    Example:
        >>> import jax, jax.numpy as jnp, optax, ramda_jax
        >>> params = {"kernel": jnp.array([[1.0, 1.0], [0.01, 0.01]])}
        >>> optimizer = ramda_jax.prox_adamw(0.1, ramda_jax.GroupLasso(), strength=0.1)
        >>> grads = {"kernel": jnp.full((2, 2), 0.1)}
        >>> updates, _ = optimizer.update(grads, optimizer.init(params), params)
        >>> (optax.apply_updates(params, updates)["kernel"] != 0).any(axis=1)
        Array([ True, False], dtype=bool)

    References:
        Yun, Lozano and Yang, NeurIPS 2021, arXiv:2006.07484. Huang and Lee, NeurIPS 2024, arXiv:2403.14398,
        Algorithm 3 and Theorem 4.
    """
    check_decay("b1", b1)
    check_decay("b2", b2)
    check_positive("eps", eps, schedules=False)

    def metric(state):
        if amsgrad:
            return jax.tree.map(lambda nu: jnp.sqrt(nu) + eps, state.nu_max)

        def corrected(nu):
            return jnp.sqrt(nu / weight_of_average(b2, state.count, nu.dtype)) + eps

        return jax.tree.map(corrected, state.nu)

    def momentum(state):
        return state.mu, 1 / weight_of_average(b1, state.count, scalars_dtype(state.mu))

    scale_by = optax.scale_by_amsgrad if amsgrad else optax.scale_by_adam
    transform = scale_by(b1=b1, b2=b2, eps=eps)
    return prox_gen(
        learning_rate,
        regularizer,
        strength,
        transform=transform,
        metric=metric,
        weight_decay=weight_decay,
        numerator=momentum,
        solver=solver,
    )
