"""The support: which groups are alive, and how many change."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.numerics import count, total
from ramda_jax.structure.assignment import regularized_leaves
from ramda_jax.typing import RegularizerSpec, Support, Tree


def support(regularizer: RegularizerSpec, params: Tree) -> dict[str, jax.Array]:
    """Which groups (entries, for regularizers of single entries) are not exactly zero.

    Args:
        regularizer: the specification that the optimizer was given.
        params: the parameters, or the result of `eval_params`.

    Returns:
        A dict from the paths of regularized leaves to boolean arrays, of the leaf's rank, with length one along the
        axes inside a group. There is no tolerance: a group is alive unless all its entries are 0.0.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"bias": jnp.zeros(2), "kernel": jnp.array([[0.0, 0.0], [0.0, 1.0]])}
        >>> ramda_jax.metrics.support(ramda_jax.GroupLasso(), params)
        {'kernel': Array([[False],
               [ True]], dtype=bool)}
    """
    return {path: given.support(leaf) for path, leaf, given in regularized_leaves(regularizer, params)}


def check_supports(before: Support, after: Support) -> None:
    """Raises unless the two supports have the same leaves and shapes."""
    for given in (before, after):
        if not isinstance(given, Mapping):
            raise TypeError(
                f"A support must be a dict of boolean arrays by path, got {given!r}; use `metrics.support`."
            )
    if before.keys() != after.keys():
        raise ValueError(
            f"Two supports must be of the same leaves, got {sorted(before)} and {sorted(after)}; use one regularizer "
            "for both."
        )
    for path, leaf in before.items():
        if np.shape(leaf) != np.shape(after[path]):
            raise ValueError(
                f"Two supports must have the same shapes, got {np.shape(leaf)} and {np.shape(after[path])} at "
                f"'{path}'; use one regularizer for both, and parameters of one model."
            )


def changed_groups(before: Support, after: Support) -> jax.Array:
    """The number of groups that are alive in exactly one of two supports.

    Args:
        before, after: supports of the same leaves, from `support`.

    Returns:
        An int32 scalar; from 2^31 groups on a float32, exact up to a few roundings.

    Raises:
        ValueError: the two have different leaves or shapes.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> before = {"kernel": jnp.array([True, False, False])}
        >>> int(ramda_jax.metrics.changed_groups(before, {"kernel": jnp.array([False, True, False])}))
        2
    """
    check_supports(before, after)
    counts = [count(jnp.asarray(before[path] != after[path])) for path in before]
    return total(counts, sum(jnp.size(leaf) for leaf in before.values()))
