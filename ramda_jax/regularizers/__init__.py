"""Regularizers: what structure psi asks for, one class each, strength outside."""

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.group_lasso import GroupLasso
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.regularizers.null import Null

__all__ = ["GroupLasso", "GroupRegularizer", "Null", "Regularizer"]
