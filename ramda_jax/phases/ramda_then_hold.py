"""The whole recipe: RAMDA until the structure stands, then its zeros held while Adam trains what is left."""

from typing import Any

import optax

from ramda_jax.averaging import stages
from ramda_jax.methods import ramda
from ramda_jax.phases.hold_zeros import hold_zeros
from ramda_jax.structure.packing import packing_of
from ramda_jax.typing import RegularizerSpec, SolverSpec, StrengthSpec
from ramda_jax.validation import check_count, check_non_negative

#: Adam's learning rate where RAMDA has 1.
TUNER_RATE = 0.1


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
    factor: float = 0.1,
    eps: float | None = None,
    solver: SolverSpec = None,
) -> optax.GradientTransformationExtraArgs:
    """RAMDA for the first half of a run; then its zeros are held, and Adam with a cosine trains what is left.

        1 to switch:               ramda(**stages(learning_rate, total_steps=switch)), to W_hat in the last step
        switch + 1 to total_steps: adam(cosine from learning_rate / 10 to 0), zeros held

    `hold_zeros` of two optimizers that fit each other. A `Target` says how much is to be zero; its lambda is found and
    held within the first phase. Where a channel is read in several places, behind a flatten for example, give it
    coupled groups, whose weights go by what a removal saves:

        coupling = compaction.couple_model(model, images, weight="saving")
        parameters = compaction.costs(dims, "parameters", coupling.regularizer())
        optimizer = ramda_then_hold(3e-2, coupling.regularizer(), Target(0.7, of=parameters), total_steps=1_000)

    The optimizer takes the model's own parameters then; it need not be put into `coupling.wrap`.

    Args:
        learning_rate: RAMDA's of the first stage, >= 0; about ten times that of Adam.
        regularizer: which leaf gets which psi, as in `ramda`; or that of a `Coupling`.
        strength: as in `ramda`.
        total_steps: the number of steps of the run.
        switch: the number of RAMDA's, at least 8 and below `total_steps`; None for half of them.
        tuner: the optimizer of the second phase, which counts from the switch on; None for Adam as above.
        averaging, ends, factor, eps: as in `stages`, for RAMDA's steps.
        solver: as in `ramda`.

    Returns:
        A `GradientTransformationExtraArgs`, as that of `hold_zeros`: its state holds five buffers of the parameters'
        size and booleans.

    Raises:
        ValueError: a switch that is not below `total_steps`; as `stages`, `ramda` and `hold_zeros`.
        TypeError: as these.

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
        RAMDA's are in `ramda`. The second phase is none of its papers'; docs/guide.md has it beside RAMDA alone.
    """
    check_count("total_steps", total_steps, 2)
    switch = total_steps // 2 if switch is None else switch
    check_count("switch", switch, 1)
    if switch >= total_steps:
        raise ValueError(
            f"`switch` must be below `total_steps`, got {switch!r} and {total_steps!r}; use for example half of them."
        )
    check_non_negative("learning_rate", learning_rate)
    settings: Any = stages(learning_rate, averaging, ends, factor, eps, total_steps=switch)
    method = ramda(regularizer=regularizer, strength=strength, solver=solver, **settings)
    packing: Any = packing_of(regularizer)
    if tuner is None:
        tuner = optax.adam(optax.cosine_decay_schedule(TUNER_RATE * learning_rate, total_steps - switch))
    return hold_zeros(method if packing is None else packing.wrap(method), tuner, switch, regularizer)
