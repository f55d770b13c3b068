"""Functions of arrays that outside of `jit` are one program for a shape, and not one for each operation."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


def one_program(*static: str) -> Callable[[FunctionT], FunctionT]:
    """A decorator of a function that computes with arrays; `static` are the names of its other arguments.

    Outside of a user's `jit` JAX compiles each operation for each shape, some 10 ms each on a CPU. For `group_norms`
    these were 9 programs. Inside a user's `jit` the function is traced once for a shape, and `inline` leaves the
    program as it would be.
    """

    def decorate(function: FunctionT) -> Any:
        return jax.jit(function, static_argnames=static, inline=True)

    return decorate
