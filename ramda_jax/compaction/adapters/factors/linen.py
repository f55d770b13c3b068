"""linen models with two factors for each kernel of low rank: layers read `kernel_left` and `kernel_right`."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.adapters.factors.einsum import two_einsums
from ramda_jax.compaction.adapters.factors.matrix import Cut, Factored, Layout, products
from ramda_jax.compaction.tracing.static_args import hold_static
from ramda_jax.structure.paths import keys_by_name, named_leaves
from ramda_jax.typing import Tree

KERNEL, LEFT, RIGHT = "kernel", "kernel_left", "kernel_right"


def layouts(apply: Callable[..., Any], variables: Tree, *args: Any) -> dict[str, Layout | str]:
    """A dict from the path of each leaf to its layout as a matrix of its layer, or why it has none.

    Args:
        apply: the model, a function of (variables, *args).
        variables, *args: the arguments of a call, which is traced.
    """
    keys_of, leaves = keys_by_name(variables), dict(named_leaves(variables))
    ndims = {tuple(keys): np.ndim(leaves[path]) for path, keys in keys_of.items()}
    found: dict[tuple[str, ...], Layout | str] = {}

    def interceptor(next_function, args, kwargs, context):
        module = context.module
        known = _LAYERS.get(type(module))
        if known is not None and context.method_name == "__call__" and module.has_variable("params", KERNEL):
            keys = ("params", *module.path, KERNEL)
            own = jnp.ndim(nn.unbox(module.get_variable("params", KERNEL)))
            layout = known(module, own)
            if not isinstance(layout, str):
                # Inside `nn.scan` and `nn.vmap` a layer sees a single kernel of the stack.
                stacked = ndims.get(keys, own) - own
                layout = Layout(layout.batch + stacked, layout.split + stacked)
            found[keys] = layout
        return next_function(*args, **kwargs)

    held, arrays = hold_static(apply, args)
    with nn.intercept_methods(interceptor):
        jax.eval_shape(held, variables, *arrays)
    return products(variables) | {path: found[keys] for path, keys in keys_of.items() if keys in found}


def with_factors(
    function: Callable[..., Any], variables: Tree, cuts: Mapping[str, Cut]
) -> tuple[Callable[..., Any], Tree]:
    """(the function, the variables) with two factors for each kernel named in `cuts`.

    Args:
        function: of (variables, *args); it takes parameters of any shape, as `sizes_from_variables` makes it do.
        variables: nested mappings.
        cuts: a mapping from paths to cuts.
    """
    keys_of = keys_by_name(variables)
    small = jax.tree.map(lambda leaf: leaf, variables)
    for path, cut in cuts.items():
        *parents, name = keys_of[path]
        layer = small
        for key in parents:
            layer = layer[key]
        left, right = cut.factors(layer.pop(name))
        if cut.layout.is_known:
            layer |= {LEFT: left, RIGHT: right}
        else:
            layer[name] = Factored(left, right)
    return kernels_from_factors(function), small


def kernels_from_factors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function run each layer that has `kernel_left` and `kernel_right` as two layers.

    Such layers are `nn.Dense`, `nn.DenseGeneral`, `nn.Einsum`, `nn.Conv` and `nn.ConvTranspose`, those of attention
    too.

    Args:
        function: a function that runs linen modules, such as `module.apply`.

    Returns:
        A function with the same arguments.
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with nn.intercept_methods(_interceptor):
            return function(*args, **kwargs)

    return wrapped


def _interceptor(next_function, args, kwargs, context):
    module = context.module
    is_call = type(module) in _LAYERS and context.method_name == "__call__"
    if not is_call or not module.has_variable("params", LEFT):
        return next_function(*args, **kwargs)
    factors = [nn.unbox(module.get_variable("params", name)) for name in (LEFT, RIGHT)]
    bias = nn.unbox(module.get_variable("params", "bias")) if module.use_bias else None
    equations = None
    if type(module) is nn.Einsum:
        assert module.einsum_str is not None
        both = two_einsums(module.einsum_str, factors[0].ndim + factors[1].ndim - 2)
        assert not isinstance(both, str)
        factors, equations = factors if both.is_left_first else factors[::-1], both
    first, second = _two_layers(module, factors, equations)
    variables = {"kernel": factors[1]} | ({} if bias is None else {"bias": bias})
    return second.apply({"params": variables}, first.apply({"params": {"kernel": factors[0]}}, *args, **kwargs))


def _two_layers(module, factors, equations):
    """The layer with the first factor, and a layer with the second factor and the bias."""
    first, second = factors
    own: dict[str, Any] = {"parent": None, "name": None}
    if equations is not None:
        return (
            module.clone(**own, shape=first.shape, einsum_str=equations.first, use_bias=False),
            module.clone(**own, shape=second.shape, einsum_str=equations.second),
        )
    if isinstance(module, nn.DenseGeneral):
        return module.clone(**own, features=first.shape[-1], use_bias=False), module.clone(**own, axis=-1)
    dense = {name: getattr(module, name) for name in ("features", "use_bias", "dtype", "param_dtype", "precision")}
    return module.clone(**own, features=first.shape[-1], use_bias=False), nn.Dense(**dense, parent=None)


def _dense(module, ndim):
    return Layout(ndim - 2, ndim - 1)


def _general(module, ndim):
    if module.batch_dims:
        return f"an `nn.DenseGeneral` must be without `batch_dims`, got {module.batch_dims}"
    features = (module.features,) if isinstance(module.features, int) else module.features
    return Layout(0, ndim - len(features))


def _einsum(module, ndim):
    if module.einsum_str is None:
        return "an `nn.Einsum` must have its `einsum_str` when it is made"
    both = two_einsums(module.einsum_str, ndim)
    return both if isinstance(both, str) else both.layout


def _conv(module, ndim):
    groups, is_transposed = getattr(module, "feature_group_count", 1), getattr(module, "transpose_kernel", False)
    if groups != 1 or is_transposed or module.mask is not None:
        return f"an `nn.{type(module).__name__}` must be without groups, `mask` and `transpose_kernel`"
    return Layout(0, ndim - 1)


#: For each class of layers a function that gives the layout of its kernel.
_LAYERS: dict[type, Callable[..., Layout | str]] = {
    nn.Dense: _dense,
    nn.DenseGeneral: _general,
    nn.Einsum: _einsum,
    nn.Conv: _conv,
    nn.ConvTranspose: _conv,
}
