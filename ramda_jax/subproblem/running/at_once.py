"""Several leaves solved at once: on accelerators all of them, without a branch or a loop; on CPUs some small ones."""

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
from ramda_jax.xla.execution import Execution
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


def solve_at_once(problems: Sequence[LeafProblem], run: Execution, to_rounding: bool) -> Solutions:
    """Solves leaves of one `at_once_key`.

    Args:
        problems: the leaves.
        run: how they are run.
        to_rounding: whether they are solved to rounding, or by a fixed number of passes (`Solver.solve_at_once`).
    """
    models, how = [problem.model for problem in problems], [problem.as_regularized() for problem in problems]
    contexts = [dataclasses.replace(leaf.context, run=run) for leaf in how]
    solve = _solve if isinstance(models[0].linear, Tracer) else PROGRAMS
    return solve(how[0].solver, tuple(leaf.regularizer for leaf in how), to_rounding, models, contexts)


def _solve(solver: Solver, regularizers: tuple[Regularizer, ...], to_rounding: bool, models, contexts):
    leaves = [
        (model, regularizer.at_step(context.step), context)
        for model, regularizer, context in zip(models, regularizers, contexts, strict=True)
    ]
    solved = solver.solve_at_once(leaves, to_rounding)
    values = [
        context.run.read_again(model).center_if_weightless(value)
        for model, context, value in zip(models, contexts, solved.values, strict=True)
    ]
    return solved._replace(values=values)


#: In eager use one program for each set of leaves.
PROGRAMS = BoundedJit(_solve, num_static=3, size=KEPT)


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
