"""The rules of all primitives, as a table with a row for each.

`Rule` says what a rule has to do. The rules of contractions also add to `walk.readers`. If a rule does not know a form
of its primitive, everything that the equation touches is frozen, as for a primitive that is not in the table.

A rule must satisfy this claim: delete indices from the inputs by any plan that respects the unions and the frozen
nodes, and run the primitive on the rest. The result is its output with the same indices deleted. For a contraction this
holds if the deleted terms of the sum are zero, which is checked for each reader. "The primitive" has the same
parameters, except for those in `Rule.size_params`, which must pass `Rule.check`.

The names are those of the primitives of JAX 0.10 and 0.12, and a test compares the table with them.
"""

from ramda_jax.compaction.tracing.rules import (
    contractions,
    elementwise,
    indexing,
    matrices,
    randomness,
    reductions,
    shapes,
)
from ramda_jax.compaction.tracing.rules.rule import Rule

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **shapes.RULES,
    **indexing.RULES,
    **reductions.RULES,
    **contractions.RULES,
    **matrices.RULES,
    **randomness.RULES,
}

__all__ = ["RULES", "Rule"]
