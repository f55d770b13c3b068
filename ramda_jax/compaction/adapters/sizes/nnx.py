"""The sizes that nnx layers remember, as their smaller arrays give them."""

from typing import Any

from flax import nnx

from ramda_jax.compaction.adapters.sizes.layers import Fit, fit_layer, groups_left
from ramda_jax.compaction.adapters.sizes.remembered import Remembered, Sizes, numbers_of, with_number


def fit_sizes(module: Any, whole: Any, sizes: Sizes) -> None:
    """Sets the sizes that the layers in `module` remember to those of their arrays, in place.

    It knows `Linear`, `LinearGeneral`, `Einsum`, `Conv`, `ConvTranspose`, `Embed`, `MultiHeadAttention`, the norms and
    the recurrent cells of Flax, and classes derived from these. It does not change any other layer, or a layer whose
    arrays are not those that it would make. If such a layer remembers a size that matters, the proof detects it.

    Args:
        module: a module with smaller arrays and the sizes of the whole arrays.
        whole: the module with the whole arrays, which may be abstract.
        sizes: values for the numbers that `remembered_sizes` names.
    """
    # Outer modules come before the modules inside them, because the sizes of attention or of a cell follow from its
    # layers.
    for (_, layer), (_, before) in zip(nnx.iter_modules(module), nnx.iter_modules(whole), strict=True):
        for kind, fit in _FITS:
            if isinstance(layer, kind):
                fit_layer(layer, before, fit)
    modules = {_name(path): layer for path, layer in nnx.iter_modules(module)}
    for (path, name), number in sizes.items():
        first, _, rest = name.partition(".")
        layer = modules[path]
        setattr(layer, first, with_number(getattr(layer, first), rest, number) if rest else number)
        if isinstance(layer, nnx.Conv):
            layer.in_features = layer.kernel_shape[-2] * layer.feature_group_count


def remembered_sizes(model: Any) -> list[Remembered]:
    """The numbers that the modules of a model remember, except for those that follow from a layer's arrays."""
    result = []
    for path, layer in nnx.iter_modules(model):
        numbers = dict(numbers_of(vars(layer)))
        if any(isinstance(layer, kind) and type(layer).__module__.startswith("flax.") for kind, _ in _FITS):
            # A convolution's kernel does not say how many outputs each group has left.
            groups = numbers.get("feature_group_count", 1)
            numbers = {"feature_group_count": groups} if groups > 1 else {}
            if isinstance(layer, nnx.GroupNorm) and not layer.use_scale and not layer.use_bias:
                numbers = {"num_groups": layer.num_groups}
        kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
        result += [Remembered(_name(path), kind, name, value) for name, value in numbers.items()]
    return result


def _name(path):
    return "/".join(map(str, path))


def _linear(layer, own):
    into, out = own("kernel", layer.in_features, layer.out_features)
    return {"in_features": into, "out_features": out}


def _linear_general(layer, own):
    sizes = own("kernel", *layer.batch_axis.values(), *layer.in_features, *layer.out_features)
    sizes = sizes[len(layer.batch_axis) :]
    inputs = len(layer.in_features)
    return {"in_features": sizes[:inputs], "out_features": sizes[inputs:]}


def _einsum(layer, own):
    return {"kernel_shape": own("kernel", *layer.kernel_shape)}


def _conv(layer, own):
    shape = own("kernel", *layer.kernel_shape)
    *_, per_group, out = shape
    groups = layer.feature_group_count
    if groups > 1:
        groups = groups_left(groups, layer.out_features, out)
    return {
        "kernel_shape": shape,
        "feature_group_count": groups,
        "in_features": per_group * groups,
        "out_features": out,
    }


def _conv_transpose(layer, own):
    shape = own("kernel", *layer.kernel_shape)
    *_, rows, columns = shape
    into, out = (columns, rows) if layer.transpose_kernel else (rows, columns)
    return {"kernel_shape": shape, "in_features": into, "out_features": out}


def _embed(layer, own):
    entries, features = own("embedding", layer.num_embeddings, layer.features)
    return {"num_embeddings": entries, "features": features}


def _norm(layer, own):
    features = _vector(layer, own, layer.num_features)
    return {} if features is None else {"num_features": features}


def _group_norm(layer, own):
    features = _vector(layer, own, layer.num_groups * layer.group_size)
    # Only whole groups are deleted, so groups keep their size.
    return {} if features is None else {"num_groups": features // layer.group_size}


def _vector(layer, own, size):
    for name in ("scale", "bias", "mean", "var"):
        if isinstance(getattr(layer, name, None), nnx.Variable):
            return own(name, size)[0]
    return None


def _attention(layer, own):
    features, heads, size = own("query.kernel", layer.in_features, layer.num_heads, layer.head_dim)
    *_, out = own("out.kernel", layer.num_heads, layer.head_dim, layer.out_features)
    sizes = {
        "in_features": features,
        "num_heads": heads,
        "head_dim": size,
        "qkv_features": heads * size,
        "out_features": out,
    }
    if hasattr(layer, "num_kv_heads"):
        into, sizes["num_kv_heads"], _ = own("key.kernel", layer.in_kv_features, layer.num_kv_heads, layer.head_dim)
        sizes["in_kv_features"] = into
    return sizes


def _cell(layer, own):
    for name in ("dense_h", "hi", "hf", "hn", "h"):
        dense = getattr(layer, name, None)
        if dense is not None:
            hidden, _ = own(f"{name}.kernel", dense.in_features, dense.out_features)
            return {"hidden_features": hidden}
    return {}


#: For each kind of layers a function that reads the sizes.
_FITS: tuple[tuple[Any, Fit], ...] = (
    (nnx.Linear, _linear),
    (nnx.LinearGeneral, _linear_general),
    (nnx.Einsum, _einsum),
    (nnx.Conv, _conv),
    (nnx.ConvTranspose, _conv_transpose),
    (nnx.Embed, _embed),
    ((nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm, nnx.InstanceNorm), _norm),
    (nnx.GroupNorm, _group_norm),
    (nnx.MultiHeadAttention, _attention),
    ((nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell), _cell),
)
