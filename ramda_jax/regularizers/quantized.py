"""Few values: psi is the distance to the nearest level."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.numerics import norm
from ramda_jax.regularizers.base import widened
from ramda_jax.regularizers.elementwise import ElementwiseRegularizer, soft_threshold
from ramda_jax.typing import Scalar


@dataclasses.dataclass(frozen=True)
class Quantized(ElementwiseRegularizer):
    """The sum of the entries' distances to the nearest of some levels: drives entries to exactly these values.

        psi(w) = sum_i min_k |w_i - levels_k|

    psi is not convex. The prox moves x by the weight towards its nearest level, but not beyond it; this is the global
    minimiser, and a closed form in any diagonal metric. `support` has the entries that are at no level. A level that
    the parameters' dtype cannot represent is rounded.

    Args:
        levels: one or more different finite numbers.

    Raises:
        ValueError: levels are empty, equal or not finite.
        TypeError: levels are not a sequence of numbers.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ternary = ramda_jax.Quantized((-1.0, 0.0, 1.0))
        >>> ternary.prox(jnp.array([-2.0, 0.2, 0.6]), 0.25)
        Array([-1.75,  0.  ,  0.85], dtype=float32)

    References:
        Bai, Wang and Liberty, `ProxQuant: Quantized Neural Networks via Proximal Operators`, ICLR 2019,
        arXiv:1810.00861.
    """

    levels: tuple[float, ...]

    convex = False

    def __post_init__(self) -> None:
        remedy = "use for example `levels=(-1.0, 0.0, 1.0)`."
        try:
            levels = tuple(sorted(float(level) for level in self.levels))
        except (TypeError, ValueError):
            raise TypeError(f"`levels` must be a sequence of numbers, got {self.levels!r}; {remedy}") from None
        if not levels or len(set(levels)) < len(levels) or not np.all(np.isfinite(levels)):
            raise ValueError(f"`levels` must be finite and different, got {self.levels!r}; {remedy}")
        object.__setattr__(self, "levels", levels)

    def nearest(self, x: jax.Array) -> jax.Array:
        """The level nearest to each entry; of two equally near levels the greater."""
        level = jnp.full_like(x, self.levels[0])
        for other in self.levels[1:]:
            level = jnp.where(jnp.abs(x - other) <= jnp.abs(x - level), jnp.asarray(other, x.dtype), level)
        return level

    def value(self, w: jax.Array) -> jax.Array:
        w = widened(w)
        return jnp.sum(jnp.abs(w - self.nearest(w)))

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        level = self.nearest(x)
        distance = x - level
        # Computed from x and not from the level, whose rounding is larger where x is small; for weight 0 the result is
        # then x. At the level the result is the level itself, because x less the distance is only near it.
        return jnp.where(jnp.abs(distance) <= weight, level, x - jnp.clip(distance, -weight, weight))

    def support(self, w: jax.Array) -> jax.Array:
        return w != self.nearest(w)

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        level = self.nearest(w)
        free = slope - weight * jnp.sign(w - level)
        return norm(jnp.where(w == level, soft_threshold(slope, weight), free))


@dataclasses.dataclass(frozen=True)
class Binary(Quantized):
    """The sum of the entries' distances to the nearer of -1 and 1: binary weights.

        psi(w) = sum_i min(|w_i - 1|, |w_i + 1|)

    This is `Quantized` with two levels.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> ramda_jax.Binary().prox(jnp.array([-1.1, 0.4, 3.0]), 0.5)
        Array([-1. ,  0.9,  2.5], dtype=float32)
    """

    levels: tuple[float, ...] = (-1.0, 1.0)
