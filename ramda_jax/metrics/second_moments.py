"""The second moments of the gradient's groups, one number per group, which RMDA's state does not have."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ramda_jax.builders.restarts import reset, starts_stage
from ramda_jax.numerics import next_count, scalars_dtype, sums_dtype
from ramda_jax.structure.assignment import assignment, regularized_leaves
from ramda_jax.typing import RegularizerSpec
from ramda_jax.validation import checked_restarts


class SecondMomentsState(NamedTuple):
    """State of `second_moments`.

    Attributes:
        moment_step: int32 `[]`, steps taken in all.
        stage_step: int32 `[]`, t, steps taken in this stage.
        weight_sum: `[]`, the sum of sqrt(k) for k = 1 to t.
        grad_sq_sum: a dict by the leaf's path of the sum of sqrt(k) ||g_k||^2 for each group. (A scalar 0 for a tree
            without leaves, as in `ProximalPointState`.)
    """

    moment_step: jax.Array
    stage_step: jax.Array
    weight_sum: jax.Array
    grad_sq_sum: Any


def second_moments(
    regularizer: RegularizerSpec, restarts: tuple[int, ...] = ()
) -> optax.GradientTransformationExtraArgs:
    """Sums the squared norms of the gradient's groups, which `certificate` needs for RMDA; gradients pass unchanged.

        Q_t = Q_{t-1} + sqrt(t) ||g_t||^2,  for each group

    RAMDA's state has the squares of all entries; RMDA's has none. Put this directly before `rmda` in a chain, so that
    it gets the same gradients. It is a separate transformation, so that the state of `rmda` stays the same, also in old
    checkpoints. The weights sqrt(t) are those of RMDA at a learning rate that is constant within a stage.

    Args:
        regularizer: the specification that `rmda` is given.
        restarts: the restarts that `rmda` is given.

    Returns:
        A `GradientTransformationExtraArgs` that does not change the updates. Its state has one number per group (per
        entry for `L1`).

    Raises:
        ValueError: restarts do not increase; at `init`, as `init` of `rmda`.
        TypeError: regularizer is not a specification of regularizers.

    Example:
        >>> import jax.numpy as jnp, optax, ramda_jax
        >>> regularizer = ramda_jax.GroupLasso()
        >>> optimizer = optax.chain(
        ...     ramda_jax.metrics.second_moments(regularizer), ramda_jax.rmda(0.1, regularizer, strength=0.1))
        >>> params = {"kernel": jnp.ones((2, 3))}
        >>> _, state = optimizer.update({"kernel": jnp.full((2, 3), 2.0)}, optimizer.init(params), params)
        >>> state[0].grad_sq_sum["kernel"]
        Array([[12.],
               [12.]], dtype=float32)
    """
    spec = assignment(regularizer)
    restarts = checked_restarts("restarts", restarts)

    def squares(tree):
        return {
            path: jnp.sum(
                jnp.square(leaf.astype(sums_dtype(leaf.dtype))),
                axis=() if resolved.elementwise else resolved.inner_axes(leaf.ndim),
                keepdims=True,
            )
            for path, leaf, resolved in regularized_leaves(spec, tree)
        }

    def init(params) -> Any:
        dtype = scalars_dtype(params)
        sums = squares(jax.tree.map(jnp.zeros_like, params))
        return SecondMomentsState(
            moment_step=jnp.zeros([], jnp.int32),
            stage_step=jnp.zeros([], jnp.int32),
            weight_sum=jnp.zeros([], dtype),
            grad_sq_sum=sums if jax.tree.leaves(params) else jnp.zeros([], dtype),
        )

    def update(updates, state, params=None, **extra_args) -> tuple[Any, Any]:
        del params, extra_args
        is_first = starts_stage(state.moment_step, restarts) if restarts else None
        stage_step = next_count(reset(is_first, state.stage_step, 0))
        weight = jnp.sqrt(stage_step.astype(state.weight_sum.dtype))
        sums = jax.tree.map(
            lambda total, square: reset(is_first, total, 0) + weight.astype(total.dtype) * square,
            state.grad_sq_sum,
            squares(updates),
        )
        weight_sum = reset(is_first, state.weight_sum, 0) + weight
        return updates, SecondMomentsState(next_count(state.moment_step), stage_step, weight_sum, sums)

    return optax.GradientTransformationExtraArgs(init, update)
