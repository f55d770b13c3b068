"""Hard targets: psi is 0 if enough is zero, and infinite otherwise.

The minimiser has a closed form in any diagonal metric. Zeroing the entries of a set S raises the objective by

    sum_S rhs_i^2 / (2 metric_i)

and does not change the best value of the other entries, rhs / metric. So the entries whose removal would cost most are
kept.
"""

import copy
import math
from typing import Any

import jax
import jax.numpy as jnp

from ramda_jax.numerics import is_nan_key, largest, norm, sort_keys
from ramda_jax.regularizers.base import Regularizer, widened
from ramda_jax.regularizers.null import Null
from ramda_jax.typing import Scalar
from ramda_jax.validation import check_non_negative, check_share

OVER = ("leaf", "all")
# Indices are int32.
_MOST = 2**31 - 1


class HardTarget(Regularizer):
    """The base class of hard targets. A subclass decides by the blocks' keys (`sort_keys`) which of them are kept."""

    convex = False
    any_metric = True

    def __mul__(self, number: float) -> Any:
        # A factor does not change an indicator, unless it is 0: then there is no constraint.
        check_non_negative("factor", number, schedules=False)
        return self if number > 0 else Null()

    def block_norms(self, x: jax.Array) -> jax.Array:
        """`||x||`, block by block: an array of the shape of x, or with length one along the axes inside a block."""
        return jnp.abs(x)

    def kept(self, keys: jax.Array) -> jax.Array:
        """Which blocks are kept: those with the largest keys, the first of equal keys, and all with NaN."""
        raise NotImplementedError

    def dropped(self, keys: jax.Array) -> jax.Array:
        """A mask of the blocks with the largest keys; their number is that of the blocks that must be zero."""
        raise NotImplementedError

    def solve_scaled(self, rhs: jax.Array, metric: Scalar, weight: Scalar) -> jax.Array:
        # The keys are roots of the costs, so that no square overflows or underflows.
        keys = sort_keys(self.block_norms(jax.lax.stop_gradient(rhs / jnp.sqrt(metric))))
        # Check `rhs != 0`, so that the result has no -0.0.
        return jnp.where((weight > 0) & ~(self.kept(keys) & (rhs != 0)), 0, rhs / metric)

    def prox(self, x: jax.Array, weight: Scalar) -> jax.Array:
        return self.solve_scaled(x, jnp.ones([], x.dtype), weight)

    def value(self, w: jax.Array) -> jax.Array:
        w = widened(w)
        alive = self.block_norms(w) != 0
        is_inside = ~jnp.any(alive & self.dropped((~alive).astype(jnp.int32))) & ~jnp.any(jnp.isnan(w))
        return jnp.where(is_inside, 0.0, jnp.inf).astype(w.dtype)

    def subdifferential_distance(self, w: jax.Array, slope: jax.Array, weight: Scalar) -> jax.Array:
        # The normal cone at w has the vectors that are 0 on the blocks of w, and on as many other blocks as may be
        # alive. The nearest of these vectors is 0 on the other blocks with the smallest `slope`.
        del weight
        alive = self.block_norms(w) != 0
        keys = jnp.where(alive, 0, 1 + sort_keys(self.block_norms(slope)))
        dropped = self.dropped(keys)
        distance = norm(jnp.where(dropped, 0, slope))
        return jnp.where(jnp.any(alive & dropped), jnp.inf, distance)


class TopBlocks(HardTarget):
    """A share of the blocks of a leaf, or of all leaves together, is zero.

    A subclass declares the fields `share` and `over` in its own field order: this class is not a dataclass.
    """

    share: Any = 0.0  # a float or a function of the step
    over: str = "leaf"
    # The groups or entries of a leaf that `together` keeps. It is not a field, because it is not a setting of the user.
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
    def coupling(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return (type(self), self.share) if self.over == "all" and self._found is None else None

    def at_step(self, step: Any) -> Any:
        if not callable(self.share):
            return self
        return self._with("share", jnp.clip(jnp.asarray(self.share(step), jnp.result_type(float)), 0, 1))

    def together(self, subproblems: Any) -> list[Regularizer]:
        sizes = [regularizer.block_norms(rhs / jnp.sqrt(metric)) for regularizer, rhs, metric in subproblems]
        keys = [sort_keys(x.astype(jnp.result_type(*sizes))) for x in sizes]
        total = sum(x.size for x in keys)
        masks = largest(keys, total - _number_of_zeros(self, total))
        return [regularizer._with("_found", mask) for (regularizer, *_), mask in zip(subproblems, masks, strict=True)]

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
                f"{self!r} has a psi only for all leaves together, not for one leaf; see the share in "
                "`metrics.group_sparsity`, or use over='leaf'."
            )
        return _number_of_zeros(self, total)

    def _with(self, name, value):
        # Do not use `dataclasses.replace`, which would run the checks of users' settings.
        changed = copy.copy(self)
        object.__setattr__(changed, name, value)
        return changed


def _number_of_zeros(top, total):
    """The smallest number of zeros that is at least `share * total`, up to the rounding error of the share."""
    if total > _MOST:
        raise ValueError(
            f"{top!r} must be of fewer than 2^31 groups or entries that are compared, got {total}; use larger groups, "
            "or patterns for fewer leaves."
        )
    share = top.share
    if callable(share):
        raise ValueError(
            f"The share must be a number here, but that of {top!r} is a function of the step; use `at_step(step)` of "
            "the regularizer."
        )
    if isinstance(share, jax.Array):
        slack = 2 * jnp.finfo(share.dtype).eps
        return jnp.clip(jnp.ceil((share - slack) * total), 0, total).astype(jnp.int32)
    return min(max(math.ceil((share - 1e-12) * total), 0), total)
