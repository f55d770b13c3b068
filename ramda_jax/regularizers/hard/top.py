"""The most valuable groups or entries are kept, of a leaf or of all leaves."""

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
    """The indicator of "at least `share` of the groups are zero": keeps the best groups, unshrunken.

        psi(w) = 0 if at least ceil(share * number of groups) groups are zero, else infinite

    In any diagonal metric the minimiser of the subproblem is in closed form: of each group the gain

        1/2 sum_i rhs_i^2 / metric_i        over the entries of the group

    is what zeroing it would cost. The groups of largest gain are rhs / metric, as without a regularizer, the others
    exactly zero; of equal gains the lower index is kept. So the structured point has the share from the first step on,
    and so have the parameters where `averaging` is 1. Any positive strength is the same; where the subproblem's weight
    is 0 (strength or learning rate 0) there is no constraint. Groups count alike, whatever their size. There is no
    `group_weight`: it would make another set of groups, which does not minimise.

    The number of zeros is rounded up: 2 of 3 groups for a share of 0.5, and of 0.07 of 100 it is 7, though 0.07 * 100
    is a little more in floating point. It is not convex. Which groups live is stable where their gains have a gap to
    those of the others; at a share of 1 nothing lives.

    Args:
        share: of the groups that are to be zero, in [0, 1]; or a function of the 0-based step (Optax's schedules), for
            a ramp. The state has no copy of it: give the same function when a run is continued.
        groups: see `GroupRegularizer`.
        over: `"leaf"`, the share of each leaf; `"all"`, the share of the groups of all leaves of the optimizer that
            have a `TopGroups` of this share over all, which then compete by their gains.

    Raises:
        ValueError: a share outside [0, 1]; unknown groups or `over`; repeated axes; at `init`, axes that the leaf
            lacks; a `prox` or `value` of one leaf where the share is over all leaves, or is a function of the step (use
            `at_step`).
        TypeError: something that is not a number, function, name or axes.

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
    """The indicator of "at least `share` of the entries are zero": keeps the best entries, unshrunken.

        psi(w) = 0 if at least ceil(share * number of entries) entries are zero, else infinite

    As `TopGroups` with groups of one entry: kept are the entries of largest `rhs^2 / metric`, found by halving the
    range of their bits and counting, without a sort.

    Args:
        share: of the entries that are to be zero; as that of `TopGroups`.
        over: as that of `TopGroups`.

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
