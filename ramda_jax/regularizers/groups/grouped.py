"""The base class of every psi of groups: which slices of a leaf are groups."""

import abc
import dataclasses
import math
from typing import TYPE_CHECKING

import jax

from ramda_jax.numerics import any_nonzero, group_norms
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.typing import Axes, GroupSpec, Shape

if TYPE_CHECKING:
    from ramda_jax.builders.quadratic import QuadraticModel

from ramda_jax.regularizers.groups.axes import check_groups, group_axes


class Grouped(Regularizer):
    """A psi of groups: which slices of a leaf are groups, their norms, and which of them are alive.

    A subclass declares the field `groups`, as `GroupRegularizer` does.
    """

    support_counts = "groups"

    # Not a field, because this is not a dataclass: subclasses declare it in their own field order.
    groups: GroupSpec = "input"

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", check_groups(self.groups))

    def resolve(self, path: str, shape: Shape) -> "Grouped":
        """This regularizer with the groups as axes."""
        axes = group_axes(self.groups, path, shape)
        return dataclasses.replace(self, groups=axes)  # pyright: ignore[reportArgumentType]

    def axes_inside(self, ndim: int) -> Axes:
        """The axes inside a group, of a leaf of `ndim`."""
        kept = group_axes(self.groups, "", (0,) * ndim)  # after `resolve` groups are axes, so the lengths do not matter
        return tuple(axis for axis in range(ndim) if axis not in kept)

    def sizes(self, shape: Shape) -> int:
        return math.prod(shape[axis] for axis in self.axes_inside(len(shape)))

    def radii_shape(self, shape: Shape) -> Shape:
        """The shape of one number per group: the leaf's shape, with length one along the axes inside a group."""
        inside = self.axes_inside(len(shape))
        return tuple(1 if axis in inside else size for axis, size in enumerate(shape))

    def norms(self, w: jax.Array) -> jax.Array:
        """`||w_g||`, of the shape `radii_shape(w.shape)`."""
        return group_norms(w, self.axes_inside(w.ndim))

    def support(self, w: jax.Array) -> jax.Array:
        return any_nonzero(w, self.axes_inside(w.ndim))

    @abc.abstractmethod
    def point(self, model: "QuadraticModel", radii: jax.Array) -> jax.Array:
        """The solution of the model's subproblem whose groups have the norms `radii`."""
