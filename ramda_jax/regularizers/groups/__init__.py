"""Psi of groups: which slices are groups, their weights, and the sums over groups of a function of the norm."""

from ramda_jax.regularizers.groups.axes import GROUP_NAMES, check_groups, group_axes
from ramda_jax.regularizers.groups.grouped import Grouped
from ramda_jax.regularizers.groups.lasso import GroupLasso, SparseGroupLasso
from ramda_jax.regularizers.groups.norm_penalty import NormPenalty, is_beyond_knee
from ramda_jax.regularizers.groups.per_group import PerGroup
from ramda_jax.regularizers.groups.regularizer import GROUP_WEIGHTS, GroupRegularizer

__all__ = [
    "GROUP_NAMES",
    "GROUP_WEIGHTS",
    "GroupLasso",
    "GroupRegularizer",
    "Grouped",
    "NormPenalty",
    "PerGroup",
    "SparseGroupLasso",
    "check_groups",
    "group_axes",
    "is_beyond_knee",
]
