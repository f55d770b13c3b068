"""Whether a transformation after a method of this library changes its updates."""

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ramda_jax.probe import PROBE_POINT
from ramda_jax.structure.paths import named_leaves
from ramda_jax.typing import Tree
from ramda_jax.validation import check_count, check_params

#: Give up after this number of steps without an update from one of our methods.
_MAX_STEPS = 64


def check_last(optimizer: optax.GradientTransformation, params: Tree, num_steps: int = 2, **extra_args: Any) -> None:
    """Raises if a transformation after a method of this library changes its updates: a common and silent mistake.

    A transformation that rescales, clips or averages updates after `ramda` and the like makes zeros nonzero again. The
    check calls `update` with a mark that the methods understand: they then step to a given point, with c = 1, whatever
    the regularizer and the strength are. If that point is zero, `optax.apply_updates` must leave exact zeros. The
    leaves of the methods are those whose update depends on the point; other leaves may be trained by anything.

    The check finds `optax.scale`, clipping, weight decay, noise and schedules after a method, at any depth of wrappers,
    and wrappers that average iterates (`optax.lookahead`, `optax.contrib.schedule_free`, `optax.contrib.mechanize`). It
    uses its own parameters and gradients, of sizes from 1e-3 to 1e3. So it does not find transformations that let these
    pass, such as a clip at more than 1e3 or `optax.zero_nans`. Nor does it find those that do nothing in the first
    `num_steps` steps, such as `optax.contrib.reduce_on_plateau`, or a schedule that begins with 1. Leaves whose updates
    are set to zero after a method (`optax.freeze`, `optax.selective_transform`) do not count as the method's.

    Args:
        optimizer: an Optax transformation that contains a method of this library; for `flax.nnx.Optimizer` its `tx`.
        params: parameters of the right shapes and dtypes; their values do not matter.
        num_steps: the number of steps to check, counted from the first in which a method acts. Behind
            `optax.MultiSteps` that is the last micro-step.
        **extra_args: arguments that the optimizer's `update` needs besides gradients, state and params.

    Raises:
        ValueError: the updates of a method arrive changed; or no method has answered in 64 steps, because there is
            none, or because a wrapper does not pass keyword arguments on.
        TypeError: params are not real floating-point arrays; optimizer is not an Optax transformation; an argument in
            `extra_args` that a wrapper needs, such as `value`, is missing.

    Example:
        >>> import jax.numpy as jnp, optax, ramda_jax
        >>> params = {"kernel": jnp.ones((3, 2))}
        >>> method = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), strength=0.1)
        >>> ramda_jax.check_last(optax.chain(optax.clip_by_global_norm(1.0), method), params)
        >>> ramda_jax.check_last(optax.chain(method, optax.clip_by_global_norm(1.0)), params)
        Traceback (most recent call last):
            ...
        ValueError: Nothing may change the updates after a method of ramda_jax, but its zeros do not arrive at
        ['kernel']; put it before the method in the chain, or change the method's own learning_rate or averaging.
    """
    check_count("num_steps", num_steps, 1)
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"`optimizer` must be an Optax transformation, got {optimizer!r}; give the `tx` of a `flax.nnx.Optimizer`."
        )
    check_params(named_leaves(params))
    rng = np.random.default_rng(0)
    params = _like(params, rng)
    grads = _like(params.fast if isinstance(params, optax.LookaheadParams) else params, rng)
    if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(optimizer.update).parameters.values()):
        optimizer = optax.with_extra_args_support(optimizer)

    @jax.jit
    def step(state, target):
        # The user's extra arguments are closed over: they may be functions.
        return optimizer.update(grads, state, params, **extra_args, **{PROBE_POINT: target})

    state = optimizer.init(params)
    try:
        jax.eval_shape(step, state, jnp.zeros([]))
    except TypeError as error:
        if "required keyword-only argument" not in str(error):
            raise
        needed = " and ".join(re.findall(r"'(\w+)'", str(error)))
        raise TypeError(
            f"`check_last` must be given what `update` needs beside gradients, state and parameters, got {extra_args} "
            f"without {needed}; give it by name, as in `check_last(optimizer, params, value=1.0)`."
        ) from error
    for _ in range(_MAX_STEPS):
        to_zero, new_state = step(state, jnp.zeros([]))
        to_one, _ = step(state, jnp.ones([]))
        ours = [path for path, zero, to_1 in _zipped(to_zero, to_one) if not np.array_equal(zero, to_1)]
        if ours:
            left = optax.apply_updates(params, to_zero)
            spoiled = [path for path, leaf in named_leaves(left) if path in ours and np.any(np.asarray(leaf) != 0)]
            if spoiled:
                raise ValueError(
                    "Nothing may change the updates after a method of ramda_jax, but its zeros do not arrive at "
                    f"{spoiled}; put it before the method in the chain, or change the method's own learning_rate or "
                    "averaging."
                )
            num_steps -= 1
            if num_steps == 0:
                return
        state = new_state
    raise ValueError(
        f"One of ramda_jax's methods must be in the optimizer and answer, but in {_MAX_STEPS} steps too few updates "
        "have come from one; if it is in there, a wrapper around it does not pass on keyword arguments (as "
        "`optax.lookahead` does not) or never lets it step; use a `GradientTransformationExtraArgs`."
    )


def _like(tree, rng):
    """Nonzero entries of either sign and of sizes from 1e-3 to 1e3, so that some are above most clips."""

    def leaf_like(leaf):
        values = rng.choice([-1.0, 1.0], leaf.shape) * 10.0 ** rng.uniform(-3, 3, leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree.map(leaf_like, tree)


def _zipped(a, b):
    return [(path, x, y) for (path, x), (_, y) in zip(named_leaves(a), named_leaves(b), strict=True)]
