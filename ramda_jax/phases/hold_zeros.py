"""One method finds the zeros; from a step on they are held, and another optimizer trains the other parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from ramda_jax.builders.quadratic import ModelState
from ramda_jax.compaction.after.training import alive_masks, held_updates, masks_like
from ramda_jax.inspection.states import eval_params
from ramda_jax.structure.belonging import check_belongs, check_state
from ramda_jax.structure.paths import named_leaves
from ramda_jax.typing import RegularizerSpec
from ramda_jax.validation import check_arrays, check_count, require_params


class HoldZerosState(NamedTuple):
    """The state of `hold_zeros`.

    Attributes:
        hold_step: int32 `[]`, the number of steps taken in both phases; it stops at the largest int32.
        method: the state of the method that finds the zeros.
        tuner: the state of the optimizer of the second phase; its initial state until the switch.
        alive: a tree like the parameters, of booleans that broadcast to them; where False, the parameter is held at 0.
    """

    hold_step: jax.Array
    method: Any
    tuner: Any
    alive: Any


def hold_zeros(
    method: optax.GradientTransformation,
    tuner: optax.GradientTransformation,
    switch: int,
    regularizer: RegularizerSpec = None,
) -> optax.GradientTransformationExtraArgs:
    """One method finds the zeros in `switch` steps; then they are held, and a tuner trains the other parameters.

        t < switch:   update = the update of `method`
        t = switch:   update = W_hat - W_{t-1},  alive = support of W_hat      the structured point, whatever c_t is
        t > switch:   update_i = alive_i ? (the update of `tuner`)_i : -W_i

    A regularizer finds zeros, but also shrinks the nonzero parameters, and the learning rate at which dual averaging
    settles is too small for further training. So once the structure is found, an ordinary optimizer continues. This
    equals `method` followed by `optax.chain(tuner, compaction.freeze_structure(...))`, as one optimizer: the training
    loop does not change, and checkpoints of both phases can be continued. The tuner counts its steps from the switch
    on.

    The state always holds the states of both. If memory is short, use the two optimizers one after the other.
    `eval_params` returns W_hat up to the switch and the parameters after it, because the tuner's first step resets the
    model of `method`. So read `metrics.certificate` after step `switch` at the latest. The strength of a `Target` stays
    readable. Like all methods of the library it must be the last in a chain.

    Args:
        method: the method that finds the zeros, such as `ramda(...)` or `coupling.wrap(ramda(...))`.
        tuner: any Optax transformation, such as `optax.adam(schedule)`.
        switch: the number of steps of `method`, at least 1.
        regularizer: the regularizer of `method`, to hold its zero groups; `coupling.regularizer()` for coupled groups.
            With None, every zero entry is held in the leaves that a regularizer given alone would select, as in
            `compaction.freeze_structure`.

    Returns:
        A `GradientTransformationExtraArgs`; `update` needs params, and passes extra arguments to both.

    Raises:
        ValueError: a switch below 1; a regularizer whose structure is a rank; in `update`, no params, or updates or a
            state that do not belong to them.
        TypeError: a switch that is not an integer; a method or tuner that is not an Optax transformation; at `init`,
            parameters that are not arrays.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np, optax, ramda_jax
        >>> target = jnp.zeros((4, 3)).at[0].set(1.0)
        >>> def loss(params):
        ...     return jnp.sum((params["kernel"] - target) ** 2) / 2
        >>> regularizer = ramda_jax.GroupLasso()
        >>> method = ramda_jax.ramda(0.1, regularizer, strength=0.1, averaging=1.0)
        >>> optimizer = ramda_jax.hold_zeros(method, optax.sgd(0.1), 100, regularizer)
        >>> params = {"kernel": jnp.full((4, 3), 0.5)}
        >>> state = optimizer.init(params)
        >>> @jax.jit
        ... def train_step(params, state):
        ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        ...     return optax.apply_updates(params, updates), state
        >>> for step in range(200):
        ...     params, state = train_step(params, state)
        ...     if step in (99, 199):
        ...         print(np.asarray(params["kernel"][:2, 0]).round(3))
        [0.898 0.   ]
        [1. 0.]
    """
    check_count("switch", switch, 1)
    for name, given in (("method", method), ("tuner", tuner)):
        if not (hasattr(given, "init") and hasattr(given, "update")):
            raise TypeError(
                f"`{name}` must be an Optax transformation, got {given!r}; use for example "
                "`ramda(...)` or `optax.adam(1e-3)`."
            )
    method, tuner = optax.with_extra_args_support(method), optax.with_extra_args_support(tuner)

    def init(params):
        check_arrays("Parameters", named_leaves(params))
        masks = jax.eval_shape(lambda: masks_like(params, alive_masks(params, regularizer)))
        alive = jax.tree.map(lambda mask: jnp.ones(mask.shape, bool), masks)
        return HoldZerosState(jnp.zeros([], jnp.int32), method.init(params), tuner.init(params), alive)

    def update(updates, state, params: Any = None, **extra_args):
        require_params(params)
        check_state(HoldZerosState, state)
        for what, tree in (("Updates", updates), ("Parameters", params)):
            check_arrays(what, named_leaves(tree))
        check_belongs("Updates", updates, "the parameters", params, "take gradients with respect to these parameters.")
        step = jnp.asarray(optax.safe_increment(state.hold_step))

        def find():
            found, inner = method.update(updates, state.method, params, **extra_args)

            def arrive():
                # Move to W_hat, so that the next gradient is at the point whose zeros are held.
                structured = eval_params(inner, optax.apply_updates(params, found))
                last = jax.tree.map(lambda u, to, p: (to - p).astype(u.dtype), found, structured, params)
                return last, masks_like(params, alive_masks(structured, regularizer))

            found, alive = _choose(step == switch, arrive, lambda: (found, state.alive))
            return found, inner, state.tuner, alive

        def tune():
            inner = _choose(step == switch + 1, lambda: _emptied(method, state.method, params), lambda: state.method)
            found, own = tuner.update(updates, state.tuner, params, **extra_args)
            found = jax.tree.map(lambda u, p: u.astype(p.dtype), held_updates(found, params, state.alive), params)
            return found, inner, own, state.alive

        found, inner, own, alive = _choose(step <= switch, find, tune)
        return found, HoldZerosState(step, inner, own, alive)

    return optax.GradientTransformationExtraArgs(init, update)


def _choose(condition, yes, no):
    """`jax.lax.cond` under `jit`, else Python's `if`, because `cond` would compile new branches at every step."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, yes, no)
    return yes() if condition else no()


def _emptied(method, state, params):
    """The state with the models of a fresh state, so that `eval_params` returns the parameters."""

    def is_model(node):
        return isinstance(node, ModelState)

    fresh = method.init(params)
    return jax.tree.map(lambda old, new: new if is_model(old) else old, state, fresh, is_leaf=is_model)
