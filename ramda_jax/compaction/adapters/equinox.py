"""Equinox modules on smaller arrays: the same module with other leaves, and layers told the sizes of theirs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.factored import Factored, replace_by_factors
from ramda_jax.compaction.adapters.sizes.remembered import Remembered, numbers_of, with_number


def equinox_adapter(
    model: Any,
    call: Callable[..., Any] | None = None,
    fit: Callable[[Any], Any] | None = None,
    train: bool = False,
) -> Adapter:
    """The `Adapter` of an Equinox module, in inference mode, or with `train` in that of training."""
    import equinox as eqx

    from ramda_jax.compaction.adapters.sizes.equinox import fit_sizes

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
            return call(eqx.nn.inference_mode(combine(arrays, static), not train), *args)

        return apply

    def rebuild(small, sizes):
        module = combine(small)
        fit_sizes(module, model)
        modules = dict(_modules(module, ""))
        for (path, name), number in sizes.items():
            first, _, rest = name.partition(".")
            number = with_number(getattr(modules[path], first), rest, number) if rest else number
            object.__setattr__(modules[path], first, number)  # this one was made just now
        module = module if fit is None else fit(module)
        return module, applied(eqx.partition(module, is_array)[1])

    def factorize(ranks):
        small = replace_by_factors(arrays, ranks)
        return combine(small), small, applied(static)

    return Adapter(applied(static), arrays, rebuild, factorize, lambda *args: _remembered(model))


def _remembered(model):
    return [
        Remembered(path, f"{type(module).__module__}.{type(module).__qualname__}", name, value)
        for path, module in _modules(model, "")
        for name, value in numbers_of({name: getattr(module, name, None) for name in _fields(module)})
    ]


def _fields(module):
    return [field.name for field in dataclasses.fields(module)]


def _modules(node, path):
    """Yields (path, module) for a module and those in it."""
    import equinox as eqx

    if isinstance(node, eqx.Module):
        yield path, node
        children = ((name, getattr(node, name, None)) for name in _fields(node))
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    elif isinstance(node, dict):
        children = node.items()
    else:
        return
    for name, child in children:
        yield from _modules(child, f"{path}/{name}" if path else str(name))
