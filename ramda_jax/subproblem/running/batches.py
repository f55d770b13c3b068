"""All leaves solved: on accelerators at once if the solver can, else in batches one after the other.

A batch is a large leaf, a set of small ones, or a stack of leaves of equal shape.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.numerics import norm
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.solvers.base import Context, Solution, Solver, SolverInfo
from ramda_jax.subproblem.leaf_problems import LeafProblem
from ramda_jax.subproblem.running import tiles
from ramda_jax.subproblem.running.at_once import at_once_key, by_platform, solve_at_once
from ramda_jax.subproblem.running.eager import compiled_if_eager
from ramda_jax.typing import Scalar
from ramda_jax.xla.execution import AtOnce, InCache, InTurn, Stacked
from ramda_jax.xla.many_leaves import MANY, SMALL, unstack


class Solved(NamedTuple):
    """All leaves' solutions.

    Attributes:
        values: a dict of the minimisers by path.
        radii: a dict of the radii by path, for the leaves whose radii are kept.
        infos: how the solves went, one entry for each set of leaves.
    """

    values: dict[str, jax.Array]
    radii: dict[str, jax.Array]
    infos: list[SolverInfo]


#: The keyword argument of `proximal_point`'s `update` that has leaves solved by another than `solve_all` (`apart`).
SOLVED_APART = "ramda_jax_solved_apart"


def solve_all(
    problems: Iterable[LeafProblem],
    step: Scalar,
    scalar: jax.Array,
    apart: Mapping[str, Callable[[LeafProblem], Solution]] | None = None,
) -> Solved:
    """Solves every leaf: on accelerators all at once if the solver can, else one batch after the other.

    Args:
        problems: the problems of all leaves.
        step: the 0-based step.
        scalar: a scalar with a value that the compiler does not know (`xla.many_leaves`).
        apart: by path what solves a leaf instead.
    """
    solved, sets, after = Solved({}, {}, []), {}, jnp.asarray(step)
    for problem in problems:
        if problem.regularized is None:
            solved.values[problem.path] = problem.model.center
        elif apart and problem.path in apart:
            solution = apart[problem.path](problem)
            solved.infos.append(_info(solution))
            solved.values[problem.path] = solution.value
            if problem.regularized.keeps_radii:
                solved.radii[problem.path] = solution.radii
        else:
            sets.setdefault(at_once_key(problem), []).append(problem)
    for key, members in sets.items():
        in_turn = functools.partial(_solve_in_turn, members, after, scalar)
        if key is None:
            results, info, after = in_turn()
        else:
            at_once = functools.partial(_solve_at_once, members, AtOnce(), to_rounding=False)
            results, info, after = by_platform(in_turn, at_once, members[0].model.linear)
        solved.infos.append(info)
        for problem, (value, radii) in zip(members, results, strict=True):
            solved.values[problem.path] = value
            if problem.regularized.keeps_radii:
                solved.radii[problem.path] = radii
    return solved


def summary(infos: list[SolverInfo], dtype: Any) -> SolverInfo:
    """How all the solves went, with the residual in `dtype`."""
    if not infos:
        return SolverInfo(jnp.zeros([], jnp.int32), jnp.zeros([], dtype), jnp.ones([], bool))
    return SolverInfo(
        jnp.max(jnp.stack([jnp.max(info.num_steps) for info in infos])),
        norm(jnp.stack([norm(info.residual) for info in infos])).astype(dtype),
        jnp.all(jnp.stack([jnp.all(info.converged) for info in infos])),
    )


def _info(solution):
    return SolverInfo(solution.num_steps, solution.residual, solution.converged)


def _solve_at_once(problems, run, to_rounding):
    """The results of `_solve_in_turn`, by one solve of all leaves."""
    solution = solve_at_once(problems, run, to_rounding)
    return list(zip(solution.values, solution.radii, strict=True)), _info(solution), solution.num_steps


def _solve_in_turn(problems, after, scalar):
    """The leaves' (value, radii), how the solves went, and a scalar that is known after all are solved."""
    batches, small, results, infos = {}, [], {}, []
    for problem in problems:
        batches.setdefault(_batch_of(problem), []).append(problem)
    for members in batches.values():
        if len(members) < MANY and _is_small(members[0]):
            small += members
            continue
        pairs, solution = _solve_batch(members, after, scalar)
        infos.append(_info(solution))
        for problem, (value, radii) in zip(members, pairs, strict=True):
            if problem.model.metric.ndim == 0:
                # Do this leaf by leaf and outside of the compiled function, so that the centre has the same bits as
                # without a regularizer: XLA turns a division by a single number into a multiplication by its
                # reciprocal, but not a division by the stacked numbers of several leaves.
                value = problem.model.center_if_weightless(value)
            results[problem.path] = value, radii
        # The next batch waits for any scalar that is known only after this batch is solved. A closed form's number of
        # steps is a constant, and so cannot order anything.
        if members[0].regularized.solver.iterates:
            after = jnp.max(solution.num_steps)
        elif solution.radii is not None:
            after = jnp.max(solution.radii, initial=0)
    for members in _filling_a_cache(small):
        solved, info, after = _solve_at_once(members, InCache(after), to_rounding=True)
        infos.append(info)
        results |= {problem.path: result for problem, result in zip(members, solved, strict=True)}
    return [results[problem.path] for problem in problems], summary(infos, infos[0].residual.dtype), after


def _batch_of(problem):
    """A key that is equal for the leaves of a batch; for a leaf that is solved by itself, its path.

    Leaves of equal shape are a batch if the regularizer asks for it, or if they are small. One solve is then compiled
    for all of them, which saves some 0.35 s a leaf (`benchmarks/NOTES.md`). Any other leaf is its own batch, which
    saves the stacking.
    """
    model, (regularizer, solver, *_) = problem.model, problem.regularized
    if regularizer.expensive_prox or (solver.iterates and model.linear.size < SMALL):
        return regularizer, solver, model.linear.shape, model.linear.dtype, model.metric.ndim, problem.pattern
    return problem.path


def _is_small(problem):
    """Whether the leaf can be solved at once with others, and is not larger than a tile."""
    # On several devices it may be sharded, and would have to be gathered.
    return at_once_key(problem) is not None and problem.model.linear.size <= tiles.TILE and jax.device_count() == 1


def _filling_a_cache(problems):
    """The leaves in sets that are each solved at once.

    A leaf that is solved with others adds only the kernels that read its entries. The others, which compute with
    numbers per group, are compiled once for all leaves of a set (`benchmarks/NOTES.md`).
    """
    sets, entries = [], 0
    for problem in problems:
        size = problem.model.linear.size
        if not sets or entries + size > 2 * tiles.TILE:
            sets.append([])
            entries = 0
        sets[-1].append(problem)
        entries += size
    return sets


def _solve_batch(members, after, scalar):
    """Solves leaves of equal shape, in one vectorised solve where there are several.

    Returns:
        The leaves' (value, radii), and the `Solution`, stacked if there are several leaves.
    """
    first = members[0]
    regularizer, solver, context, _ = first.regularized
    if len(members) == 1:
        solution = solve_leaf(solver, regularizer, first.model, dataclasses.replace(context, run=InTurn(after)))
        return [(solution.value, solution.radii)], solution
    arrays, start, radii = jax.tree.map(
        lambda *leaves: jnp.stack(leaves),
        *[
            (_arrays(problem.model), problem.regularized.context.start, problem.regularized.context.radii)
            for problem in members
        ],
    )
    # The scalars are the same for all leaves, and so is the share of a tolerance, because their sizes are equal.
    stack = _with_arrays(first.model, arrays)
    context = dataclasses.replace(context, start=start, radii=radii, run=Stacked(after))
    batch = _solve_stack(solver, regularizer, stack, context)
    return unstack((batch.value, batch.radii), len(members), scalar), batch


def _arrays(model: QuadraticModel):
    """The fields in which the models of a batch differ."""
    return model.linear, model.anchor, model.metric


def _with_arrays(model: QuadraticModel, arrays):
    linear, anchor, metric = arrays
    return model._replace(linear=linear, anchor=anchor, metric=metric)


@compiled_if_eager
def solve_leaf(solver: Solver, regularizer: Regularizer, model: QuadraticModel, context: Context) -> Solution:
    """Solves one leaf, in tiles if that pays; in a diagonal metric the value is the centre if the weight is 0."""
    return tiles.solve_in_tiles(solver, model, regularizer.at_step(context.step), context)


@compiled_if_eager
def _solve_stack(solver, regularizer, stack, context):
    regularizer = regularizer.at_step(context.step)

    def solve(arrays, start, radii):
        model = _with_arrays(stack, arrays)
        solved = solver.solve(model, regularizer, dataclasses.replace(context, start=start, radii=radii))
        if model.metric.ndim == 0:
            return solved
        return solved._replace(value=model.center_if_weightless(solved.value))

    return jax.vmap(solve, axis_name=context.run.axis_name)(_arrays(stack), context.start, context.radii)
