"""Functions of (variables, *args): only the arrays are replaced."""

import functools
from collections.abc import Callable
from typing import Any

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.factors.matrix import products, replace_by_factors
from ramda_jax.typing import Tree


def function_adapter(function: Callable[..., Any], variables: Tree, call: Callable[..., Any] | None = None) -> Adapter:
    """The `Adapter` of a function."""
    apply = functools.partial(call, function) if call is not None else function

    def factorize(cuts):
        return function, replace_by_factors(variables, cuts), apply

    return Adapter(
        apply, variables, lambda small, sizes: (function, apply), lambda *args: products(variables), factorize
    )
