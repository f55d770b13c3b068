"""Equinox modules with two convolutions for each of low rank. A `Linear` can multiply by a `Factored` unchanged."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ramda_jax.compaction.adapters.factors.matrix import Cut, Layout
from ramda_jax.compaction.adapters.modules import modules_of


def layouts(model: Any) -> dict[str, Layout | str]:
    """A dict from the paths of convolutions' weights to their layouts as matrices, or why they have none."""
    return {_weight(path): _layout(path, layer) for path, layer in modules_of(model) if _is_conv(layer)}


def _weight(path):
    return f"{path}/weight" if path else "weight"


def _is_conv(layer):
    import equinox as eqx

    is_equinox = type(layer).__module__.split(".")[0] == "equinox"
    return is_equinox and isinstance(layer, (eqx.nn.Conv, eqx.nn.ConvTranspose))


def _layout(path, layer):
    name = f"an `eqx.nn.{type(layer).__name__}`"
    if not path:
        return f"the model must not be {name} itself"
    if layer.groups != 1 or np.ndim(layer.weight) != 2 + layer.num_spatial_dims:
        return f"{name} must be without groups, and not stacked"
    return Layout(0, 1)


def with_factors(model: Any, cuts: Mapping[str, Cut]) -> Any:
    """The module with two convolutions for each one named in `cuts`, by the path of its weight."""
    import equinox as eqx

    layers = {path: layer for path, layer in modules_of(model) if _weight(path) in cuts and _is_conv(layer)}
    if not layers:
        return model
    return eqx.tree_at(
        lambda model: [layer for path, layer in modules_of(model) if path in layers],
        model,
        [_two_convolutions(layer, cuts[_weight(path)]) for path, layer in layers.items()],
    )


def _two_convolutions(layer, cut):
    """A convolution to few channels, and one of size 1 from these to all channels, which has the bias."""
    import equinox as eqx

    left, right = cut.factors(layer.weight)
    settings = {"use_bias": layer.use_bias, "dtype": left.dtype, "key": jax.random.key(0)}
    first = eqx.tree_at(lambda conv: conv.weight, layer, right)
    first = eqx.tree_at(lambda conv: conv.bias, first, None, is_leaf=lambda leaf: leaf is None)
    for name, value in {"out_channels": cut.rank, "use_bias": False}.items():
        object.__setattr__(first, name, value)  # this layer was created above, so it may be changed
    second = eqx.nn.Conv(layer.num_spatial_dims, cut.rank, layer.out_channels, 1, **settings)
    second = eqx.tree_at(
        lambda conv: (conv.weight, conv.bias),
        second,
        (left.reshape(second.weight.shape), layer.bias),
        is_leaf=lambda leaf: leaf is None,
    )
    return eqx.nn.Sequential([first, second])
