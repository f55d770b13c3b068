"""Regularizers: a class for each structure; the strength is an argument of the optimizer."""

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.box import Box, Projection
from ramda_jax.regularizers.elementwise import ElementwiseRegularizer
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.regularizers.groups.lasso import GroupLasso, SparseGroupLasso
from ramda_jax.regularizers.groups.norm_penalty import NormPenalty
from ramda_jax.regularizers.hard import NofM, TopEntries, TopGroups
from ramda_jax.regularizers.l1 import L1
from ramda_jax.regularizers.mcp import MCP, GroupMCP, SparseGroupMCP
from ramda_jax.regularizers.nuclear_norm import NuclearNorm
from ramda_jax.regularizers.null import Null
from ramda_jax.regularizers.quantized import Binary, Quantized
from ramda_jax.regularizers.scaled import Scaled

__all__ = [
    "L1",
    "MCP",
    "Binary",
    "Box",
    "ElementwiseRegularizer",
    "GroupLasso",
    "GroupMCP",
    "GroupRegularizer",
    "NofM",
    "NormPenalty",
    "NuclearNorm",
    "Null",
    "Projection",
    "Quantized",
    "Regularizer",
    "Scaled",
    "SparseGroupLasso",
    "SparseGroupMCP",
    "TopEntries",
    "TopGroups",
]
