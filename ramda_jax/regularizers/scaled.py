"""A number times a regularizer: its weight relative to the others of an optimizer."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ramda_jax.regularizers.base import Regularizer, widened
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.regularizers.groups.norm_penalty import NormPenalty
from ramda_jax.typing import Axes, GroupSpec, Scalar, Shape
from ramda_jax.validation import check_non_negative

if TYPE_CHECKING:
    from ramda_jax.builders.quadratic import QuadraticModel


@dataclasses.dataclass(frozen=True)
class Scaled(Regularizer):
    """`factor * psi(w)` for any regularizer: `2.0 * GroupLasso()` is `Scaled(GroupLasso(), 2.0)`.

    It weighs a regularizer against the others of an optimizer, which all share one strength. The solver is that of the
    regularizer itself, with `weight * factor`; so a scaled group norm is solved exactly in any diagonal metric too.
    `L1` and `NuclearNorm` have a factor of their own, so that `2.0 * L1()` keeps its class. An indicator, such as `Box`
    or `TopGroups`, is the same for any factor above 0.

    Args:
        regularizer: the `Regularizer` to scale.
        factor: a Python number >= 0; 0 means no regularizer.

    Raises:
        TypeError: regularizer is not a `Regularizer`, or factor is not a Python number.
        ValueError: factor is negative.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> twice = 2.0 * ramda_jax.GroupLasso(group_weight=1.0)
        >>> twice.prox(jnp.array([[6.0, 8.0], [0.6, 0.8]]), 2.5)
        Array([[3., 4.],
               [0., 0.]], dtype=float32)
        >>> ramda_jax.default_solver(twice)
        SecularNewton(max_steps=40, strict=False)
    """

    regularizer: Regularizer
    factor: float

    def __new__(cls, regularizer: Regularizer | None = None, factor: float = 1.0) -> "Scaled":
        del factor
        # A scaled psi of group norms has their class, because solvers and metrics ask for the class.
        return super().__new__(type(regularizer).scaled_class if isinstance(regularizer, Regularizer) else cls)

    def __post_init__(self) -> None:
        if not isinstance(self.regularizer, Regularizer):
            raise TypeError(
                f"`regularizer` must be a `Regularizer`, got {self.regularizer!r}; use for example `2 * GroupLasso()`."
            )
        if callable(self.factor) or isinstance(self.factor, jax.Array):
            raise TypeError(
                "`factor` must be a Python number, because the regularizer is a static part of the state, got "
                f"{self.factor!r}; use a schedule as `strength`, which multiplies it."
            )
        check_non_negative("factor", self.factor)
        object.__setattr__(self, "factor", float(self.factor))

    def __mul__(self, number: float) -> Any:
        check_non_negative("factor", number, schedules=False)
        return dataclasses.replace(self, factor=self.factor * number)

    @property
    def convex(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.regularizer.convex

    @property
    def expensive_prox(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.regularizer.expensive_prox

    @property
    def support_counts(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.regularizer.support_counts

    @property
    def elementwise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.regularizer.elementwise

    @property
    def any_metric(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.regularizer.any_metric

    @property
    def coupling(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        inner = self.regularizer.coupling
        return None if inner is None else (Scaled, inner)

    def _of(self, regularizer):
        return dataclasses.replace(self, regularizer=regularizer)

    def resolve(self, path: str, shape: Shape) -> Any:
        return self._of(self.regularizer.resolve(path, shape))

    def at_step(self, step: Any) -> Any:
        here = self.regularizer.at_step(step)
        return self if here is self.regularizer else self._of(here)

    def together(self, subproblems: Any) -> list[Regularizer]:
        alone = self.regularizer.together([(scaled.regularizer, rhs, metric) for scaled, rhs, metric in subproblems])
        return [scaled._of(found) for (scaled, *_), found in zip(subproblems, alone, strict=True)]

    def value(self, w: jax.Array) -> jax.Array:
        # An indicator may be infinite, and 0 times infinity is NaN.
        return self.factor * self.regularizer.value(w) if self.factor else jnp.zeros([], widened(w).dtype)

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        return self.regularizer.prox(x, weight * self.factor)

    def prox_and_value(self, x: jax.Array, weight: Scalar) -> tuple[jax.Array, jax.Array]:
        z, value = self.regularizer.prox_and_value(x, weight * self.factor)
        return z, self.factor * value

    def inner_axes(self, ndim: int) -> Axes:
        return self.regularizer.inner_axes(ndim)

    def solve_scaled(self, rhs: jax.Array, metric: Scalar, weight: Scalar) -> jax.Array:
        return self.regularizer.solve_scaled(rhs, metric, weight * self.factor)

    def screen(self, rhs: jax.Array, weight: Scalar) -> Any:
        return self.regularizer.screen(rhs, weight * self.factor)

    def zeroing_weight(self, rhs: jax.Array, metric: Scalar) -> Any:
        inner = self.regularizer.zeroing_weight(rhs, metric)
        if inner is None:
            return None
        return inner / self.factor if self.factor else jnp.full_like(inner, jnp.inf)

    def support(self, w: jax.Array, *rtol: Any) -> jax.Array:
        return self.regularizer.support(w, *rtol)

    def sizes(self, shape: Shape) -> int:
        return self.regularizer.sizes(shape)

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        return self.regularizer.subdifferential_distance(w, slope, weight * self.factor)


# Properties instead of variables, and the class that a method returns.
class ScaledGroups(Scaled, GroupRegularizer):  # pyright: ignore
    """`Scaled` of a psi of the group norms."""

    regularizer: GroupRegularizer

    @property
    def groups(self) -> GroupSpec:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.regularizer.groups

    @property
    def group_weight(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.regularizer.group_weight

    @property
    def l1_ratio(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.regularizer.l1_ratio

    @property
    def non_negative(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.regularizer.non_negative

    def weights(self, shape: Shape) -> Any:
        return self.regularizer.weights(shape)

    def norm_penalty(self, weight: Scalar, group_weight: Scalar) -> NormPenalty:
        return self.regularizer.norm_penalty(weight * self.factor, group_weight)

    def leaf_penalty(self, shape: Shape, weight: Scalar) -> NormPenalty:
        return self.regularizer.leaf_penalty(shape, weight * self.factor)

    def reduced(self, rhs: jax.Array, weight: Scalar) -> jax.Array:
        return self.regularizer.reduced(rhs, weight * self.factor)

    def point(self, model: "QuadraticModel", radii: jax.Array) -> jax.Array:
        return self.regularizer.point(model._replace(weight=model.weight * self.factor), radii)


Regularizer.scaled_class = Scaled
GroupRegularizer.scaled_class = ScaledGroups
