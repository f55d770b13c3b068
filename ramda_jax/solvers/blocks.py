"""A large leaf solved block by block, so that what the solver works on stays in the cache."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from ramda_jax.models.quadratic import QuadraticModel
from ramda_jax.numerics import in_turn
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.solvers.base import Context, Solution, Solver

# Entries of a block: in float32 an array of it is 1 MB, of which a core's cache holds several.
BLOCK = 2**18


def block_of(regularizer, shape):
    """How a leaf of that shape is cut between its groups.

    Returns:
        The axis and how many of its indices a block has, a divisor of them all: a smaller last block would be a
        program of its own. None if the leaf is to stay whole, as one is that would not fill a quarter of a block.
    """
    inside = regularizer.block_axes(len(shape))
    groups = [axis for axis in range(len(shape)) if axis not in inside]
    size = math.prod(shape)
    if not groups:
        return None
    axis = max(groups, key=lambda axis: shape[axis])
    most = BLOCK * shape[axis] // max(size, 1)
    length = max((n for n in range(1, min(most, shape[axis]) + 1) if shape[axis] % n == 0), default=0)
    return (axis, length) if 4 * length >= most > 0 else None


def solve_by_blocks(solver: Solver, model: QuadraticModel, regularizer: GroupRegularizer, context: Context) -> Solution:
    """`solver.solve` where the groups are independent, in blocks on CPUs if the leaf is large; there with one device.

    Where the model's weight is 0 the value is the centre.

    Args:
        solver: that solves every group by itself, from the radii of the last solution.
        model: of one leaf.
    """

    def whole():
        solved = solver.solve(model, regularizer, context)
        return solved._replace(value=center_if_weightless(model, solved.value))

    block = block_of(regularizer, model.linear.shape)
    # On several devices a leaf may be sharded, and blocks of it would have to be fetched.
    if (
        not solver.by_group
        or context.radii is None
        or model.metric.ndim == 0
        or block is None
        or jax.device_count() > 1
    ):
        return whole()
    return jax.lax.platform_dependent(
        cpu=lambda: _solve_in_blocks(solver, model, regularizer, context, *block), default=whole
    )


def _solve_in_blocks(solver, model, regularizer, context, axis, length):
    # Of the whole leaf: a weight may go by the leaf's size, and there may be one for each group.
    penalty = regularizer.secular_form(model.linear, model.weight)._asdict()
    del penalty["rhs"]

    def body(index, carry):
        value, radii, num_steps, residual, converged = carry

        def part(x):
            return jax.lax.dynamic_slice_in_dim(x, index * length, length, axis)

        block = model._replace(linear=part(model.linear), anchor=part(model.anchor), metric=part(value))
        # Both are kept: all that follows reads the two, in the cache.
        block = block._replace(metric=in_turn(block.metric, index, block.anchor))
        rhs = in_turn(block.rhs, index, block.anchor)
        penalties = {
            name: part(x) if jnp.ndim(x) and x.shape[axis] > 1 else x for name, x in penalty.items() if x is not None
        }
        form = regularizer.secular_form(rhs, model.weight)._replace(**penalties)
        here = dataclasses.replace(context, start=part(context.start), radii=part(context.radii), after=None, form=form)
        solved = solver.solve(block, regularizer, here)
        point = center_if_weightless(block, solved.value)
        return (
            jax.lax.dynamic_update_slice_in_dim(value, point, index * length, axis),
            jax.lax.dynamic_update_slice_in_dim(radii, solved.radii, index * length, axis),
            jnp.maximum(num_steps, solved.num_steps),
            residual + jnp.square(solved.residual),
            converged & solved.converged,
        )

    linear = model.linear
    # The metric makes room for the solution, block by block: one temporary less.
    metric = in_turn(model.metric, context.after, model.anchor)
    start: Any = (metric, context.radii, jnp.zeros([], jnp.int32), jnp.zeros([], linear.dtype), jnp.ones([], bool))
    value, radii, num_steps, residual, converged = jax.lax.fori_loop(0, linear.shape[axis] // length, body, start)
    return Solution(value, radii, num_steps, jnp.sqrt(residual), converged)


def center_if_weightless(model, value):
    """The value, or the centre where the weight is 0: by the formula that moves no bit at a learning rate of 0."""
    return jnp.where(model.weight == 0, model.center, value)
