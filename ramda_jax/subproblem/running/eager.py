"""Solves outside of a user's `jit`: compiled, so that a step does not compile its loops again at every call."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer

from ramda_jax.solvers.base import Solution
from ramda_jax.xla.bounded_jit import BoundedJit

#: Programs that are kept, some 2 MB each: more than a network has kinds of leaves, which take turns at every step.
KEPT = 256


def compiled_if_eager(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles `function(solver, regularizer, model, ...)` once for a solver, a regularizer and a shape.

    For eager use: each call of a solver builds new loop bodies, so that JAX would recompile them at every step, and
    keep thousands of them. Inside of a user's `jit` nothing changes, and a solver without a loop is not compiled. In a
    scalar metric the centre is computed outside: a compiled division by one number is a multiplication by its
    reciprocal, and the centre would not have the bits that it has without a regularizer.
    """
    compiled = BoundedJit(function, num_static=2, size=KEPT)

    @functools.wraps(function)
    def call(solver, regularizer, model, *rest):
        if isinstance(model.linear, Tracer) or not solver.iterates:
            return function(solver, regularizer, model, *rest)
        result = compiled(solver, regularizer, model, *rest)
        if model.metric.ndim:
            return result
        if isinstance(result, Solution):
            return result._replace(value=model.center_if_weightless(result.value))
        return jax.tree.map(model.center_if_weightless, result)

    call.programs = compiled  # pyright: ignore[reportAttributeAccessIssue]
    return call
