"""Properties of a jaxpr that are known before it is walked."""

import collections
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

#: Calls that are walked as if their body replaced them, with the parameter that holds the body.
CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",  # JAX 0.10
    "remat2": "jaxpr",
    "composite": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def body_of_call(equation: Any) -> Any:
    """The body of an equation that is a call, as a jaxpr; None for other equations."""
    name = equation.primitive.name
    if name == "call_hi_primitive":  # JAX 0.12 has primitives of its own that expand themselves
        primitive = equation.params["_prim"]

        def expand(*leaves):
            return jax.tree.leaves(primitive.expand(*jax.tree.unflatten(primitive.in_tree, leaves)))

        return jax.make_jaxpr(expand)(*(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars))
    body = equation.params.get(CALLS.get(name))
    is_call = body is not None and len(getattr(body, "jaxpr", body).invars) == len(equation.invars)
    return body if is_call else None


def scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """The numbers of constants and of carried values at the beginning of a scan's inputs."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carry, _ = params["ft_in"].unpack()  # since JAX 0.11
    return len(constants.vals), len(carry.vals)


def used_equations(jaxpr: Any, used: Sequence[bool] | None) -> Iterator[tuple[Any, list[bool]]]:
    """Yields each equation, and for each of its outputs whether it is needed.

    An output is needed if a needed equation reads it, or if it is a `used` output of the jaxpr (None: all are).

    An equation with an effect, such as printing, is needed with all its outputs.
    """
    used = [True] * len(jaxpr.outvars) if used is None else used
    needed = {atom for atom, is_used in zip(jaxpr.outvars, used, strict=True) if is_used and not hasattr(atom, "val")}
    found = []
    for equation in reversed(jaxpr.eqns):
        of_outputs = [bool(equation.effects) or variable in needed for variable in equation.outvars]
        # An array without entries, such as an empty padding, does not depend on its inputs.
        outputs = [v for v, is_used in zip(equation.outvars, of_outputs, strict=True) if is_used]
        if equation.effects or any(math.prod(getattr(v.aval, "shape", ())) for v in outputs):
            needed.update(atom for atom in equation.invars if not hasattr(atom, "val"))
        found.append((equation, of_outputs))
    return reversed(found)


def count_primitives(jaxpr: Any) -> collections.Counter[str]:
    """How often each primitive occurs in a jaxpr, including the jaxprs inside it."""
    found = collections.Counter()
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        found[equation.primitive.name] += 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns") or hasattr(getattr(inner, "jaxpr", None), "eqns"):
                    found += count_primitives(inner)
    return found


def axes_without_change(array: Any) -> list[int]:
    """The axes along which an array is constant."""
    if jnp.issubdtype(getattr(array, "dtype", np.float32), jax.dtypes.extended) or not np.size(array):
        return []
    array = np.asarray(array)
    firsts = (np.take(array, [0], axis) for axis in range(array.ndim))
    return [axis for axis, first in enumerate(firsts) if (array == first).all()]
