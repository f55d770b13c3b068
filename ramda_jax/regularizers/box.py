"""Constraints: psi is 0 in a set and infinite outside."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ramda_jax.numerics import norm
from ramda_jax.regularizers.base import Regularizer, widened
from ramda_jax.regularizers.elementwise import ElementwiseRegularizer
from ramda_jax.typing import Scalar


@dataclasses.dataclass(frozen=True)
class Box(ElementwiseRegularizer):
    """The indicator of an interval: `psi(w) = 0` if all entries are in [lower, upper], else infinite.

    Entries reach the bounds exactly and stay there. All positive strengths mean the same. If the weight of the
    subproblem is 0 (strength or learning rate 0), there is no constraint. `support` has the entries strictly inside,
    and those that are not finite.

    Args:
        lower: the least value; may be -inf.
        upper: the greatest value; may be inf.

    Raises:
        ValueError: lower is not below upper.
        TypeError: lower or upper is not a Python number.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ramda_jax.Box(0.0, 1.0).prox(jnp.array([-0.5, 0.25, 3.0]), 1.0)
        Array([0.  , 0.25, 1.  ], dtype=float32)
    """

    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.lower, (int, float)) and isinstance(self.upper, (int, float))):
            raise TypeError(
                f"`lower` and `upper` must be Python numbers, got {self.lower!r} and {self.upper!r}; use float(...)."
            )
        if not self.lower < self.upper:
            raise ValueError(f"`lower` must be below `upper`, got {self.lower!r} and {self.upper!r}; swap them.")

    def value(self, w: jax.Array) -> jax.Array:
        w = widened(w)
        return jnp.where(jnp.all((w >= self.lower) & (w <= self.upper)), 0.0, jnp.inf).astype(w.dtype)

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        return jnp.where(weight > 0, jnp.clip(x, self.lower, self.upper), x)

    def support(self, w: jax.Array) -> jax.Array:
        # An entry that is not finite does not count as being at a bound.
        return ~((w <= self.lower) | (w >= self.upper)) | ~jnp.isfinite(w)

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        # The normal cone points outwards at a bound.
        at_lower, at_upper = jnp.maximum(slope, 0), jnp.maximum(-slope, 0)
        distance = jnp.where(w <= self.lower, at_lower, jnp.where(w >= self.upper, at_upper, jnp.abs(slope)))
        return jnp.where(self.value(w) == 0, norm(distance), jnp.inf)


@dataclasses.dataclass(frozen=True)
class Projection(Regularizer):
    """The indicator of any set with a projection, such as those of `optax.projections`, leaf by leaf.

        psi(w) = 0 if w is in the set, else infinite;   prox = the projection

    Args:
        function: from an array to its projection, such as `optax.projections.projection_simplex`; for more arguments
            `functools.partial(optax.projections.projection_l1_ball, scale=3.0)`. It is compared by identity: use a
            module's function, or make the partial once.
        is_convex: whether the set is convex; spheres are not.

    Raises:
        TypeError: function is not callable.

    Example:
        >>> import jax.numpy as jnp, optax, ramda_jax
        >>> simplex = ramda_jax.Projection(optax.projections.projection_simplex)
        >>> simplex.prox(jnp.array([2.0, 1.5, -1.0]), 1.0)
        Array([0.75, 0.25, 0.  ], dtype=float32)
    """

    function: Callable[..., jax.Array]
    is_convex: bool = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"`function` must be a projection, got {self.function!r}; use one of `optax.projections`.")
        object.__setattr__(self, "convex", self.is_convex)

    def value(self, w: jax.Array) -> jax.Array:
        w = widened(w)
        # A projection lies in the set only up to rounding.
        slack = math.sqrt(jnp.finfo(w.dtype).eps) * jnp.maximum(jnp.max(jnp.abs(w), initial=0), 1)
        distance = jnp.max(jnp.abs(w - self.function(w)), initial=0)
        is_inside = (distance <= slack) & jnp.isfinite(distance)
        return jnp.where(is_inside, 0.0, jnp.inf).astype(w.dtype)

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        return jnp.where(weight > 0, self.function(x), x)
