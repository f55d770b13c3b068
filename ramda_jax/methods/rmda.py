"""RMDA: regularised momentum dual averaging."""

import jax
import optax

from ramda_jax.averaging.iterate_averaging import iterate_averaging
from ramda_jax.builders.dual_averaging import dual_averaging
from ramda_jax.subproblem import proximal_point
from ramda_jax.subproblem.checks import check_solvable
from ramda_jax.subproblem.strengths.parts import within_stages
from ramda_jax.typing import RegularizerSpec, SolverSpec, StrengthSpec


def rmda(
    learning_rate: optax.ScalarOrSchedule,
    regularizer: RegularizerSpec = None,
    strength: StrengthSpec | None = None,
    *,
    averaging: optax.ScalarOrSchedule = 0.1,
    restarts: tuple[int, ...] = (),
    solver: SolverSpec = None,
    iterate_dtype: jax.typing.DTypeLike | None = None,
    anchor_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """RMDA: dual averaging in the Euclidean metric. Where it converges, it finds the structure of its limit.

        s_t   = eta_t sqrt(t),   V_t = V_{t-1} + s_t g_t,   alpha_t = alpha_{t-1} + s_t
        W_hat = argmin_W <V_t, W> + 1/2 sqrt(t) ||W - W_0||^2 + strength alpha_t psi(W)
        W_t   = (1 - c_t) W_{t-1} + c_t W_hat

    This is RAMDA without the adaptive metric. The step is the ordinary prox, in closed form, and suitable learning
    rates are those of SGD, not those of Adam. Everything else is as in `ramda`.

    Args:
        learning_rate: eta_t >= 0; a scalar or a schedule of the 0-based step.
        regularizer: which leaf gets which psi, as in `ramda`.
        strength: lambda >= 0, the weight of psi: a scalar, or a schedule that changes at restarts only, since lambda
            multiplies the weights of the whole stage; or a `Target`, the share that should be zero;
            or a mapping of patterns on the leaves' paths to these, the first match wins.
            Required with a regularizer.
        averaging: c_t in (0, 1], the weight on the *new* point, 1 for no averaging; a scalar or a schedule.
        restarts: 1-based step counts after which dual averaging starts again from where it is.
        solver: a `Solver` for all regularizers, a mapping of patterns to solvers, or None for each regularizer's
            `default_solver`.
        iterate_dtype: the dtype in which the state keeps the iterate too, or None. Use `jnp.float32` for parameters in
            bfloat16 or float16 with a small c_t: otherwise their average stalls (`iterate_averaging`).
        anchor_dtype: the dtype in which the state keeps W_0, where it is narrower than the parameters'; None for the
            parameters' own. `jnp.bfloat16` saves 2 bytes a parameter (`dual_averaging`, `docs/scale.md`).

    Returns:
        A `GradientTransformationExtraArgs`. `update` needs params. Its state holds two buffers of the
        parameters' size (sums in at least float32) and one number per group.

    Raises:
        ValueError, TypeError: as `ramda`.

    Example:
        >>> import jax, jax.numpy as jnp, optax, ramda_jax
        >>> target = jnp.zeros((4, 3)).at[0].set(1.0)
        >>> def loss(params):
        ...     return jnp.sum((params["kernel"] - target) ** 2) / 2
        >>> params = {"kernel": jnp.full((4, 3), 0.5)}
        >>> optimizer = ramda_jax.rmda(0.5, ramda_jax.GroupLasso(), strength=0.1, averaging=1.0)
        >>> state = optimizer.init(params)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> print((params["kernel"] != 0).any(axis=1))
        [ True False False False]

    References:
        Huang and Lee, `Training Structured Neural Networks Through Manifold Identification and Variance
        Reduction`, ICLR 2022, arXiv:2112.02612, Algorithm 1.
    """
    check_solvable(regularizer, solver, "scalar")
    strength = within_stages(strength, restarts)
    return optax.chain(
        dual_averaging(learning_rate, restarts, anchor_dtype),
        proximal_point(regularizer, strength, solver),
        iterate_averaging(averaging, iterate_dtype),
    )
