"""Measures of the structure of W (the parameters) and of W_hat (the structured point)."""

import jax.numpy as jnp

import ramda_jax
from examples.experiments.config import AVERAGED
from ramda_jax import metrics
from ramda_jax.structure import regularized_leaves

MEASURES = {
    "weighted": "weighted group sparsity (NeurIPS)",
    "kernel": "kernel-wise sparsity (ICLR)",
    "group": "group sparsity",
    "unstructured": "share of all parameters at zero",
    "low_rank": "low-rank level",
}


def is_low_rank(regularizer):
    """Whether a leaf has a nuclear norm, whose structure is a rank instead of zeros."""
    return any(
        isinstance(part, ramda_jax.NuclearNorm) for part in ramda_jax.structure.assignment(regularizer).regularizers
    )


def structured_point(method, opt_state, params):
    """W_hat; for methods that do not average, W itself."""
    return ramda_jax.eval_params(opt_state, params) if method in AVERAGED else params


def structure(regularizer, params):
    """The structure that `changes` compares, by path: the support, or the rank under a nuclear norm."""
    if is_low_rank(regularizer):
        return metrics.numerical_rank(regularizer, params)
    return metrics.support(regularizer, params)


def changes(before, after):
    """The number of groups that differ between two structures; for ranks, the sum of the differences."""
    differences = (jnp.abs(before[path].astype(jnp.int32) - after[path].astype(jnp.int32)) for path in before)
    return sum((jnp.sum(difference) for difference in differences), jnp.zeros([], jnp.int32))


def sparsities(regularizer, params):
    """The measures that fit the regularizer, by short name."""
    result = {"unstructured": metrics.unstructured_sparsity(regularizer, params)}
    if is_low_rank(regularizer):
        return result | {"low_rank": metrics.low_rank_level(regularizer, params)}
    return result | {
        "weighted": metrics.weighted_group_sparsity(regularizer, params),
        "kernel": metrics.kernel_sparsity(regularizer, params),
        "group": metrics.group_sparsity(regularizer, params),
    }


def identified(regularizer, params, truth):
    """The share of groups that are zero, or not, as in `truth`, a dict of leaves by path."""
    right, total = jnp.zeros([], jnp.int32), 0
    for path, leaf, resolved in regularized_leaves(regularizer, params):
        same = resolved.support(leaf) == resolved.support(jnp.asarray(truth[path]))
        right, total = right + jnp.sum(same), total + same.size
    return right / total
