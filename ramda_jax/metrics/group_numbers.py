"""Margins, noise and drift of the groups of a leaf."""

import abc
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.numerics import group_norms
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.regularizers.l1 import L1


def is_known(regularizer: Regularizer) -> TypeGuard[L1 | GroupRegularizer]:
    """Whether the comparison of a norm with a number decides about zeros; not so for concave penalties and for sets."""
    return isinstance(regularizer, L1) or (isinstance(regularizer, GroupRegularizer) and regularizer.convex)


class LeafNumbers(abc.ABC):
    """The numbers of each part of a leaf of a state: of each group, entry or singular value.

    Args:
        state: the model builder's state.
        model: the leaf's quadratic model, with the strength in its weight.
        solution: the leaf's W_hat.
    """

    def __init__(self, state: Any, model: QuadraticModel, solution: jax.Array):
        self.model: QuadraticModel = model
        self.solution: jax.Array = solution
        dtype = model.linear.dtype
        # At least 1, so that there is no division by zero for a fresh state, whose noise is infinite.
        self.state: Any = state
        self.steps: jax.Array = jnp.maximum(state.stage_step, 1).astype(dtype)
        alpha = state.step_size_sum.astype(dtype)
        self.alpha: jax.Array = jnp.where(alpha > 0, alpha, 1)

    @abc.abstractmethod
    def norms(self) -> jax.Array:
        """The norms of the parts of the solution, exactly 0 where the part is zero."""

    @abc.abstractmethod
    def movement(self, old: jax.Array) -> jax.Array:
        """How far the parts have moved from those of an earlier solution."""

    @abc.abstractmethod
    def sums(self, x: jax.Array) -> jax.Array:
        """The sums of an array of squares, for each part of what its noise consists of."""

    @abc.abstractmethod
    def of_blocks(self, sums: jax.Array) -> jax.Array:
        """`sums`, from the sums over the blocks of psi, which `second_moments` keeps."""

    @abc.abstractmethod
    def margins(self) -> dict[str, Any]:
        """`margin` and `worst_margin`."""

    def noise(self, second: jax.Array | None, mean: jax.Array) -> jax.Array:
        if second is None:
            return jnp.full_like(self.sums(mean), jnp.inf)
        # The two numbers may be nearly equal, so their difference counts as at least the rounding error.
        rounding = jnp.finfo(mean.dtype).eps * jnp.sqrt(self.steps) * second
        variance = jnp.maximum(second - self.sums(jnp.square(mean)), rounding)
        # The mean is of the same gradients, so this variance lacks the share sum s^2 / alpha^2 <= 9 / (8 t).
        return jnp.where(self.steps >= 2, variance / (1 - 9 / (8 * jnp.maximum(self.steps, 2))), jnp.inf)

    def drift(self, old: Any, old_sum: jax.Array, noise: jax.Array) -> jax.Array:
        """The distance of the mean gradients of two parts of the stage, minus the part that noise explains."""
        dtype = noise.dtype
        t0, t1 = old.stage_step.astype(dtype), self.state.stage_step.astype(dtype)
        # The two states are of the same stage if they are equally far apart in steps of the stage and of the run.
        is_earlier = (old.stage_step > 0) & (old.stage_step < self.state.stage_step)
        is_earlier &= self.state.stage_step - old.stage_step == self.state.model_step - old.model_step
        old_alpha = old.step_size_sum.astype(dtype)
        since = self.alpha - old_alpha
        is_earlier &= (old_alpha > 0) & (since > 0)
        first = old_sum.astype(dtype) / jnp.where(is_earlier, old_alpha, 1)
        second = (self.model.linear - old_sum.astype(dtype)) / jnp.where(is_earlier, since, 1)
        # The sums of s^2 / alpha^2 of both parts: the sum of k over the square of the sum of sqrt(k).
        root_sum = _root_sum(t1) - _root_sum(t0)
        weights = 9 / (8 * t0) + (t1 * (t1 + 1) - t0 * (t0 + 1)) / (2 * jnp.square(root_sum))
        excess = self.sums(jnp.square(first - second)) - noise * weights
        drift = jnp.sqrt(jnp.maximum(excess, 0))
        return jnp.where(is_earlier & jnp.isfinite(noise), drift, jnp.inf)


class GroupNumbers(LeafNumbers):
    """Group norms have one number per group, L1 has one per entry."""

    axes: tuple[int, ...]
    lam: Any

    def __init__(self, regularizer: L1 | GroupRegularizer, state: Any, model: QuadraticModel, solution: jax.Array):
        super().__init__(state, model, solution)
        self.axes = () if regularizer.elementwise else regularizer.inner_axes(model.linear.ndim)
        self.regularizer: L1 | GroupRegularizer = regularizer
        if isinstance(regularizer, L1):
            self.lam = model.weight * regularizer.factor
        else:
            self.lam = regularizer.leaf_penalty(model.linear.shape, model.weight).lam

    def norms(self) -> jax.Array:
        return self._norms(self.solution)

    def movement(self, old: jax.Array) -> jax.Array:
        dtype = self.model.linear.dtype
        return self._norms(self.solution.astype(dtype) - old.astype(dtype))

    def sums(self, x: jax.Array) -> jax.Array:
        return jnp.sum(x, axis=self.axes, keepdims=True) if self.axes else x

    def of_blocks(self, sums: jax.Array) -> jax.Array:
        return sums

    def margins(self) -> dict[str, Any]:
        # The anchor's part of rhs fades, so each entry is largest now or at the end.
        now, later = (jnp.abs(self._compared(x)) for x in (self.model.rhs, -self.model.slope))

        def margin(x):
            return (self.lam - self._norms(x)) / self.alpha

        return {"margin": margin(now), "worst_margin": margin(jnp.maximum(now, later))}

    def _norms(self, w):
        return jnp.abs(w) if self.axes == () else group_norms(w, self.axes)

    def _compared(self, rhs):
        """The part of `rhs` that is compared: without the share of l1; with `non_negative` only positive entries."""
        if isinstance(self.regularizer, L1):
            return jnp.maximum(rhs, 0) if self.regularizer.non_negative else rhs
        return self.regularizer.reduced(rhs, self.model.weight)


def _root_sum(t):
    """The sum of sqrt(k) for k = 1 to t, by Euler and Maclaurin; off by 4e-4 of it at t = 1, by less beyond."""
    return 2 / 3 * t * jnp.sqrt(t) + jnp.sqrt(t) / 2 - 0.2078862249773546 + 1 / (24 * jnp.sqrt(t))
