"""ProxSGD: proximal stochastic gradient with momentum."""

import optax

from ramda_jax.methods.prox_gen import prox_gen
from ramda_jax.typing import RegularizerSpec, SolverSpec, StrengthSpec
from ramda_jax.validation import check_decay


def prox_sgd(
    learning_rate: optax.ScalarOrSchedule,
    regularizer: RegularizerSpec = None,
    strength: StrengthSpec | None = None,
    *,
    b1: float = 0.9,
    solver: SolverSpec = None,
) -> optax.GradientTransformationExtraArgs:
    """ProxSGD: a proximal step along an average of the gradients.

        m_t = b1 m_{t-1} + (1 - b1) g_t        (m_0 = 0, no bias correction)
        W_t = argmin_W <eta_t m_t, W> + 1/2 ||W - W_{t-1}||^2 + strength eta_t psi(W)

    The new iterate is the minimiser itself, as in the RAMDA papers' code; the paper of ProxSGD averages it with the
    last iterate. Unlike `rmda`, the method steps from the last iterate along the last gradients. Where their noise does
    not vanish, its zeros come and go. Without a regularizer it is `optax.chain(optax.ema(b1, debias=False),
    optax.sgd(learning_rate))`.

    Args:
        learning_rate: eta_t >= 0; a scalar or a schedule of the 0-based step.
        regularizer: which leaf gets which psi, as in `ramda`.
        strength: lambda >= 0, the weight of psi: a scalar or a schedule; or a `Target`, the share that should be zero;
            or a mapping of patterns on the leaves' paths to these, the first match wins.
            Required with a regularizer.
        b1: decay of the average of gradients, in [0, 1); 0 for none. (The papers' "momentum" is 1 - b1.)
        solver: a `Solver` for all regularizers, a mapping of patterns to solvers, or None for each regularizer's
            `default_solver`.

    Returns:
        A `GradientTransformationExtraArgs`; `update` needs params. Its state holds one buffer of the parameters' size.

    Raises:
        ValueError, TypeError: as `ramda`.
        ValueError: b1 is outside [0, 1).

    Example:
        >>> import jax, jax.numpy as jnp, optax, ramda_jax
        >>> params = {"kernel": jnp.array([[1.0, 1.0], [0.005, 0.005]])}
        >>> optimizer = ramda_jax.prox_sgd(0.1, ramda_jax.GroupLasso(), strength=0.1)
        >>> updates, _ = optimizer.update({"kernel": jnp.zeros((2, 2))}, optimizer.init(params), params)
        >>> optax.apply_updates(params, updates)["kernel"]
        Array([[0.99000007, 0.99000007],
               [0.        , 0.        ]], dtype=float32)

    References:
        Yang, Yuan, Chatzimichailidis, van Sloun, Lei and Chatzinotas, `ProxSGD: Training Structured Neural Networks
        under Regularization and Constraints`, ICLR 2020.
    """
    check_decay("b1", b1)
    return prox_gen(learning_rate, regularizer, strength, transform=optax.ema(b1, debias=False), solver=solver)
