"""Solves outside of a user's `jit`: compiled, so that a step does not compile its loops again at every call."""

import functools

import jax
from jax.core import Tracer


def compiled_if_eager(function):
    """Compiles `function(solver, regularizer, model, ...)` once for a solver, a regularizer and a shape.

    For eager use: each call of a solver builds new loop bodies, so that JAX would recompile them at every step. Inside
    of a user's `jit` nothing changes. A solver without a loop is not compiled, nor is a scalar metric: XLA would
    multiply by its reciprocal, and the centre would not have the bits that it has without a regularizer.
    """
    compiled = jax.jit(function, static_argnums=(0, 1))

    @functools.wraps(function)
    def call(solver, regularizer, model, *rest):
        is_traced = isinstance(model.linear, Tracer)
        chosen = compiled if solver.iterates and model.metric.ndim > 0 and not is_traced else function
        return chosen(solver, regularizer, model, *rest)

    return call
