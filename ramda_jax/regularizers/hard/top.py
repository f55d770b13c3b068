"""Hard targets that keep the groups or entries with the largest gain, of each leaf or of all leaves together."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ramda_jax.regularizers.groups.grouped import Grouped
from ramda_jax.regularizers.hard.base import TopBlocks
from ramda_jax.typing import GroupSpec

if TYPE_CHECKING:
    from ramda_jax.builders.quadratic import QuadraticModel


@dataclasses.dataclass(frozen=True)
class TopGroups(TopBlocks, Grouped):
    """The indicator of "at least `share` of the groups are zero": keeps the best groups without shrinking them.

        psi(w) = 0 if at least ceil(share * number of groups) groups are zero, else infinite

    The minimiser of the subproblem has a closed form in any diagonal metric. The gain of a group,

        1/2 sum_i rhs_i^2 / metric_i        over the entries of the group

    is how much zeroing it would raise the objective. The groups with the largest gains are rhs / metric, as without a
    regularizer, and the others exactly zero; of equal gains the lower index is kept. So the structured point has the
    share from the first step on, and so have the parameters if `averaging` is 1. All positive strengths mean the same.
    If the weight of the subproblem is 0 (strength or learning rate 0), there is no constraint. All groups count the
    same, whatever their size. A `group_weight` would choose other groups, which are not a minimiser, so there is none,
    and `weight="saving"` of `compaction.groups` and of couplings is refused with `TopGroups`.

    The number of zeros is rounded up: a share of 0.5 of 3 groups is 2. A share of 0.07 of 100 groups is 7, although
    0.07 * 100 is slightly above 7 in floating point. psi is not convex. The set of living groups is stable if there is
    a gap between their gains and those of the others. At a share of 1 all groups are zero.

    Args:
        share: the share of the groups that must be zero, in [0, 1]; or a function of the 0-based step, such as an Optax
            schedule, for a ramp. The state has no copy of it: give the same function when a run is continued.
        groups: see `GroupRegularizer`.
        over: `"leaf"` for the share of each leaf; `"all"` for the share of all groups in the leaves of the optimizer
            that have a `TopGroups` with this share and `over="all"`. Those then compete by their gains.

    Raises:
        ValueError: share is outside [0, 1]; groups or over are unknown; axes are repeated; at `init`, the leaf does not
            have the axes; `prox` or `value` are called for one leaf although the share is over all leaves, or is a
            function of the step (use `at_step`).
        TypeError: an argument is of another kind.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> half = ramda_jax.TopGroups(0.5)
        >>> half.prox(jnp.array([[3.0, 4.0], [0.3, 0.4]]), 1.0)
        Array([[3., 4.],
               [0., 0.]], dtype=float32)
        >>> optimizer = ramda_jax.ramda(1e-2, half, strength=1.0)  # any positive strength

    References:
        Blumensath and Davies, `Iterative hard thresholding for compressed sensing`, 2009, in the Euclidean metric.
    """

    share: Any  # a float or a function of the step
    groups: GroupSpec = "input"
    over: str = "leaf"

    def __post_init__(self) -> None:
        TopBlocks.__post_init__(self)
        Grouped.__post_init__(self)

    def block_norms(self, x: jax.Array) -> jax.Array:
        return self.norms(x)

    def point(self, model: "QuadraticModel", radii: jax.Array) -> jax.Array:
        return jnp.where(radii == 0, 0, model.rhs / model.metric)


@dataclasses.dataclass(frozen=True)
class TopEntries(TopBlocks):
    """The indicator of "at least `share` of the entries are zero": keeps the best entries without shrinking them.

        psi(w) = 0 if at least ceil(share * number of entries) entries are zero, else infinite

    This is `TopGroups` with groups of one entry: the entries with the largest `rhs^2 / metric` are kept. They are found
    without a sort, by bisecting the range of their bits and counting.

    Args:
        share: the share of the entries that must be zero; see `TopGroups`.
        over: see `TopGroups`.

    Raises:
        ValueError, TypeError: as `TopGroups`.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ramda_jax.TopEntries(0.5).prox(jnp.array([3.0, -0.5, 0.2, -4.0]), 1.0)
        Array([ 3.,  0.,  0., -4.], dtype=float32)

    References:
        Blumensath and Davies, `Iterative hard thresholding for compressed sensing`, 2009, in the Euclidean metric.
    """

    share: Any  # a float or a function of the step
    over: str = "leaf"
