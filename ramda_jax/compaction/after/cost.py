"""The cost of a call of a model, in numbers that do not depend on the machine."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from ramda_jax.compaction.tracing.static_args import hold_static


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a model.

    Attributes:
        params: the number of entries of all variables.
        bytes: the number of bytes of all variables.
        flops: the FLOPs of one call, as XLA counts for the compiled program; the body of a `scan` counts as often as it
            runs. nan if the backend does not count. A `while` counts once, because its number of iterations is unknown.
        seconds: the median time of one call; nan if it was not measured.
    """

    params: int
    bytes: int
    flops: float
    seconds: float


def cost(apply: Any, variables: Any, *args: Any) -> Cost:
    """The cost of one call of a function, without its time.

    Args:
        apply: a function of (variables, *args).
        variables: a pytree of arrays.
        *args: a batch.

    Example:
        >>> import jax.numpy as jnp
        >>> cost(lambda w, x: x @ w, jnp.ones((4, 3)), jnp.ones((2, 4))).params
        12
    """
    leaves = jax.tree.leaves(variables)
    held, arrays = hold_static(apply, args)
    return Cost(
        params=sum(math.prod(leaf.shape) for leaf in leaves),
        bytes=sum(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in leaves if _has_bytes(leaf)),
        flops=_flops(held, variables, *arrays)[0],
        seconds=math.nan,
    )


def _has_bytes(leaf):
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _flops(function: Callable[..., Any], *args: Any) -> tuple[float, float]:
    """(FLOPs, XLA's count of the compiled program, in which each loop runs once)."""
    traced = jax.jit(function).trace(*args)
    analysis: Any = traced.lower().compile().cost_analysis() or {}
    counts = analysis[0] if isinstance(analysis, list) else analysis
    counted = flops = float(counts.get("flops", math.nan))
    for length, body in _scans(traced.jaxpr):
        inputs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in body.in_avals]
        of_body, counted_of_body = _flops(jaxpr_as_fun(body), *inputs)
        flops += length * of_body - counted_of_body
    return flops, counted


def _scans(jaxpr: Any) -> Iterator[tuple[int, Any]]:
    """(length, body) of each outermost `scan` in a jaxpr."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "scan":
            yield equation.params["length"], equation.params["jaxpr"]
            continue
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns") or hasattr(getattr(inner, "jaxpr", None), "eqns"):
                    yield from _scans(inner)
