"""Sums over groups of a function of the group's norm, and the weights of the groups."""

import abc
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.numerics import differentiable_group_norms, norm
from ramda_jax.regularizers.base import widened
from ramda_jax.regularizers.elementwise import soft_threshold
from ramda_jax.regularizers.groups.norm_penalty import NormPenalty
from ramda_jax.regularizers.groups.per_group import PerGroup
from ramda_jax.typing import Axes, GroupSpec, GroupWeight, Scalar, Shape
from ramda_jax.validation import check_non_negative

if TYPE_CHECKING:
    from ramda_jax.builders.quadratic import QuadraticModel

from ramda_jax.regularizers.groups.grouped import Grouped

GROUP_WEIGHTS = ("sqrt_size", "sqrt_layer_size")


class _PartlyL1(Grouped):
    """Class variables for the share of l1 and the sign; subclasses that let users choose them declare fields."""

    l1_ratio: float = 0.0
    #: Whether psi is infinite where an entry is negative.
    non_negative: bool = False


@dataclasses.dataclass(frozen=True)
class GroupRegularizer(_PartlyL1):
    """A sum over groups of a function of the group's norm, and of l1 norms where `l1_ratio` is not 0.

        psi(w) = l1_ratio ||w||_1 + (1 - l1_ratio) sum_g P_g(||w_g||)

    A subclass defines P_g (`norm_penalty`); everything else follows.

    Attributes:
        groups: what a group is: `"input"`, `"output"`, `"heads"`, `"kernel"`, or the axes that index the groups
            (`group_axes` has the table).
        group_weight: omega_g, the relative weight of each group: `"sqrt_size"`, the root of the number of entries
            in a group, as in the papers' code; `"sqrt_layer_size"`, the root of the number of entries in the
            leaf, as in the regularizer study of the ICLR paper; a number for all groups; an array of one number per
            group, whose shape broadcasts against `radii_shape` of every leaf that gets it; or a function of a leaf's
            path and shape that returns a number or such an array. A leaf with an array is not solved in tiles.
    """

    groups: GroupSpec = "input"
    group_weight: GroupWeight = "sqrt_size"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "group_weight", _checked_weight(self.group_weight))

    def resolve(self, path: str, shape: Shape) -> "GroupRegularizer":
        """This regularizer with the groups as axes and the weight as a number.

        So a part of the leaf, such as the leaf of a compacted network, keeps the weight of the whole leaf.
        """
        resolved: Any = super().resolve(path, shape)
        if callable(self.group_weight):
            resolved = dataclasses.replace(resolved, group_weight=self.group_weight(path, shape))
        if isinstance(resolved.group_weight, PerGroup):
            resolved.group_weight.check_fits(resolved.radii_shape(shape), path)
            return resolved
        weights = resolved.weights(shape)
        # A subclass may give one number per group, which is not stored in `group_weight`.
        return dataclasses.replace(resolved, group_weight=float(weights)) if jnp.ndim(weights) == 0 else resolved

    def inner_axes(self, ndim: int) -> Axes:
        return self.axes_inside(ndim)

    def weights(self, shape: Shape) -> Scalar:
        """omega_g for a leaf of that shape: a Python float if all groups of a leaf have the same weight.

        Otherwise an array of one number per group, which broadcasts against `radii_shape(shape)`.
        """
        if isinstance(self.group_weight, PerGroup):
            return self.group_weight.array
        if callable(self.group_weight):
            raise ValueError(
                f"`group_weight` must be known here, but that of {self!r} is a function of path and shape; use "
                "`resolve(path, shape)` of the regularizer, which calls it."
            )
        if self.group_weight == "sqrt_size":
            return math.sqrt(self.sizes(shape))
        if self.group_weight == "sqrt_layer_size":
            return math.sqrt(math.prod(shape))
        weight: Any = self.group_weight
        return weight

    @abc.abstractmethod
    def norm_penalty(self, weight: Scalar, group_weight: Scalar) -> NormPenalty:
        """`weight * P_g` for groups of the weight `group_weight` (omega_g)."""

    def leaf_penalty(self, shape: Shape, weight: Scalar) -> NormPenalty:
        """`weight * (1 - l1_ratio) * P_g` for the groups of a leaf of that shape."""
        weights = self.weights(shape)
        if isinstance(weights, np.ndarray):
            weights = jnp.asarray(weights, jnp.result_type(weight))
        return self.norm_penalty(weight * (1 - self.l1_ratio), weights)

    def reduced(self, rhs: jax.Array, weight: Scalar) -> jax.Array:
        """The right-hand side of the subproblem in the groups' norms alone, after the l1 norm's share is subtracted.

        The minimiser has the signs of `rhs`, so every entry is soft-thresholded. With `non_negative` entries that would
        be negative are zero. Without an l1 norm and a sign the result is `rhs`.
        """
        reduced = soft_threshold(rhs, weight * self.l1_ratio) if self.l1_ratio else rhs
        return jnp.where((weight > 0) & (reduced <= 0), 0, reduced) if self.non_negative else reduced

    def point(self, model: "QuadraticModel", radii: jax.Array) -> jax.Array:
        rhs = self.reduced(model.rhs, model.weight)
        return self.leaf_penalty(rhs.shape, model.weight).point(rhs, model.metric, radii)

    def value(self, w: jax.Array) -> jax.Array:
        w = widened(w)
        norms = differentiable_group_norms(w, self.axes_inside(w.ndim))
        penalty = self.leaf_penalty(w.shape, jnp.ones([], w.dtype)).value(norms)
        value = jnp.sum(jnp.broadcast_to(penalty, self.radii_shape(w.shape))) + self.l1_ratio * jnp.sum(jnp.abs(w))
        return jnp.where(jnp.any(w < 0), jnp.inf, value) if self.non_negative else value

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        weight = jnp.asarray(weight, x.dtype)
        rhs, penalty = self.reduced(x, weight), self.leaf_penalty(x.shape, weight)
        one = jnp.ones([], x.dtype)
        return penalty.point(rhs, one, penalty.radii(self.norms(rhs), one))

    def screen(self, rhs: jax.Array, weight: Scalar) -> jax.Array | None:
        # This holds only for a convex psi, because otherwise a point beyond the knee may be lower than 0.
        if not self.convex:
            return None
        weight = jnp.asarray(weight, rhs.dtype)
        reduced, penalty = self.reduced(rhs, weight), self.leaf_penalty(rhs.shape, weight)
        return self.norms(reduced) <= penalty.lam

    def zeroing_weight(self, rhs: jax.Array, metric: Scalar) -> jax.Array:
        ratio, group_weight = self.l1_ratio, self.weights(rhs.shape)
        if isinstance(group_weight, np.ndarray):
            group_weight = jnp.asarray(group_weight, rhs.dtype)
        if self.non_negative:
            rhs = jnp.where(rhs <= 0, 0, rhs)
        axes = self.inner_axes(rhs.ndim)
        slope = (1 - ratio) * group_weight
        if not ratio:
            return jnp.where(slope == 0, jnp.inf, self.norms(rhs) / jnp.where(slope == 0, 1, slope))
        # The root of `||soft(rhs, weight ratio)|| = weight slope`. The difference of both sides is convex and
        # decreasing, so Newton's method from 0 increases to the root. A few steps are enough for a bound.
        root = jnp.zeros_like(self.norms(rhs))
        for _ in range(8):
            reduced = soft_threshold(rhs, root * ratio)
            norms = self.norms(reduced)
            fall = ratio * jnp.sum(jnp.abs(reduced), axis=axes, keepdims=True) / jnp.where(norms == 0, 1, norms) + slope
            root += jnp.maximum(norms - root * slope, 0) / jnp.where(fall == 0, 1, fall)
        return root

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        weight = jnp.asarray(weight, w.dtype)
        reduced, penalty = self.reduced(slope, weight), self.leaf_penalty(w.shape, weight)
        norms = self.norms(w)
        dead = jnp.maximum(self.norms(reduced) - penalty.lam, 0)
        radial = penalty.derivative(norms) / jnp.where(norms == 0, 1, norms)
        alive = self.norms(jnp.where(w == 0, reduced, slope - weight * self.l1_ratio * jnp.sign(w) - radial * w))
        distance = norm(jnp.where(norms == 0, dead, alive))
        return jnp.where(jnp.any((w < 0) & (weight > 0)), jnp.inf, distance) if self.non_negative else distance


def _checked_weight(given):
    """`group_weight` as a name, a Python float, a `PerGroup` or a function; raises for anything else."""
    others = "an array of one number per group, or a function of path and shape"
    if isinstance(given, PerGroup):
        return given
    if isinstance(given, str):
        if given not in GROUP_WEIGHTS:
            raise ValueError(
                f"`group_weight` must be one of {GROUP_WEIGHTS} or a number, got {given!r}; use 1.0 for equal weights, "
                f"{others}."
            )
        return given
    if isinstance(given, (list, tuple)) or (isinstance(given, (np.ndarray, jax.Array)) and given.ndim > 0):
        return PerGroup(given)
    if callable(given):
        try:
            hash(given)
        except TypeError:
            raise TypeError(
                f"`group_weight` must be hashable, for the regularizer is a static part of the state, got {given!r}; "
                "use a function."
            ) from None
        return given
    if not isinstance(given, (int, float, np.number)):
        raise TypeError(
            f"`group_weight` must be one of {GROUP_WEIGHTS} or a Python number, got {given!r}; use 1.0 for equal "
            f"weights, {others}."
        )
    check_non_negative("group_weight", given, schedules=False)
    return float(given)
