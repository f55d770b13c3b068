"""What a regularizer is: psi, its prox, its structure."""

import abc
from typing import Any, ClassVar

import jax

from ramda_jax.numerics import norm, sums_dtype
from ramda_jax.typing import Axes, Scalar, Shape


class Regularizer(abc.ABC):
    """A function psi of one leaf, without its weight: `strength` stays outside, so that it can be scheduled.

    Subclasses are frozen dataclasses of plain numbers, strings and tuples (they are compared and hashed:
    the optimizer's state names them), and define no `__call__` (`optax.inject_hyperparams`
    would take them for schedules). A subclass must give `value` and `prox`; everything else has a default
    that is right for any psi, and a better answer makes it faster or makes more solvers fit.

    All methods take leaves of float32 or wider, and `weight >= 0` as a scalar or an array
    that broadcasts against the leaf and is constant on each block of psi.
    """

    #: Whether psi is convex. Where it is not, proximal gradient takes half the step.
    convex: bool = True
    #: Whether the prox is one big operation, such as an SVD: leaves of equal shape are then solved in one batch, and by
    #: default with few iterations.
    expensive_prox: ClassVar[bool] = False
    #: What the elements of `support` are: `"entries"`, `"groups"` or `"singular values"`. The metrics of rank count the
    #: last; there `support` takes a second argument, the tolerance `rtol`.
    support_counts: ClassVar[str] = "entries"
    #: Whether psi is a sum over single entries. Then `solve_scaled` holds for any diagonal metric.
    elementwise: ClassVar[bool] = False
    #: Whether `solve_scaled` holds for any diagonal metric, though psi is not a sum over single entries.
    any_metric: ClassVar[bool] = False
    #: Where leaves have to be solved together (`together`): something hashable that is equal for these; else None.
    coupling: Any = None
    #: The class of this regularizer times a number.
    scaled_class: ClassVar[Any]

    # A NumPy number times a regularizer is ours, no array of objects.
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
        """This regularizer at one step, with the values of its schedules in their place.

        Args:
            step: the 0-based step, an int or an array.

        Returns:
            A regularizer of the same class; itself, without schedules. With them it has arrays in it, which cannot be
            hashed.
        """
        del step
        return self

    def together(self, subproblems: Any) -> list["Regularizer"]:
        """For leaves of one `coupling` what each gets, by which its own minimiser is its part of that of all of them.

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
        """`(z, psi(z))` for `z = prox(x, weight)`: at once, where both come from one decomposition."""
        z = self.prox(x, weight)
        return z, self.value(z)

    def inner_axes(self, ndim: int) -> Axes:
        """The axes inside one block, where psi is a sum over blocks: all of them unless overridden."""
        return tuple(range(ndim))

    def solve_scaled(self, rhs: jax.Array, metric: Scalar, weight: Scalar) -> jax.Array:
        """`argmin_w 1/2 ||w||^2_metric - <rhs, w> + weight psi(w)`, exactly.

        Holds for a metric that is one number, and for any diagonal one where psi is `elementwise` or says `any_metric`.
        """
        return self.prox(rhs / metric, weight / metric)

    def screen(self, rhs: jax.Array, weight: Scalar) -> jax.Array | None:
        """Where zero is certain to be the solution for a model of this `rhs`, whatever its metric.

        Returns:
            A boolean array that broadcasts against the leaf, or None where nothing can be said.
        """
        del rhs, weight

    def zeroing_weight(self, rhs: jax.Array, metric: Scalar) -> jax.Array | None:
        """The smallest weight for which each block of `argmin_w 1/2 ||w||^2_metric - <rhs, w> + weight psi(w)` is 0.

        Returns:
            An array of the shape of `support`; None for a psi whose zeros do not grow with its weight.
        """
        del rhs, metric

    def support(self, w: jax.Array) -> jax.Array:
        """Which parts of w are alive: True where a block (an entry unless overridden) is not exactly zero."""
        return w != 0

    def sizes(self, shape: Shape) -> int:
        """How many entries of the leaf each element of `support` stands for: one number."""
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
