"""The interface of regularizers: psi, its prox, its structure."""

import abc
from typing import Any, ClassVar

import jax

from ramda_jax.numerics import norm, sums_dtype
from ramda_jax.typing import Axes, Scalar, Shape


class Regularizer(abc.ABC):
    """A function psi of one leaf, without its weight: `strength` is an argument of the optimizer and can be scheduled.

    Subclasses are frozen dataclasses of plain numbers, strings and tuples. They are compared and hashed, because they
    are a static part of the optimizer's state. They do not define `__call__`: `optax.inject_hyperparams` would take
    them for schedules. A subclass must define `value` and `prox`. Everything else has a default that is right for any
    psi; a better answer makes solves faster, or allows more solvers.

    All methods take leaves of float32 or wider, and `weight >= 0` as a scalar or as an array that broadcasts against
    the leaf and is constant on each block of psi.
    """

    #: Whether psi is convex. If not, proximal gradient takes half the step.
    convex: bool = True
    #: Whether the prox is one large operation, such as an SVD. Leaves of equal shape are then solved in one batch, and
    #: the default solver takes few iterations.
    expensive_prox: ClassVar[bool] = False
    #: What the elements of `support` are: `"entries"`, `"groups"` or `"singular values"`. The metrics of rank count
    #: singular values; `support` then takes the tolerance `rtol` as a second argument.
    support_counts: ClassVar[str] = "entries"
    #: Whether psi is a sum over single entries. Then `solve_scaled` holds for any diagonal metric.
    elementwise: ClassVar[bool] = False
    #: Whether `solve_scaled` holds for any diagonal metric, though psi is not a sum over single entries.
    any_metric: ClassVar[bool] = False
    #: Something hashable that is equal for all leaves that must be solved together (`together`); None if each leaf is
    #: solved by itself.
    coupling: Any = None
    #: The class of this regularizer times a number.
    scaled_class: ClassVar[Any]

    # So that a NumPy number times a regularizer calls `__rmul__`, and does not make an array of objects.
    __array_ufunc__ = None

    def __mul__(self, number: float) -> Any:
        """`number` times psi, `number >= 0`: weighs it against the other regularizers of an optimizer (`Scaled`)."""
        return self.scaled_class(self, number)

    def __rmul__(self, number: float) -> Any:
        return self * number

    def resolve(self, path: str, shape: Shape) -> "Regularizer":
        """This regularizer with everything that depends on the leaf's path and shape filled in.

        Args:
            path: the leaf's '/'-joined key path.
            shape: the leaf's shape.

        Returns:
            A regularizer of the same class that no longer depends on the path.

        Raises:
            ValueError: psi does not fit such a leaf.
        """
        del path, shape
        return self

    def at_step(self, step: Any) -> Any:
        """This regularizer at one step, with values instead of schedules.

        Args:
            step: the 0-based step, an int or an array.

        Returns:
            A regularizer of the same class; the same object if it has no schedules. If it has, the result holds arrays
            and cannot be hashed.
        """
        del step
        return self

    def together(self, subproblems: Any) -> list["Regularizer"]:
        """Regularizers by which coupled leaves can be solved one by one.

        The minimiser of a leaf with its regularizer from here is its part of the minimiser of all coupled leaves.

        Args:
            subproblems: for each leaf its resolved regularizer at this step, and the `rhs` and the `metric` of its
                model.

        Returns:
            A regularizer for each leaf, which couples nothing.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def value(self, w: jax.Array) -> jax.Array:
        """`psi(w)`, a scalar of w's dtype (float32 for narrower ones)."""

    @abc.abstractmethod
    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        """`argmin_z 1/2 ||z - x||^2 + weight psi(z)`, of x's shape and dtype.

        For weight 0 it is x."""

    def prox_and_value(self, x: jax.Array, weight: Scalar) -> tuple[jax.Array, jax.Array]:
        """`(z, psi(z))` for `z = prox(x, weight)`; a subclass may take both from one decomposition."""
        z = self.prox(x, weight)
        return z, self.value(z)

    def inner_axes(self, ndim: int) -> Axes:
        """The axes inside one block, if psi is a sum over blocks: all axes unless overridden."""
        return tuple(range(ndim))

    def solve_scaled(self, rhs: jax.Array, metric: Scalar, weight: Scalar) -> jax.Array:
        """`argmin_w 1/2 ||w||^2_metric - <rhs, w> + weight psi(w)`, exactly.

        The result is right for a metric that is one number. For any diagonal metric it is right if `elementwise` or
        `any_metric` is True.
        """
        return self.prox(rhs / metric, weight / metric)

    def screen(self, rhs: jax.Array, weight: Scalar) -> jax.Array | None:
        """Where the solution is certainly zero for a model with this `rhs` and any metric.

        Returns:
            A boolean array that broadcasts against the leaf, or None where nothing can be said.
        """
        del rhs, weight

    def zeroing_weight(self, rhs: jax.Array, metric: Scalar) -> jax.Array | None:
        """The smallest weight for which each block of `argmin_w 1/2 ||w||^2_metric - <rhs, w> + weight psi(w)` is 0.

        Returns:
            An array of the shape of `support`; None for a psi whose number of zeros does not grow with the weight.
        """
        del rhs, metric

    def support(self, w: jax.Array) -> jax.Array:
        """Which parts of w are alive: True if a block (an entry unless overridden) is not exactly zero."""
        return w != 0

    def sizes(self, shape: Shape) -> int:
        """The number of entries of the leaf for each element of `support`: one int for all elements."""
        del shape
        return 1

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        """The distance of `slope` to `weight` times the subdifferential of psi at w, one scalar.

        With `slope = rhs - metric w` it is the KKT residual of the subproblem at w. The default is right
        up to rounding and up to the prox's own accuracy, for convex psi: `slope` is in the subdifferential iff
        `w = prox(w + slope)`.
        """
        return norm(w - self.prox(w + slope, weight))


def widened(w: jax.Array) -> jax.Array:
    """w in at least float32: values of psi are sums."""
    return w.astype(sums_dtype(w.dtype))
