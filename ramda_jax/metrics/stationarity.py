"""How far parameters are from a stationary point of the whole objective."""

import jax
import jax.numpy as jnp
import optax

from ramda_jax.numerics import norm, sums_dtype
from ramda_jax.structure.assignment import assign
from ramda_jax.structure.belonging import check_belongs
from ramda_jax.structure.paths import named_leaves
from ramda_jax.typing import RegularizerSpec, Scalar


def stationarity(
    regularizer: RegularizerSpec, strength: Scalar, grads: optax.Updates, params: optax.Params
) -> jax.Array:
    """How far parameters are from a stationary point of the regularized objective, by its own gradient.

        dist(0, grad f(W) + strength * subdifferential of psi at W)

    0 exactly at stationary points, whatever is zero there; leaves without a regularizer count with their gradient. The
    gradient must be that of the whole data or of a large batch: that of a small one is mostly noise, and so is then
    this distance. The zeros must be exact: take `eval_params`, and the gradient there.

    Args:
        regularizer: what the optimizer was given.
        strength: lambda.
        grads: the gradient of the loss at `params`, a tree like it.
        params: the parameters, or what `eval_params` returns.

    Returns:
        A scalar array, in units of the gradient.

    Raises:
        ValueError: gradients of other leaves or shapes than the parameters.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"kernel": jnp.array([[0.0, 0.0], [3.0, 4.0]])}
        >>> grads = {"kernel": jnp.array([[0.6, 0.0], [-0.6, -0.8]])}
        >>> regularizer = ramda_jax.GroupLasso(group_weight=1.0)
        >>> print(ramda_jax.metrics.stationarity(regularizer, 1.0, grads, params))
        0.0
        >>> print(ramda_jax.metrics.stationarity(regularizer, 0.5, grads, params).round(2))
        0.51

    References:
        Huang and Lee, NeurIPS 2024, arXiv:2403.14398, section 4.
    """
    check_belongs("Gradients", grads, "the parameters", params, "give the gradient at these parameters.")
    distances = [jnp.zeros([])]
    for (_, w, one), (_, grad) in zip(assign(regularizer, params), named_leaves(grads), strict=True):
        dtype = sums_dtype(w.dtype)
        w, slope = w.astype(dtype), -grad.astype(dtype)
        weight = jnp.asarray(strength, dtype)
        distances.append(norm(slope) if one is None else one.subdifferential_distance(w, slope, weight))
    return norm(jnp.stack(distances))
