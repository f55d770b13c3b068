"""Structure on trees: names of leaves, and which leaf gets which regularizer."""

from ramda_jax.structure.assignment import Assignment, assign, assignment, regularized_leaves
from ramda_jax.structure.paths import named_leaves, path_name

__all__ = ["Assignment", "assign", "assignment", "named_leaves", "path_name", "regularized_leaves"]
