"""All leaves solved at once, without a branch or a loop, for accelerators."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.core import Tracer

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.solvers.base import Solutions, Solver
from ramda_jax.subproblem.leaf_problems import LeafProblem
from ramda_jax.subproblem.running.eager import KEPT
from ramda_jax.xla.bounded_jit import BoundedJit
from ramda_jax.xla.execution import AtOnce
from ramda_jax.xla.reductions import is_on_several_devices


def at_once_key(problem: LeafProblem) -> Any:
    """A key that is equal for leaves that are solved at once; None for a leaf that is solved by itself."""
    model, solver = problem.model, problem.as_regularized().solver
    if not solver.solves_at_once or model.metric.ndim == 0:
        return None
    # On a mesh with explicit axes the programs of `by_platform` would have to return equally sharded arrays, which they
    # do not.
    if any(jax.typeof(model.linear).sharding.spec):
        return None
    # A leaf that may be sharded does not go into the vector of all leaves: it would have to be gathered.
    together = problem.path if is_on_several_devices(model.linear) else None
    return solver, model.linear.dtype, together


def solve_at_once(problems: Sequence[LeafProblem]) -> Solutions:
    """Solves leaves of one solver and one dtype."""
    models, how = [problem.model for problem in problems], [problem.as_regularized() for problem in problems]
    contexts = [dataclasses.replace(leaf.context, run=AtOnce()) for leaf in how]
    solve = _solve if isinstance(models[0].linear, Tracer) else _solve_compiled
    return solve(how[0].solver, tuple(leaf.regularizer for leaf in how), models, contexts)


def _solve(solver: Solver, regularizers: tuple[Regularizer, ...], models, contexts):
    leaves = [
        (model, regularizer.at_step(context.step), context)
        for model, regularizer, context in zip(models, regularizers, contexts, strict=True)
    ]
    solved = solver.solve_at_once(leaves)
    values = [
        context.run.read_again(model).center_if_weightless(value)
        for model, context, value in zip(models, contexts, solved.values, strict=True)
    ]
    return solved._replace(values=values)


_solve_compiled = BoundedJit(_solve, num_static=2, size=KEPT)


def by_platform(cpu: Callable[[], Any], other: Callable[[], Any], like: jax.Array) -> Any:
    """`cpu()` if the program runs on CPUs, else `other()`: trees of the same arrays.

    Args:
        cpu: a function without arguments.
        other: as `cpu`.
        like: an array that the functions use; outside of `jit` its device decides.
    """
    if isinstance(like, Tracer):
        return jax.lax.platform_dependent(cpu=cpu, default=other)
    return cpu() if all(device.platform == "cpu" for device in like.devices()) else other()
