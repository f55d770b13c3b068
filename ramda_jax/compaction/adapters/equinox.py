"""Equinox modules with smaller arrays: the same module with other leaves, and layers with the sizes of their arrays."""

from collections.abc import Callable
from typing import Any

import jax

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.factors.equinox import layouts, with_factors
from ramda_jax.compaction.adapters.factors.matrix import Factored, products, replace_by_factors
from ramda_jax.compaction.adapters.modules import fields_of, modules_of
from ramda_jax.compaction.adapters.sizes.remembered import Remembered, numbers_of, with_number


def equinox_adapter(
    model: Any,
    call: Callable[..., Any] | None = None,
    fit: Callable[[Any], Any] | None = None,
    train: bool = False,
) -> Adapter:
    """The `Adapter` of an Equinox module, in inference mode, or in training mode with `train`."""
    import equinox as eqx

    from ramda_jax.compaction.adapters.sizes.equinox import fit_sizes

    def is_array(leaf):
        return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)

    call = call or (lambda model, *args: model(*args))
    arrays, static = eqx.partition(model, is_array)

    def combine(arrays, static=static):
        # `eqx.combine` does not work here: two factors may have replaced an array, and the trees then differ.
        def is_leaf(node):
            return node is None or isinstance(node, Factored)

        # Combine leaf by leaf, because the two trees may remember different sizes.
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
        modules = dict(modules_of(module))
        for (path, name), number in sizes.items():
            first, _, rest = name.partition(".")
            number = with_number(getattr(modules[path], first), rest, number) if rest else number
            object.__setattr__(modules[path], first, number)  # this module was created above, so it may be changed
        module = module if fit is None else fit(module)
        return module, applied(eqx.partition(module, is_array)[1])

    def factorize(cuts):
        small, rest = eqx.partition(with_factors(model, cuts), is_array)
        small = replace_by_factors(small, {path: cut for path, cut in cuts.items() if not cut.layout.is_known})
        return combine(small, rest), small, applied(rest)

    return Adapter(
        applied(static),
        arrays,
        rebuild,
        lambda *args: products(arrays) | layouts(model),
        factorize,
        lambda *args: _remembered(model),
    )


def _remembered(model):
    return [
        Remembered(path, f"{type(module).__module__}.{type(module).__qualname__}", name, value)
        for path, module in modules_of(model)
        for name, value in numbers_of({name: getattr(module, name, None) for name in fields_of(module)})
    ]
