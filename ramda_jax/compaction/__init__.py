"""From sparse to small: zeros found in training are cut out, and the rest is proved to compute the same.

    small = ramda_jax.compaction.compact_model(model, images).model

The steps: `trace_dims` finds which axes of parameters belong together. `plan_compaction` finds which of their indices
nothing reads. `compact` slices any tree, and `verify` proves the small model equal.

There is a folder for each question: `tracing`, which axes belong together; `symmetry`, which of them have a free order;
`planning`, what is deleted; `search`, what can be deleted together; `proof`, that nothing has changed; `adapters`, each
kind of model; `folding`, units that are constants; `grouping`, which groups to train for; `storage`, the small model on
disk; `after`, work with the small model.
"""

from ramda_jax.compaction.adapters.factors.matrix import Factored, factor
from ramda_jax.compaction.adapters.trace_dims import trace_dims
from ramda_jax.compaction.after.cost import Cost, cost
from ramda_jax.compaction.after.picture import draw_report
from ramda_jax.compaction.after.report import Report, compaction_report
from ramda_jax.compaction.after.state import compact_state
from ramda_jax.compaction.after.training import FreezeStructureState, freeze_structure, keep_group_weights
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.folding.fold import Folded, fold_constants
from ramda_jax.compaction.grouping.by_leaf import groups
from ramda_jax.compaction.grouping.costs import costs
from ramda_jax.compaction.grouping.couple import couple, couple_model
from ramda_jax.compaction.grouping.coupling import Coupling
from ramda_jax.compaction.grouping.share_removed import share_removed
from ramda_jax.compaction.grouping.small_coupling import compact_coupling
from ramda_jax.compaction.low_rank import LowRank, low_rank_model, low_rank_plan
from ramda_jax.compaction.model import Compaction, compact_model
from ramda_jax.compaction.planning.make_plan import plan_compaction
from ramda_jax.compaction.planning.plan import AxisOrder, LeafPlan, Plan, WidthPlan
from ramda_jax.compaction.planning.slicing import compact, expand
from ramda_jax.compaction.proof.verify import Proof, verify
from ramda_jax.compaction.storage.load import load_compact
from ramda_jax.compaction.storage.rebuild import rebuild
from ramda_jax.compaction.storage.save import save_compact
from ramda_jax.compaction.tracing.rules import Rule
from ramda_jax.compaction.tracing.trace import FROZEN, Dims
from ramda_jax.compaction.tracing.widths import Member, Width

__all__ = [
    "compact_model",
    "Compaction",
    "CompactionError",
    "trace_dims",
    "Dims",
    "Width",
    "Member",
    "FROZEN",
    "Rule",
    "plan_compaction",
    "Plan",
    "LeafPlan",
    "AxisOrder",
    "WidthPlan",
    "compact",
    "compact_state",
    "expand",
    "verify",
    "Proof",
    "fold_constants",
    "Folded",
    "low_rank_model",
    "low_rank_plan",
    "LowRank",
    "Factored",
    "factor",
    "groups",
    "couple",
    "couple_model",
    "costs",
    "share_removed",
    "Coupling",
    "compact_coupling",
    "freeze_structure",
    "FreezeStructureState",
    "keep_group_weights",
    "compaction_report",
    "draw_report",
    "Report",
    "Cost",
    "cost",
    "save_compact",
    "load_compact",
    "rebuild",
]
