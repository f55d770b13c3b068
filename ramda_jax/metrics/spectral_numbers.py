"""Margins, noise and drift of the singular values of a leaf with the nuclear norm."""

from typing import Any

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.metrics.group_numbers import LeafNumbers
from ramda_jax.numerics import norm
from ramda_jax.regularizers.nuclear_norm import NuclearNorm


class SpectralNumbers(LeafNumbers):
    """The numbers of each singular value of a leaf, descending.

    With the solution W and its least subgradient S (0 for an exact solve), `slope = (rhs - metric W + S) / alpha` is
    lambda times a subgradient of the nuclear norm. Its singular values are lambda where those of W are not 0. So the
    rank cannot reach i while the i-th is below lambda (docs/certificate.md, "The rank").
    """

    def __init__(self, regularizer: NuclearNorm, state: Any, model: QuadraticModel, solution: jax.Array):
        super().__init__(state, model, solution)
        self.regularizer: NuclearNorm = regularizer
        w = self._matrix(solution)
        u, values, vt = jnp.linalg.svd(w, full_matrices=False)
        alive = regularizer.support(solution.astype(model.linear.dtype))
        self.alive: jax.Array = alive
        self.values: jax.Array = jnp.where(alive, values, 0)
        self.lam: jax.Array = model.weight * regularizer.factor / self.alpha
        metric = self._matrix(jnp.broadcast_to(model.metric, model.linear.shape)) if model.metric.ndim else model.metric
        self.metric: jax.Array = metric
        self.largest: jax.Array = jnp.max(metric, initial=0)
        u, vt = jnp.where(alive[None, :], u, 0), jnp.where(alive[:, None], vt, 0)
        slope = (self._matrix(model.rhs) - metric * w) / self.alpha
        left = slope - _dot(u, _dot(u.T, slope))
        outside = left - _dot(_dot(left, vt.T), vt)
        a, sizes, bt = jnp.linalg.svd(outside, full_matrices=False)
        # The part of -S / alpha: on the spaces of W what is not lambda U V^T, outside what is above lambda.
        excess = _dot(a * jnp.maximum(sizes - self.lam, 0)[None, :], bt)
        self.error: jax.Array = self._norm(slope - outside - self.lam * _dot(u, vt) + excess)
        rank = jnp.sum(alive)
        #: Those of `outside`, in the places of the singular values that are 0.
        self.sizes: jax.Array = jnp.roll(sizes, rank)
        self.fade: jax.Array = self._fade(w)

    def norms(self) -> jax.Array:
        return self.values

    def movement(self, old: jax.Array) -> jax.Array:
        # A singular value moves at most by the largest of the difference (Weyl).
        moved = jnp.linalg.svd(self._matrix(self.solution) - self._matrix(old), compute_uv=False)
        return self._spread(jnp.max(moved, initial=0))

    def sums(self, x: jax.Array) -> jax.Array:
        return self._spread(jnp.sum(self._weights() * self._matrix(x)))

    def of_blocks(self, sums: jax.Array) -> jax.Array:
        return self._spread(jnp.reshape(sums, []))

    def margins(self) -> dict[str, Any]:
        # What an inexact solve leaves above lambda is in the error.
        missing = jnp.where(self.alive, 0, jnp.maximum(self.lam - self.sizes, 0))
        margin = jnp.where(self.alive, -self.largest * self.values / self.alpha, missing)
        # By Mirsky, the matrix must move by the root of this sum until the value at this place is lambda.
        squares = jnp.square(missing)
        distance = jnp.sqrt(jnp.cumsum(squares)) - self.fade - 2 * self.error
        return {"margin": margin, "worst_margin": jnp.where(self.alive, margin, distance)}

    def _fade(self, w):
        """How far the slope can move while the anchor's part of rhs fades, in the weighted norm.

        It is the least distance of the anchor from a multiple of the solution: adding `metric * solution` to rhs
        leaves the slope as it is.
        """
        root = jnp.sqrt(self.largest) * jnp.sqrt(self.metric) / self.alpha
        anchor, solution = root * self._matrix(self.model.anchor), root * w
        square = jnp.sum(jnp.square(solution))
        share = jnp.clip(jnp.sum(anchor * solution) / jnp.where(square > 0, square, 1), 0, 1)
        return norm(anchor - share * solution)

    def _weights(self):
        """The weights of squared entries: the solution's slope is non-expansive in this norm, for any diagonal."""
        return self.largest / self.metric

    def _norm(self, matrix):
        return norm(jnp.sqrt(self._weights()) * matrix)

    def _matrix(self, x):
        return self.regularizer.matrix(x.astype(self.model.linear.dtype))

    def _spread(self, number):
        return jnp.broadcast_to(number, self.values.shape)


def _dot(a, b):
    return jnp.matmul(a, b, precision="highest")
