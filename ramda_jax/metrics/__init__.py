"""Metrics of structure, for W and for `eval_params`; all take the same regularizer as the optimizer."""

from ramda_jax.metrics.certificate import certificate
from ramda_jax.metrics.certificate_report import Certificate
from ramda_jax.metrics.history import StructureHistory
from ramda_jax.metrics.overlap import Overlap, overlap
from ramda_jax.metrics.second_moments import SecondMomentsState, second_moments
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
from ramda_jax.metrics.stationarity import scale_effect, stationarity
from ramda_jax.metrics.support import changed_groups, support

__all__ = [
    "Certificate",
    "Overlap",
    "SecondMomentsState",
    "StructureHistory",
    "certificate",
    "changed_groups",
    "group_sparsity",
    "kernel_sparsity",
    "layer_table",
    "low_rank_level",
    "numerical_rank",
    "objective",
    "overlap",
    "scale_effect",
    "second_moments",
    "stationarity",
    "support",
    "unstructured_sparsity",
    "weighted_group_sparsity",
]
