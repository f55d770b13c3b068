"""Compilation of solves outside of a user's `jit`, so that a step does not compile its loops at every call."""

import functools
from collections.abc import Callable
from typing import Any

from jax.core import Tracer

from ramda_jax.xla.bounded_jit import BoundedJit

#: The number of programs that are kept, some 2 MB each: more than a network has kinds of leaves, all of which are used
#: at every step.
KEPT = 256


def compiled_if_eager(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles `function(solver, regularizer, model, ...)` once per solver, regularizer and shape.

    For eager use: each call of a solver builds new loop bodies. Without this JAX would compile them at every step, and
    keep thousands of programs. Inside a user's `jit` nothing changes, and a solver without a loop is not compiled.
    """
    compiled = BoundedJit(function, num_static=2, size=KEPT)

    @functools.wraps(function)
    def call(solver, regularizer, model, *rest):
        if isinstance(model.linear, Tracer) or not solver.iterates:
            return function(solver, regularizer, model, *rest)
        return compiled(solver, regularizer, model, *rest)

    call.programs = compiled  # pyright: ignore[reportAttributeAccessIssue]
    return call
