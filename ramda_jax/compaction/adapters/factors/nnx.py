"""nnx modules with two factors for each kernel of low rank: each known layer becomes two layers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ramda_jax.compaction.adapters.factors.einsum import two_einsums
from ramda_jax.compaction.adapters.factors.matrix import PRODUCT, Cut, Factored, Layout
from ramda_jax.structure.paths import keys_by_name, named_leaves


class FactoredKernel(nnx.Module):
    """A parameter that is a product: `x @ kernel` and `kernel @ x` are two thin products.

    It replaces an `nnx.Param` in a user's own module. `kernel.get_value()` and `kernel[...]` are the `Factored` matrix.

    Args:
        left: `[m, r]`.
        right: `[r, n]`.
    """

    __array_priority__ = 1000

    def __init__(self, left: jax.Array, right: jax.Array):
        self.left: nnx.Param[jax.Array] = nnx.Param(left)
        self.right: nnx.Param[jax.Array] = nnx.Param(right)

    def get_value(self) -> Factored:
        """The matrix."""
        return Factored(self.left.get_value(), self.right.get_value())

    @property
    def value(self) -> Factored:
        """The matrix."""
        return self.get_value()

    @property
    def T(self) -> Factored:
        """The matrix transposed."""
        return self.get_value().T

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the product."""
        return self.get_value().shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of both factors."""
        return self.get_value().dtype

    def __getitem__(self, key: Any) -> Factored:
        if key is not Ellipsis:
            raise TypeError(f"A matrix of low rank must be taken whole, got {key!r}; use `[...]`.")
        return self.get_value()

    def __matmul__(self, other: jax.Array) -> jax.Array:
        return self.get_value() @ other

    def __rmatmul__(self, other: jax.Array) -> jax.Array:
        return other @ self.get_value()


def layouts(model: Any) -> dict[str, Layout | str]:
    """A dict from the path of each leaf to its layout as a matrix of its layer, or why it has none."""
    keys_of = keys_by_name(nnx.state(model))
    return {path: _layout(model, keys_of[path], np.ndim(leaf)) for path, leaf in named_leaves(nnx.state(model))}


def _layout(model, keys, ndim):
    *parents, name = keys
    layer = _at(model, parents)
    known = _LAYERS.get(type(layer))
    if known is not None and name == "kernel":
        # A module cannot replace itself.
        return known[0](layer, ndim) if parents else f"the model must not be an `nnx.{type(layer).__name__}` itself"
    if ndim == 2 and isinstance(getattr(layer, name, None), nnx.Param):
        return PRODUCT
    return f"a leaf of {ndim} axes must be the kernel of a layer that is known, not of {type(layer).__name__}"


def with_factors(model: Any, cuts: Mapping[str, Cut]) -> Any:
    """A copy of the module with two layers for each one named in `cuts`, by the path of its kernel."""
    small = nnx.clone(model)
    keys_of = keys_by_name(nnx.state(model))
    for path, cut in cuts.items():
        *parents, name = keys_of[path]
        layer = _at(small, parents)
        left, right = cut.factors(getattr(layer, name).get_value())
        known = _LAYERS.get(type(layer))
        if known is None:
            setattr(layer, name, FactoredKernel(left, right))
        else:
            _replace(small, layer, nnx.Sequential(*known[1](layer, left, right)))
    return small


def _replace(model, layer, pair):
    """Puts `pair` everywhere in place of `layer`: a layer that several modules share stays shared."""
    holders = [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.Pytree)]
    for holder in holders:
        for name, child in list(vars(holder).items()):
            if child is not layer:
                continue
            if isinstance(holder, nnx.List):
                holder[int(name)] = pair
            else:
                setattr(holder, name, pair)


def _at(holder, keys):
    for key in keys:
        holder = holder[int(key)] if key.isdigit() else getattr(holder, key)
    return holder


def _first(layer, kernel, **sizes):
    """The layer with another kernel and without a bias."""
    first: Any = nnx.clone(layer)
    first.kernel.set_value(kernel)
    first.bias = None
    for name, size in {"use_bias": False, **sizes}.items():
        if hasattr(first, name):
            setattr(first, name, size)
    return first


def _second(make: Callable[..., Any], layer, kernel):
    """A layer with the second factor and the bias of the whole layer."""
    second = make(dtype=layer.dtype, param_dtype=layer.param_dtype, precision=layer.precision, rngs=nnx.Rngs(0))
    second.kernel.set_value(kernel)
    if layer.bias is not None:
        second.bias = nnx.Param(jnp.copy(layer.bias.get_value()))
    return second


def _linear(layer, ndim):
    return Layout(ndim - 2, ndim - 1)


def _two_linears(layer, left, right):
    first = _first(layer, left, out_features=left.shape[-1])
    use_bias = layer.bias is not None
    return first, _second(
        lambda **settings: nnx.Linear(left.shape[-1], right.shape[-1], use_bias=use_bias, **settings), layer, right
    )


def _general(layer, ndim):
    if layer.batch_axis:
        return f"an `nnx.LinearGeneral` must be without `batch_axis`, got {dict(layer.batch_axis)}"
    batch = ndim - len(layer.in_features) - len(layer.out_features)
    return Layout(batch, batch + len(layer.in_features))


def _two_general(layer, left, right):
    rank, use_bias = left.shape[-1], layer.bias is not None
    first = _first(layer, left, out_features=(rank,))

    def make(**settings):
        return nnx.LinearGeneral((rank,), layer.out_features, use_bias=use_bias, **settings)

    return first, _second(make, layer, right)


def _einsum(layer, ndim):
    if layer.einsum_str is None:
        return "an `nnx.Einsum` must have its `einsum_str` when it is made"
    both = two_einsums(layer.einsum_str, ndim)
    return both if isinstance(both, str) else both.layout


def _two_einsum_layers(layer, left, right):
    both = two_einsums(layer.einsum_str, layer.kernel.ndim)
    assert not isinstance(both, str)
    kernels = (left, right) if both.is_left_first else (right, left)
    first = _first(layer, kernels[0], einsum_str=both.first, kernel_shape=kernels[0].shape, bias_shape=None)
    shape = None if layer.bias is None else layer.bias_shape
    return first, _second(
        lambda **settings: nnx.Einsum(both.second, kernels[1].shape, shape, **settings), layer, kernels[1]
    )


def _conv(layer, ndim):
    groups, is_transposed = getattr(layer, "feature_group_count", 1), getattr(layer, "transpose_kernel", False)
    if groups != 1 or is_transposed or layer.mask is not None:
        return f"an `nnx.{type(layer).__name__}` must be without groups, `mask` and `transpose_kernel`"
    return Layout(ndim - 2 - len(layer.kernel_size), ndim - 1)


#: For each class of layers two functions: the layout of its kernel, and the two layers that replace it.
_LAYERS: dict[type, tuple[Callable[..., Any], Callable[..., Any]]] = {
    nnx.Linear: (_linear, _two_linears),
    nnx.LinearGeneral: (_general, _two_general),
    nnx.Einsum: (_einsum, _two_einsum_layers),
    # The second convolution has size 1, so it is a `Linear`.
    nnx.Conv: (_conv, _two_linears),
    nnx.ConvTranspose: (_conv, _two_linears),
}
