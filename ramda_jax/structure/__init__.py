"""Structure on trees: names of leaves, and which leaf gets which regularizer."""

from ramda_jax.structure.adaptive import adaptive_weights
from ramda_jax.structure.assignment import Assignment, assign, assignment, regularized_leaves
from ramda_jax.structure.paths import named_leaves, path_name

__all__ = ["Assignment", "adaptive_weights", "assign", "assignment", "named_leaves", "path_name", "regularized_leaves"]
