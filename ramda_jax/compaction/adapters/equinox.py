"""Equinox modules on smaller arrays: the same module with other leaves, and layers told the sizes of theirs."""

from collections.abc import Callable
from typing import Any

import jax

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.factored import Factored, replace_by_factors


def equinox_adapter(model: Any, call: Callable[..., Any] | None = None) -> Adapter:
    """The `Adapter` of an Equinox module, in inference mode."""
    import equinox as eqx

    from ramda_jax.compaction.adapters.equinox_sizes import fit_sizes

    def is_array(leaf):
        return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)

    call = call or (lambda model, *args: model(*args))
    arrays, static = eqx.partition(model, is_array)

    def combine(arrays, static=static):
        # Not `eqx.combine`: it would look for the factors of a matrix where there was one array.
        def is_leaf(node):
            return node is None or isinstance(node, Factored)

        # By leaves, as the two trees may remember other sizes.
        rest, treedef = jax.tree.flatten(static, is_leaf=is_leaf)
        pairs = zip(jax.tree.leaves(arrays, is_leaf=is_leaf), rest, strict=True)
        return treedef.unflatten(other if array is None else array for array, other in pairs)

    def applied(static):
        def apply(arrays, *args):
            return call(eqx.nn.inference_mode(combine(arrays, static)), *args)

        return apply

    def rebuild(small):
        module = combine(small)
        fit_sizes(module, model)
        return module, applied(eqx.partition(module, is_array)[1])

    def factorize(ranks):
        small = replace_by_factors(arrays, ranks)
        return combine(small), small, applied(static)

    return Adapter(applied(static), arrays, rebuild, factorize)
