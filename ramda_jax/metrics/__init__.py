"""Metrics of structure, on W and on `eval_params`; all take the same regularizer as the optimizer."""

from ramda_jax.metrics.history import StructureHistory
from ramda_jax.metrics.sparsity import (
    group_sparsity,
    kernel_sparsity,
    layer_table,
    low_rank_level,
    numerical_rank,
    objective,
    unstructured_sparsity,
    weighted_group_sparsity,
)
from ramda_jax.metrics.support import changed_groups, support

__all__ = [
    "StructureHistory",
    "changed_groups",
    "group_sparsity",
    "kernel_sparsity",
    "layer_table",
    "low_rank_level",
    "numerical_rank",
    "objective",
    "support",
    "unstructured_sparsity",
    "weighted_group_sparsity",
]
