"""The sizes that Equinox layers remember, as their smaller arrays give them."""

from typing import Any

import equinox as eqx

from ramda_jax.compaction.adapters.modules import modules_of
from ramda_jax.compaction.adapters.sizes.layers import Fit, fit_layer, groups_left


def fit_sizes(module: Any, whole: Any) -> None:
    """Sets the sizes that the layers in `module` remember to those of their arrays, in place.

    It knows `Linear`, `Conv`, `ConvTranspose`, `Embedding`, `MultiheadAttention`, `LayerNorm`, `RMSNorm`, `GRUCell` and
    `LSTMCell`, and classes derived from these. It does not change any other layer, or a layer whose arrays are not
    those that it would make. If such a layer remembers a size that matters, the proof detects it.

    Args:
        module: a module with smaller arrays and the sizes of the whole arrays. Nothing else may hold it.
        whole: the module with the whole arrays, which may be abstract.
    """
    for (_, layer), (_, before) in zip(modules_of(module), modules_of(whole), strict=True):
        for kind, fit in _FITS:
            if isinstance(layer, kind):
                fit_layer(layer, before, fit)


def _linear(layer, own):
    # A scalar counts as an axis of length 1.
    sizes = [1 if n == "scalar" else n for n in (layer.out_features, layer.in_features)]
    small = own("weight", *sizes)
    names = ("out_features", "in_features")
    return {name: n for name, n in zip(names, small, strict=True) if getattr(layer, name) != "scalar"}


def _conv(layer, own):
    out, per_group, *_ = own("weight", layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    groups = layer.groups
    if groups > 1:
        groups = groups_left(groups, layer.out_channels, out)
    return {"out_channels": out, "in_channels": per_group * groups, "groups": groups}


def _conv_transpose(layer, own):
    if layer.groups > 1:
        return {}
    out, into, *_ = own("weight", layer.out_channels, layer.in_channels, *layer.kernel_size)
    return {"out_channels": out, "in_channels": into}


def _embedding(layer, own):
    entries, size = own("weight", layer.num_embeddings, layer.embedding_size)
    return {"num_embeddings": entries, "embedding_size": size}


def _norm(layer, own):
    name = "weight" if layer.weight is not None else "bias"
    return {"shape": own(name, *layer.shape)} if getattr(layer, name) is not None else {}


def _attention(layer, own):
    heads = layer.num_heads
    queries, query = own("query_proj.weight", heads * layer.qk_size, layer.query_size)
    _, key = own("key_proj.weight", heads * layer.qk_size, layer.key_size)
    values, value = own("value_proj.weight", heads * layer.vo_size, layer.value_size)
    output, _ = own("output_proj.weight", layer.output_size, heads * layer.vo_size)
    # Keys are compared entry by entry with queries, so only whole heads are deleted.
    heads = queries // layer.qk_size
    sizes = {"query_size": query, "key_size": key, "value_size": value, "output_size": output}
    return sizes | {"num_heads": heads, "vo_size": values // heads}


def _cell(gates):
    def fit(layer, own):
        _, into = own("weight_ih", gates * layer.hidden_size, layer.input_size)
        _, hidden = own("weight_hh", gates * layer.hidden_size, layer.hidden_size)
        return {"input_size": into, "hidden_size": hidden}

    return fit


#: For each kind of layers a function that reads the sizes.
_FITS: tuple[tuple[Any, Fit], ...] = (
    (eqx.nn.Linear, _linear),
    (eqx.nn.Conv, _conv),
    (eqx.nn.ConvTranspose, _conv_transpose),
    (eqx.nn.Embedding, _embedding),
    ((eqx.nn.LayerNorm, eqx.nn.RMSNorm), _norm),
    (eqx.nn.MultiheadAttention, _attention),
    (eqx.nn.GRUCell, _cell(3)),
    (eqx.nn.LSTMCell, _cell(4)),
)
