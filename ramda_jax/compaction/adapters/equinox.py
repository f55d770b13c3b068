"""Equinox modules on smaller arrays: the same module with other leaves."""

from collections.abc import Callable
from typing import Any

import jax

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.factored import Factored, replace_by_factors


def equinox_adapter(model: Any, call: Callable[..., Any] | None = None) -> Adapter:
    """The `Adapter` of an Equinox module, in inference mode."""
    import equinox as eqx

    call = call or (lambda model, *args: model(*args))
    arrays, static = eqx.partition(model, lambda leaf: eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct))

    def combine(arrays):
        # Not `eqx.combine`: it would look for the factors of a matrix where there was one array.
        def is_leaf(node):
            return node is None or isinstance(node, Factored)

        return jax.tree.map(lambda array, rest: rest if array is None else array, arrays, static, is_leaf=is_leaf)

    def apply(arrays, *args):
        return call(eqx.nn.inference_mode(combine(arrays)), *args)

    def factorize(ranks):
        small = replace_by_factors(arrays, ranks)
        return combine(small), small, apply

    return Adapter(apply, arrays, lambda small: (combine(small), apply), factorize)
