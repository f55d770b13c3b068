"""The whole recipe: RAMDA finds the structure, then its zeros are held while Adam trains the other parameters."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ramda_jax.averaging import stages
from ramda_jax.methods import ramda
from ramda_jax.phases.hold_zeros import hold_zeros
from ramda_jax.structure.packing import packing_of
from ramda_jax.subproblem.strengths.target import Target
from ramda_jax.typing import RegularizerSpec, SolverSpec, StrengthSpec
from ramda_jax.validation import check_count, check_no_schedule, check_non_negative

# These numbers were chosen with validation images of the digits; see "Why RAMDA lost, and what helped" in
# docs/alternatives.md.
#: Adam's learning rate, as a multiple of RAMDA's.
TUNER_RATE = 0.1
#: RAMDA's stages end after these shares of its steps. Zeros that are held need not settle, so the first stage, with the
#: full learning rate, gets most of the steps.
ENDS = (0.7, 0.85)
#: The learning rate of a stage, as a multiple of the previous stage's.
FACTOR = 0.3
#: A target's share rises during this share of RAMDA's steps.
RISE = 0.7


def late_ends(num_steps: int) -> tuple[int, ...]:
    """The steps after which a stage ends, for a phase of `num_steps`."""
    return tuple(round(share * num_steps) for share in ENDS)


def rising(share: Any, num_steps: float) -> Callable[[Any], jax.Array]:
    """A schedule from 0 to `share` in `num_steps`, steep at first: `share (1 - (1 - step / num_steps)^3)`."""
    return lambda step: share * (1 - jnp.maximum(1 - step / num_steps, 0.0) ** 3)


def ramda_then_hold(
    learning_rate: float,
    regularizer: RegularizerSpec,
    strength: StrengthSpec,
    *,
    total_steps: int,
    switch: int | None = None,
    tuner: optax.GradientTransformation | None = None,
    averaging: optax.ScalarOrSchedule | None = None,
    ends: tuple[int, ...] | None = None,
    factor: float = FACTOR,
    eps: float | None = None,
    solver: SolverSpec = None,
    rise: float = RISE,
) -> optax.GradientTransformationExtraArgs:
    """RAMDA for the first half of a run; then its zeros are held, and Adam with a cosine schedule trains the rest.

        1 to switch:               ramda in stages, to W_hat in the last step
                                   stages end after 0.7 and 0.85 of the steps, each with 0.3 of the rate before it
                                   target's share at step t: share (1 - max(1 - t / (0.7 switch), 0)^3)
        switch + 1 to total_steps: adam(cosine from learning_rate / 10 to 0), zeros held

    It is `hold_zeros` with two optimizers that fit each other. A `Target` gives the share of zeros. This share
    rises from 0, as in gradual pruning, and lambda follows it to the switch. In the last step before it the weight
    of psi is the one at which the share is met (`Target.exact_at`). The stages end later than by default in
    `stages`: zeros that are held need not settle, and more steps at the full learning rate make the network more
    accurate. If a channel is read in several places, for example after a flatten, use coupled groups with weights
    by savings:

        coupling = compaction.couple_model(model, images, weight="saving")
        removed = compaction.share_removed(dims, "parameters", coupling.regularizer())
        optimizer = ramda_then_hold(3e-2, coupling.regularizer(), Target(0.7, of=removed), total_steps=1_000)

    The optimizer then takes the model's own parameters, without `coupling.wrap`.

    Args:
        learning_rate: RAMDA's learning rate in the first stage, >= 0; about twice AdamW's best one, or ten times its
            usual 1e-3.
        regularizer: which leaf gets which psi, as in `ramda`; or the regularizer of a `Coupling`.
        strength: as in `ramda`. The share of a `Target` rises, unless it is a schedule. Its `hold` is RAMDA's last
            step, unless it is given.
        total_steps: the number of steps of the run.
        switch: the number of RAMDA's steps, at least 8 and below `total_steps`; None for half of `total_steps`.
        tuner: the optimizer of the second phase, which counts from the switch on; None for Adam as above.
        averaging, ends, factor, eps: as in `stages`, for RAMDA's steps; `ends=None` for the ends above.
        solver: as in `ramda`.
        rise: the share of RAMDA's steps in which the share of a `Target` rises, in [0, 1]; it rises in at most 0.8 of
            the steps before `hold`. With 0 a target has the whole share from the first step on, and lambda is held
            from the middle of the last stage; the share is met at the switch all the same.

    Returns:
        A `GradientTransformationExtraArgs`, as from `hold_zeros`. Its state holds five buffers of the parameters' size,
            and booleans.

    Raises:
        ValueError: a switch that is not below `total_steps`; a rise outside [0, 1]; otherwise as in `stages`, `ramda`
            and `hold_zeros`.
        TypeError: as in `stages`, `ramda` and `hold_zeros`.

    Example:
        >>> import jax, jax.numpy as jnp, optax, ramda_jax
        >>> target = jnp.zeros((4, 3)).at[0].set(1.0)
        >>> def loss(params):
        ...     return jnp.sum((params["kernel"] - target) ** 2) / 2
        >>> optimizer = ramda_jax.ramda_then_hold(0.3, ramda_jax.GroupLasso(), ramda_jax.Target(0.75), total_steps=200)
        >>> params = {"kernel": jnp.full((4, 3), 0.5)}
        >>> state = optimizer.init(params)
        >>> @jax.jit
        ... def train_step(params, state):
        ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        ...     return optax.apply_updates(params, updates), state
        >>> for _ in range(200):
        ...     params, state = train_step(params, state)
        >>> print(params["kernel"][:, 0].round(2))
        [1. 0. 0. 0.]

    References:
        The references of RAMDA are in `ramda`. The second phase is not in the papers; docs/guide.md compares it with
            RAMDA alone. The rise is from Zhu and Gupta, `To prune, or not to prune`, 2017. The other numbers were
            chosen with validation images (docs/alternatives.md).
    """
    check_count("total_steps", total_steps, 2)
    switch = total_steps // 2 if switch is None else switch
    check_count("switch", switch, 8)
    if switch >= total_steps:
        raise ValueError(
            f"`switch` must be below `total_steps`, got {switch!r} and {total_steps!r}; use for example half of them."
        )
    remedy = (
        "give RAMDA's first rate, about twice AdamW's best; your own schedule goes into `tuner=optax.adam(schedule)`."
    )
    check_no_schedule("learning_rate", learning_rate, remedy)
    check_non_negative("learning_rate", learning_rate)
    if isinstance(rise, bool) or not isinstance(rise, (int, float)) or not 0 <= rise <= 1:
        raise ValueError(f"`rise` must be a number in [0, 1], got {rise!r}; use 0 to ask for the whole share at once.")
    settings: Any = stages(
        learning_rate, averaging, late_ends(switch) if ends is None else ends, factor, eps, total_steps=switch
    )
    strength = _fitted_targets(strength, rise * switch, switch)
    method = ramda(regularizer=regularizer, strength=strength, solver=solver, **settings)
    packing: Any = packing_of(regularizer)
    if tuner is None:
        tuner = optax.adam(optax.cosine_decay_schedule(TUNER_RATE * learning_rate, total_steps - switch))
    return hold_zeros(method if packing is None else packing.wrap(method), tuner, switch, regularizer)


def _fitted_targets(strength: Any, num_steps: float, switch: int) -> Any:
    """A strength whose targets are met in the step before the switch.

    If `num_steps` is above 0, constant shares rise in this number of steps, and are followed until the switch.
    """
    if isinstance(strength, Mapping):
        return {pattern: _fitted_targets(own, num_steps, switch) for pattern, own in strength.items()}
    if not isinstance(strength, Target):
        return strength
    strength = dataclasses.replace(strength, exact_at=switch - 1 if strength.exact_at is None else strength.exact_at)
    if not num_steps:
        return strength
    hold = switch - 1 if strength.hold is None else strength.hold
    share = strength.share if callable(strength.share) else rising(strength.share, min(num_steps, 0.8 * hold))
    return dataclasses.replace(strength, share=share, hold=hold)
