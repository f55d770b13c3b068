"""The rules of all primitives: a table with a row for each.

What a rule says is in `Rule`. Those of contractions also add to `walk.readers`. Where a rule does not know a form of
its primitive everything the equation touches is frozen, as for a primitive that is not in the table.

The claim that a rule has to make good: delete indices from the inputs by any plan that respects the unions made and the
nodes frozen, run the primitive on what is left, and you get its output with the same indices deleted. For a
contraction it holds where what is deleted of the sum is zero, which is what a reader is checked for. "The primitive"
is one with the same parameters but for those in `Rule.size_params`, which must be as `Rule.check` wants them.

Names are those of the primitives of JAX 0.10 and 0.12; a test holds the table to them.
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
