"""The hard target that keeps N of every M neighbours."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.numerics import gathered, is_nan_key, with_type_sharding
from ramda_jax.regularizers.hard.base import HardTarget
from ramda_jax.typing import Axes, Shape
from ramda_jax.validation import check_count
from ramda_jax.xla.hints import stored

# Up to this number of neighbours are compared pair by pair; more are sorted.
_PAIRWISE = 16


@dataclasses.dataclass(frozen=True)
class NofM(HardTarget):
    """The indicator of "of every m neighbours along an axis at most n are not zero", such as 2:4 sparsity.

        psi(w) = 0 if every block of m has at least m - n zeros, else infinite

    The minimiser has a closed form in any diagonal metric: each block keeps its n entries with the largest
    `rhs^2 / metric`, without shrinking them; of equal ones the lower index. All positive strengths mean the same, as in
    `TopGroups`.

    Args:
        n: the number of entries of each block that are kept, an int from 0 to m.
        m: the length of a block, an int >= 1.
        axis: the axis along which the blocks lie, from index 0 on. -2, the inputs of a Flax kernel, is the axis over
            which hardware sums.

    Raises:
        ValueError: n is not in 0 to m, or m is below 1; at `init`, the leaf does not have the axis, or its length is
            not a multiple of m.
        TypeError: n, m or axis is not an int.

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
            raise ValueError(
                f"`n` must be at most `m`, got n={self.n!r} and m={self.m!r}; use `NofM(2, 4)` for 2 of 4."
            )
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
        """The mask of the `number` largest keys of every block, and of the keys of NaNs."""
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
            ranks[i], ranks[j] = ranks[i] + (~is_first).astype(jnp.int32), ranks[j] + is_first.astype(jnp.int32)
        masks = [(rank < number) | is_nan_key(part) for rank, part in zip(ranks, parts, strict=True)]
        # Use one number for each block (`stored`), so that its keys are computed once, and not again for each of its
        # entries.
        bits = stored(jnp.asarray(sum(mask.astype(jnp.int32) << i for i, mask in enumerate(masks))))
        place = jax.lax.broadcasted_iota(jnp.int32, blocked, axis + 1)
        return ((jnp.expand_dims(bits, axis + 1) >> place) & 1 == 1).reshape(keys.shape)
