"""Hard targets: psi is 0 where enough is zero, and infinite elsewhere.

In any diagonal metric the minimiser is in closed form. To zero the entries of a set S costs

    sum_S rhs_i^2 / (2 metric_i)

and changes nothing of what is best for the others, rhs / metric. So what is kept is what would cost most.
"""

import copy
import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.numerics import gathered, is_nan_key, largest, norm, sort_keys, with_type_sharding
from ramda_jax.regularizers.base import Regularizer, widened
from ramda_jax.regularizers.groups import Grouped
from ramda_jax.regularizers.null import Null
from ramda_jax.typing import Axes, GroupSpec, Scalar, Shape
from ramda_jax.validation import check_count, check_non_negative, check_share
from ramda_jax.xla.hints import stored

if TYPE_CHECKING:
    from ramda_jax.builders.quadratic import QuadraticModel

OVER = ("leaf", "all")
# Indices are int32.
_MOST = 2**31 - 1
# Up to so many neighbours are compared pair by pair, more are sorted.
_PAIRWISE = 16


class HardTarget(Regularizer):
    """What hard targets share; a subclass says which blocks are kept, of those of some keys (`sort_keys`)."""

    convex = False
    any_metric = True

    def __mul__(self, number: float) -> Any:
        # An indicator times a number; 0 times it is none.
        check_non_negative("factor", number)
        return self if number > 0 else Null()

    def block_norms(self, x: jax.Array) -> jax.Array:
        """`||x||`, block by block: of the shape of x, or of length one along the axes inside a block."""
        return jnp.abs(x)

    def kept(self, keys: jax.Array) -> jax.Array:
        """Which blocks are kept: those of the largest keys, the first ones of equal keys, and all that are NaN."""
        raise NotImplementedError

    def dropped(self, keys: jax.Array) -> jax.Array:
        """As many blocks as have to be zero, those of the largest keys."""
        raise NotImplementedError

    def solve_scaled(self, rhs: jax.Array, metric: Scalar, weight: Scalar) -> jax.Array:
        # The root of what it costs, so that no square over- or underflows: it lies between |rhs| and |rhs / metric|.
        keys = sort_keys(self.block_norms(jax.lax.stop_gradient(rhs / jnp.sqrt(metric))))
        # Nor is there a -0.0.
        return jnp.where((weight > 0) & ~(self.kept(keys) & (rhs != 0)), 0, rhs / metric)

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        return self.solve_scaled(x, jnp.ones([], x.dtype), weight)

    def value(self, w: jax.Array) -> jax.Array:
        w = widened(w)
        alive = self.block_norms(w) != 0
        is_inside = ~jnp.any(alive & self.dropped((~alive).astype(jnp.int32))) & ~jnp.any(jnp.isnan(w))
        return jnp.where(is_inside, 0.0, jnp.inf).astype(w.dtype)

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        # Normal is what is 0 on w's blocks, and on others up to the number that may live: those where it costs least.
        del weight
        alive = self.block_norms(w) != 0
        keys = jnp.where(alive, 0, 1 + sort_keys(self.block_norms(slope)))
        dropped = self.dropped(keys)
        distance = norm(jnp.where(dropped, 0, slope))
        return jnp.where(jnp.any(alive & dropped), jnp.inf, distance)


class _Top(HardTarget):
    """A share of the blocks of a leaf, or of all leaves together, is zero.

    A subclass has the fields `share` and `over`, in its own field order: this is no dataclass.
    """

    share: Any = 0.0  # a float or a function of the step
    over: str = "leaf"
    # The groups or entries of a leaf that `together` keeps. No field: it is no part of what a user says.
    _found = None

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.over not in OVER:
            raise ValueError(f"`over` must be one of {OVER}, got {self.over!r}; use 'leaf' for a share of each leaf.")
        try:
            hash(self.share)
        except TypeError:
            raise TypeError(
                f"`share` must be hashable, for the regularizer is a static part of the state, got {self.share!r}; use "
                "a number, or a function that is made once."
            ) from None
        if not callable(self.share):
            object.__setattr__(self, "share", float(self.share))

    @property
    def coupling(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return (type(self), self.share) if self.over == "all" and self._found is None else None

    def at_step(self, step: Any) -> Any:
        if not callable(self.share):
            return self
        return self._with("share", jnp.clip(jnp.asarray(self.share(step), jnp.result_type(float)), 0, 1))

    def together(self, subproblems: Any) -> list[Regularizer]:
        sizes = [one.block_norms(rhs / jnp.sqrt(metric)) for one, rhs, metric in subproblems]
        keys = [sort_keys(x.astype(jnp.result_type(*sizes))) for x in sizes]
        total = sum(x.size for x in keys)
        masks = largest(keys, total - _number_of_zeros(self, total))
        return [one._with("_found", mask) for (one, *_), mask in zip(subproblems, masks, strict=True)]

    def kept(self, keys: jax.Array) -> jax.Array:
        found = self._found
        if found is None:
            (found,) = largest([keys], keys.size - self._zeros_of_leaf(keys.size))
        return found | is_nan_key(keys)

    def dropped(self, keys: jax.Array) -> jax.Array:
        return largest([keys], self._zeros_of_leaf(keys.size))[0]

    def _zeros_of_leaf(self, total):
        if self.over == "all":
            raise ValueError(
                f"One leaf alone has no psi under {self!r}, only all leaves together have; see the share by "
                "`metrics.group_sparsity`, or use over='leaf'."
            )
        return _number_of_zeros(self, total)

    def _with(self, name, value):
        # No `dataclasses.replace`, whose checks are for what users say.
        changed = copy.copy(self)
        object.__setattr__(changed, name, value)
        return changed


def _number_of_zeros(top, total):
    """The least number of zeros that is at least the share of `total`, up to the rounding of the share."""
    if total > _MOST:
        raise ValueError(
            f"{top!r} must be of fewer than 2^31 groups or entries that are compared, got {total}; use larger groups, "
            "or patterns for fewer leaves."
        )
    share = top.share
    if callable(share):
        raise ValueError(f"The share of {top!r} is a function of the step; use `at_step(step)` of the regularizer.")
    if isinstance(share, jax.Array):
        slack = 2 * jnp.finfo(share.dtype).eps
        return jnp.clip(jnp.ceil((share - slack) * total), 0, total).astype(jnp.int32)
    return min(max(math.ceil((share - 1e-12) * total), 0), total)


@dataclasses.dataclass(frozen=True)
class TopGroups(_Top, Grouped):
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
        TypeError: something that is no number, function, name or axes.

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
        _Top.__post_init__(self)
        Grouped.__post_init__(self)

    def block_norms(self, x: jax.Array) -> jax.Array:
        return self.norms(x)

    def point(self, model: "QuadraticModel", radii: jax.Array) -> jax.Array:
        return jnp.where(radii == 0, 0, model.rhs / model.metric)


@dataclasses.dataclass(frozen=True)
class TopEntries(_Top):
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


@dataclasses.dataclass(frozen=True)
class NofM(HardTarget):
    """The indicator of "of every m neighbours along an axis at most n are not zero": 2:4 sparsity and its kin.

        psi(w) = 0 if every block of m has at least m - n zeros, else infinite

    In any diagonal metric the minimiser is in closed form: each block keeps its n entries of largest
    `rhs^2 / metric`, unshrunken, the lower index of equal ones. Strength as in `TopGroups`: any positive one is the
    same.

    Args:
        n: how many of each block are kept, from 0 to m.
        m: the length of a block, > 0.
        axis: along which the blocks lie, one after the other from index 0 on; -2, the inputs of a Flax kernel, is what
            hardware sums over.

    Raises:
        ValueError: n is not in 0 to m, m is below 1; at `init`, a leaf that lacks the axis or whose length there is no
            multiple of m.
        TypeError: something that is no whole number.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ramda_jax.NofM(2, 4, axis=-1).prox(jnp.array([3.0, -0.5, 0.2, -4.0, 1.0, 1.0, 1.0, 1.0]), 1.0)
        Array([ 3.,  0.,  0., -4.,  1.,  1.,  0.,  0.], dtype=float32)

    References:
        Mishra and others, `Accelerating sparse deep neural networks`, 2021, arXiv:2104.08378, is the 2:4 format.
    """

    n: int
    m: int
    axis: int = -2

    def __post_init__(self) -> None:
        check_count("n", self.n, 0)
        check_count("m", self.m, 1)
        if self.n > self.m:
            raise ValueError(f"`n` must be at most `m`, got n={self.n!r} and m={self.m!r}; `NofM(2, 4)` keeps 2 of 4.")
        if isinstance(self.axis, bool) or not isinstance(self.axis, (int, np.integer)):
            raise TypeError(f"`axis` must be a whole number, got {self.axis!r}; use -2 for the inputs of a kernel.")
        for name in ("n", "m", "axis"):
            object.__setattr__(self, name, int(getattr(self, name)))

    def resolve(self, path: str, shape: Shape) -> Any:
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(
                f"`axis={self.axis}` must be an axis of the leaf '{path}', which has {len(shape)}; use one of its "
                "axes, or a pattern that leaves it out."
            )
        if shape[self.axis] % self.m:
            raise ValueError(
                f"`m={self.m}` must divide the length of axis {self.axis} of the leaf '{path}' of shape {shape}; use "
                "another axis, or a pattern that leaves it out."
            )
        return dataclasses.replace(self, axis=self.axis % len(shape))

    def inner_axes(self, ndim: int) -> Axes:
        return (self.axis % ndim,)

    def kept(self, keys: jax.Array) -> jax.Array:
        return self._largest(keys, self.n)

    def dropped(self, keys: jax.Array) -> jax.Array:
        return self._largest(keys, self.m - self.n)

    def _largest(self, keys, number):
        """The mask of the `number` largest keys of every block, and of those of NaNs."""
        if keys.size == 0:
            return jnp.zeros(keys.shape, bool)
        axis = self.axis % keys.ndim
        sharding = jax.typeof(keys).sharding
        return with_type_sharding(self._largest_along(gathered(keys, axis), number, axis), sharding)

    def _largest_along(self, keys, number, axis):
        blocked = (*keys.shape[:axis], keys.shape[axis] // self.m, self.m, *keys.shape[axis + 1 :])
        if self.m > _PAIRWISE:
            order = jnp.argsort(-keys.reshape(blocked), axis + 1, stable=True)
            mask = jnp.argsort(order, axis + 1) < number
            return mask.reshape(keys.shape) | is_nan_key(keys)
        parts = [jax.lax.slice_in_dim(keys, i, None, self.m, axis) for i in range(self.m)]
        ranks = [jnp.zeros(parts[0].shape, jnp.int32)] * self.m
        for i, j in itertools.combinations(range(self.m), 2):
            is_first = parts[i] >= parts[j]
            ranks[i], ranks[j] = ranks[i] + ~is_first, ranks[j] + is_first
        masks = [(rank < number) | is_nan_key(part) for rank, part in zip(ranks, parts, strict=True)]
        # One number for each block, so that its keys are computed once, and not by each of its entries again.
        bits = stored(sum(mask.astype(jnp.int32) << i for i, mask in enumerate(masks)))
        place = jax.lax.broadcasted_iota(jnp.int32, blocked, axis + 1)
        return ((jnp.expand_dims(bits, axis + 1) >> place) & 1 == 1).reshape(keys.shape)
