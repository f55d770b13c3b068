"""How far parameters are from a stationary point of the whole objective, and where there is none but zero."""

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
    slopes = named_leaves(packed(regularizer, grads))
    for (_, w, resolved), (_, grad) in zip(assign(regularizer, params), slopes, strict=True):
        dtype = sums_dtype(w.dtype)
        w, slope = w.astype(dtype), -grad.astype(dtype)
        weight = jnp.asarray(strength, dtype)
        distances.append(norm(slope) if resolved is None else resolved.subdifferential_distance(w, slope, weight))
    return norm(jnp.stack(distances))


def scale_effect(regularizer: RegularizerSpec, loss: Callable[[Tree], Scalar], params: Tree) -> dict[str, jax.Array]:
    """How much the loss sees of the scale of each regularized leaf: about 0 for a kernel that a normalisation reads.

        |loss(2 w) - loss(w)| / |loss(-w) - loss(w)|,   w one leaf, the others as they are

    Where it is 0 the loss is that of `w / ||w||`. Then `<gradient, w> = 0`, and with the group LASSO, l1 or the nuclear
    norm no w but 0 is stationary: the regularizer only shrinks the leaf, ever further, and its strength sets how fast.
    The theorems on identification say nothing of such a leaf. Other leaves have 0.1 and more as a rule. The eps of a
    normalisation leaves a little, and a kernel that has shrunk to where eps counts more. A leaf that the loss does not
    see at all has 0 too.

    Args:
        regularizer: what the optimizer was given.
        loss: of parameters alone, with one batch, deterministic, and in training mode: with the batch's own statistics,
            for running statistics are as they are whatever the scale. It is called twice for each regularized leaf;
            give it jitted.
        params: the parameters, not their structured point: zeros have no scale.

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
        # Differences of losses have the losses' rounding.
        rounding = 10 * jnp.finfo(jnp.result_type(here)).eps * jnp.abs(here)
        effects[path] = jnp.where(doubled > rounding, doubled / jnp.maximum(turned, rounding), 0)
    return effects
