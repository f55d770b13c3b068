"""Weights from the current norms: the adaptive LASSO for groups."""

import dataclasses
import re
from typing import Any

import jax
import numpy as np

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.regularizers.scaled import ScaledGroups
from ramda_jax.structure.assignment import regularized_leaves
from ramda_jax.typing import RegularizerSpec
from ramda_jax.validation import check_positive


def adaptive_weights(
    regularizer: RegularizerSpec, params: Any, power: float = 1.0, eps: float = 0.01
) -> dict[str, Regularizer]:
    """Regularizers with smaller weights for longer groups: the adaptive group LASSO.

        omega_g (||w_g|| / mean of ||w|| over the leaf's groups + eps)^-power

    Here omega_g is the group's weight in `regularizer`. Long groups are shrunk less, short ones are zeroed sooner.
    Norms are relative to the mean of their leaf. So a leaf of equal groups keeps its weights, apart from eps, and the
    strength keeps its meaning. The new weights are constants. Call this between two stages, make a new optimizer with
    the result, and a new state by `optimizer.init(params)`.

    Args:
        regularizer: the specification that the optimizer was given; every regularizer in it must be of group norms.
        params: the current parameters, or the result of `eval_params`; concrete arrays.
        power: the exponent of the norms, > 0. 1 or less is common.
        eps: a number > 0, which keeps the weight of a zero group finite: omega_g eps^-power.

    Returns:
        A mapping from patterns, one for each regularized leaf, to regularizers with arrays as weights.

    Raises:
        ValueError: a regularizer is not of group norms; power or eps is not above 0.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> rows = ramda_jax.GroupLasso(group_weight=1.0)
        >>> adaptive = ramda_jax.structure.adaptive_weights(rows, {"kernel": jnp.array([[3.0, 4.0], [0.0, 0.0]])})
        >>> adaptive["^kernel$"]
        GroupLasso(groups=(0,), group_weight=<2x1 weights from 0.4975 to 100>, non_negative=False)

    References:
        Zou, `The adaptive lasso and its oracle properties`, 2006. Wang and Leng, `A note on adaptive group lasso`,
        2008.
    """
    check_positive("power", power, schedules=False)
    check_positive("eps", eps, schedules=False)
    result = {}
    for path, leaf, resolved in regularized_leaves(regularizer, params):
        if not isinstance(resolved, GroupRegularizer):
            raise ValueError(
                f"`adaptive_weights` must be given regularizers of group norms, got {resolved!r} for '{path}'; use "
                "`GroupLasso(groups=(0, 1))`, whose groups are entries, or leave it out by patterns."
            )
        norms = np.asarray(
            jax.device_get(resolved.norms(leaf.astype(np.promote_types(leaf.dtype, np.float32)))), np.float64
        )
        mean = np.mean(norms) if norms.size else 0.0
        relative = norms / mean if mean > 0 else np.ones_like(norms)
        weights = np.asarray(resolved.weights(leaf.shape)) * (relative + eps) ** -float(power)
        result[f"^{re.escape(path)}$"] = _weighing(resolved, weights)
    return result


def _weighing(regularizer, weights):
    if isinstance(regularizer, ScaledGroups):
        return dataclasses.replace(regularizer, regularizer=_weighing(regularizer.regularizer, weights))
    return dataclasses.replace(regularizer, group_weight=weights)
