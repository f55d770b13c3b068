"""The distance to a stationary point of the whole objective, and leaves whose only stationary point is zero."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ramda_jax.numerics import norm, sums_dtype
from ramda_jax.structure.assignment import assign
from ramda_jax.structure.belonging import check_belongs
from ramda_jax.structure.packing import packed
from ramda_jax.structure.paths import named_leaves
from ramda_jax.typing import RegularizerSpec, Scalar, Tree


def stationarity(
    regularizer: RegularizerSpec, strength: Scalar, grads: optax.Updates, params: optax.Params
) -> jax.Array:
    """The distance of parameters to a stationary point of the regularized objective.

        dist(0, grad f(W) + strength * subdifferential of psi at W)

    It is 0 exactly at stationary points. Leaves without a regularizer count with their gradient. Use the gradient of
    all data or of a large batch: with a small batch the result is mostly noise. The zeros must be exact: use
    `eval_params`, and the gradient at that point.

    Args:
        regularizer: the specification that the optimizer was given.
        strength: lambda, a number.
        grads: the gradient of the loss at `params`, a tree like it.
        params: the parameters, or the result of `eval_params`.

    Returns:
        A scalar array, in units of the gradient.

    Raises:
        ValueError: the gradients have other leaves or shapes than the parameters.

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
        Huang and Lee, NeurIPS 2024, arXiv:2403.14398, appendix B, the proof of Theorem 3.
    """
    check_belongs("Gradients", grads, "the parameters", params, "give the gradient at these parameters.")
    distances = [jnp.zeros([])]
    slopes = named_leaves(packed(regularizer, grads))
    for (_, w, resolved), (_, grad) in zip(assign(regularizer, params), slopes, strict=True):
        dtype = sums_dtype(w.dtype)
        w, slope = w.astype(dtype), -grad.astype(dtype)
        weight = jnp.asarray(strength, dtype)
        distances.append(norm(slope) if resolved is None else resolved.subdifferential_distance(w, slope, weight))
    return norm(jnp.stack(distances))


def scale_effect(regularizer: RegularizerSpec, loss: Callable[[Tree], Scalar], params: Tree) -> dict[str, jax.Array]:
    """How much the loss depends on the scale of each regularized leaf: about 0 for a kernel before a normalisation.

        |loss(2 w) - loss(w)| / |loss(-w) - loss(w)|,   w one leaf, the others unchanged

    If it is 0, the loss depends on `w / ||w||` only. Then `<gradient, w> = 0`, and with the group LASSO, l1 or the
    nuclear norm only w = 0 is stationary. The regularizer then only shrinks the leaf, without end, and the strength
    decides how fast. The theorems on identification do not cover such a leaf. Other leaves usually have 0.1 and more.
    The eps of a normalisation makes the value slightly positive, and larger for a kernel that has shrunk to the size of
    eps. A leaf that does not change the loss at all has 0 too.

    Args:
        regularizer: the specification that the optimizer was given.
        loss: a deterministic function of the parameters alone, for one batch, in training mode: with the statistics of
            the batch, because running statistics do not follow the scale. It is called twice for each regularized leaf;
            pass it jitted.
        params: the parameters, not the structured point, because zeros have no scale.

    Returns:
        A dict from path to a scalar array, the regularized leaves in their order.

    Raises:
        ValueError, TypeError: as `init` of the optimizer.

    Example:
        >>> import jax, jax.numpy as jnp, ramda_jax
        >>> x, y = jax.random.normal(jax.random.key(0), (64, 3)), jnp.arange(64) % 2
        >>> params = {"first": jnp.eye(3) + 0.5, "last": jnp.array([1.0, -2.0, 0.5])[:, None]}
        >>> @jax.jit
        ... def loss(params):
        ...     hidden = x @ params["first"]
        ...     hidden = (hidden - hidden.mean(axis=0)) / jnp.sqrt(hidden.var(axis=0) + 1e-5)
        ...     return jnp.mean((jax.nn.relu(hidden) @ params["last"] - y[:, None]) ** 2)
        >>> effects = ramda_jax.metrics.scale_effect(ramda_jax.GroupLasso(), loss, params)
        >>> [path for path, effect in effects.items() if effect < 0.01]
        ['first']
    """
    leaves, structure = jax.tree.flatten(params)

    def with_scale(place, scale):
        return loss(structure.unflatten([scale * w if i == place else w for i, w in enumerate(leaves)]))

    here = loss(params)
    effects = {}
    for place, (path, _, resolved) in enumerate(assign(regularizer, params)):
        if resolved is None:
            continue
        doubled, turned = (jnp.abs(with_scale(place, scale) - here) for scale in (2, -1))
        # A difference of losses has the rounding error of the losses.
        rounding = 10 * jnp.finfo(jnp.result_type(here)).eps * jnp.abs(here)
        effects[path] = jnp.where(doubled > rounding, doubled / jnp.maximum(turned, rounding), 0)
    return effects
