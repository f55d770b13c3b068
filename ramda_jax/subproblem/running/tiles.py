"""A large leaf solved tile by tile, so that the solver's arrays stay in a core's cache."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.solvers.base import Context, Solution, Solver
from ramda_jax.typing import Shape
from ramda_jax.xla.execution import InCache

# Entries of a tile: in float32 an array of it is 1 MB, of which a core's cache holds several.
TILE = 2**18


def tile_of(regularizer: GroupRegularizer, shape: Shape) -> tuple[int, int] | None:
    """The axis along which a leaf of that shape is cut between its groups, and the length of the tiles.

    Returns:
        The axis, and the number of its indices in a tile. This divides the length of the axis, because a smaller last
        tile would need a program of its own. None if the leaf is solved whole, as when it would not fill a quarter of a
        tile.
    """
    inside = regularizer.inner_axes(len(shape))
    groups = [axis for axis in range(len(shape)) if axis not in inside]
    size = math.prod(shape)
    if not groups:
        return None
    axis = max(groups, key=lambda axis: shape[axis])
    most = TILE * shape[axis] // max(size, 1)
    length = max((n for n in range(1, min(most, shape[axis]) + 1) if shape[axis] % n == 0), default=0)
    is_worth_it = 4 * length >= most > 0
    return (axis, length) if is_worth_it and _keeps_weights(regularizer, shape, axis, length) else None


def _keeps_weights(regularizer, shape, axis, length):
    """Whether the groups of a tile have the same weight as in the leaf.

    This is so if the weight is resolved; but a subclass may compute weights from the shape.
    """
    of_leaf = regularizer.weights(shape)
    of_tile = regularizer.weights((*shape[:axis], length, *shape[axis + 1 :]))
    return jnp.ndim(of_leaf) == jnp.ndim(of_tile) == 0 and of_leaf == of_tile


def solve_in_tiles(solver: Solver, model: QuadraticModel, regularizer: Regularizer, context: Context) -> Solution:
    """`solver.solve`; on CPUs with one device a large leaf is solved tile by tile, if its groups are independent.

    If the model's weight is 0, the value is the centre; in a scalar metric the caller computes it.

    Args:
        solver: the regularizer's solver. Tiles need one that solves every group by itself (`by_group`), from the radii
            of the last solution.
        model: the model of one leaf.
        regularizer: the regularizer, resolved for the leaf, at the step.
        context: the context of the leaf.
    """

    def whole():
        solved = solver.solve(model, regularizer, context)
        return solved if is_scalar else solved._replace(value=model.center_if_weightless(solved.value))

    is_scalar = model.metric.ndim == 0
    tile = None
    # On several devices a leaf may be sharded, and its tiles would have to be gathered.
    if solver.by_group and context.radii is not None and not is_scalar and jax.device_count() == 1:
        assert isinstance(regularizer, GroupRegularizer)  # by_group
        tile = tile_of(regularizer, model.linear.shape)
    if tile is None:
        return whole()
    return jax.lax.platform_dependent(
        cpu=lambda: _solve_tile_by_tile(solver, model, regularizer, context, *tile), default=whole
    )


def _solve_tile_by_tile(solver, model, regularizer, context, axis, length):
    def body(index, carry):
        buffer, radii, num_steps, residual, converged = carry

        def part(x):
            return jax.lax.dynamic_slice_in_dim(x, index * length, length, axis)

        tile = model._replace(linear=part(model.linear), anchor=part(model.anchor), metric=part(buffer))
        here = dataclasses.replace(
            context, start=part(context.start), radii=part(context.radii), run=InCache(after=index)
        )
        solved = solver.solve(tile, regularizer, here)
        point = tile.center_if_weightless(solved.value)
        return (
            jax.lax.dynamic_update_slice_in_dim(buffer, point, index * length, axis),
            jax.lax.dynamic_update_slice_in_dim(radii, solved.radii, index * length, axis),
            jnp.maximum(num_steps, solved.num_steps),
            residual + jnp.square(solved.residual),
            converged & solved.converged,
        )

    linear = model.linear
    # The buffer holds the metric at first and is overwritten, tile by tile, with the solution: one temporary less.
    buffer = context.run.keep(model.metric, model.anchor)
    start: Any = (buffer, context.radii, jnp.zeros([], jnp.int32), jnp.zeros([], linear.dtype), jnp.ones([], bool))
    value, radii, num_steps, residual, converged = jax.lax.fori_loop(0, linear.shape[axis] // length, body, start)
    return Solution(value, radii, num_steps, jnp.sqrt(residual), converged)
