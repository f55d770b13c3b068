"""RAMDA: regularised adaptive momentum dual averaging."""

import jax
import optax

from ramda_jax.averaging.iterate_averaging import iterate_averaging
from ramda_jax.builders.adaptive_dual_averaging import adaptive_dual_averaging
from ramda_jax.fused import ChainSettings, check_fused, fused_chain
from ramda_jax.structure.assignment import assignment
from ramda_jax.subproblem import proximal_point
from ramda_jax.subproblem.checks import check_solvable, checked_strength
from ramda_jax.subproblem.strengths.parts import strength_parts, within_stages
from ramda_jax.typing import RegularizerSpec, SolverSpec, StrengthSpec
from ramda_jax.xla.tile_plans import Chip


def ramda(
    learning_rate: optax.ScalarOrSchedule,
    regularizer: RegularizerSpec = None,
    strength: StrengthSpec | None = None,
    *,
    averaging: optax.ScalarOrSchedule = 0.01,
    eps: optax.ScalarOrSchedule = 1e-6,
    restarts: tuple[int, ...] = (),
    solver: SolverSpec = None,
    iterate_dtype: jax.typing.DTypeLike | None = None,
    anchor_dtype: jax.typing.DTypeLike | None = None,
    fused: bool | Chip = False,
) -> optax.GradientTransformationExtraArgs:
    """RAMDA: dual averaging in an adaptive metric. Where it converges, it finds the structure of its limit.

        s_t   = eta_t sqrt(t),   V_t = V_{t-1} + s_t g_t,   U_t = U_{t-1} + s_t g_t^2,   alpha_t = alpha_{t-1} + s_t
        W_hat = argmin_W <V_t, W> + 1/2 ||W - W_0||^2_{cbrt(U_t) + eps_t} + strength alpha_t psi(W)
        W_t   = (1 - c_t) W_{t-1} + c_t W_hat

    If the iterates converge to a nondegenerate point, the structure of W_hat (its zero groups, its rank) is that of
    this point after finitely many steps, almost surely, and it stays. Without a regularizer RAMDA is MADGRAD.

    RAMDA must be the last part of a chain: a transformation that rescales its updates makes zeros nonzero again. A step
    with zero gradients still moves the parameters, because the regularizer acts; to freeze leaves use
    `optax.partition`. A NaN or infinity in a gradient stays in the sums, and so in its entry and group, until the next
    restart. `optax.apply_if_finite` around the optimizer skips such steps.

    RAMDA is a chain of three parts, which can also be combined differently:
    `optax.chain(adaptive_dual_averaging(...), proximal_point(...), iterate_averaging(...))`.

    Args:
        learning_rate: eta_t >= 0; a scalar or a schedule of the 0-based step.
        regularizer: which leaf gets which psi. None: psi = 0. A `Regularizer`: for every leaf with two axes or more
            whose last key is not bias, scale, embedding, *_embedding or *_token. A mapping from patterns to a
            `Regularizer` or None: `re.search` on the '/'-joined key path decides, the first match wins. Or a pytree of
            these, of the parameters' structure or a prefix of it. `describe` prints the result. Leaves without a
            regularizer are trained by the same method with psi = 0.
        strength: lambda >= 0, the weight of psi: a scalar, or a schedule that changes at restarts only, since lambda
            multiplies the weights of the whole stage; or a `Target`, the share that should be zero;
            or a mapping of patterns on the leaves' paths to these, the first match wins.
            Required with a regularizer.
        averaging: c_t in (0, 1], the weight on the *new* point, 1 for no averaging; a scalar or a schedule. Only at 1
            has the iterate itself exact zeros (`sqrt_growth` and `stages` lead there). `eval_params` always has them.
        eps: eps_t > 0, added to the metric; a scalar or a schedule.
        restarts: 1-based step counts after which dual averaging starts again from where it is.
        solver: a `Solver` for all regularizers, a mapping of patterns to solvers, or None for each regularizer's
            `default_solver`. This is exact, except for psi without a closed form or secular equation: `NuclearNorm`
            then gets five SVDs a step, and `Projection` proximal gradient.
        iterate_dtype: the dtype in which the state keeps the iterate too, or None. Use `jnp.float32` for parameters in
            bfloat16 or float16 with a small c_t: otherwise their average stalls (`iterate_averaging`).
        anchor_dtype: the dtype in which the state keeps W_0, where it is narrower than the parameters'; None for the
            parameters' own. `jnp.bfloat16` saves 2 bytes a parameter (`dual_averaging`, `docs/scale.md`).
        fused: True to have one kernel do the whole step of a leaf where it can, on TPUs and NVIDIA's GPUs
            (`docs/scale.md`); on other devices nothing changes. `describe(..., fused="gpu")` shows which leaves have a
            kernel. `"tpu"` and `"gpu"` run the kernels of that chip in Pallas's interpreter on any device, which is
            slow and meant for tests. The state is the same with and without kernels.

    Returns:
        A `GradientTransformationExtraArgs`. `update` needs params. Its state holds three buffers of the
        parameters' size (sums in at least float32) and one number per group. With `fused`
        `fused_step` gives a step that also writes the parameters.

    Raises:
        ValueError: a number is outside its range; a regularizer has no strength, or the solver cannot solve it; `fused`
            is not one of the above; at `init`, a pattern matches no leaf, or a leaf does not have such groups. Traced
            values and schedules are not checked.
        TypeError: an argument is of the wrong kind; at `init`, parameters are integers or complex numbers.

    Example:
        >>> import jax, jax.numpy as jnp, optax, ramda_jax
        >>> target = jnp.zeros((4, 3)).at[0].set(1.0)
        >>> def loss(params):
        ...     return jnp.sum((params["kernel"] - target) ** 2) / 2
        >>> params = {"kernel": jnp.full((4, 3), 0.5)}
        >>> optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), strength=0.1, averaging=1.0)
        >>> state = optimizer.init(params)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> print((params["kernel"] != 0).any(axis=1))
        [ True False False False]

    References:
        Huang and Lee, `Regularized Adaptive Momentum Dual Averaging with an Efficient Inexact Subproblem
        Solver for Training Structured Neural Network`, NeurIPS 2024, arXiv:2403.14398, Algorithm 1.
    """
    check_solvable(regularizer, solver, "diagonal")
    strength = within_stages(strength, restarts)
    parts = (
        adaptive_dual_averaging(learning_rate, eps, restarts, anchor_dtype),
        proximal_point(regularizer, strength, solver),
        iterate_averaging(averaging, iterate_dtype),
    )
    check_fused(fused)
    if fused is False:
        return optax.chain(*parts)
    strengths = strength_parts(checked_strength(regularizer, strength), assignment(regularizer))
    keeps_iterate = iterate_dtype is not None
    settings = ChainSettings(parts, learning_rate, averaging, restarts, strengths, keeps_iterate)
    return fused_chain(settings, fused)
