"""nnx modules on smaller arrays: new parameters, and the sizes that a layer remembers."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.factored import factor
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.structure.paths import keys_by_name
from ramda_jax.typing import Tree


def nnx_adapter(model: Any, call: Callable[..., Any] | None = None) -> Adapter:
    """The `Adapter` of an nnx module; proved in evaluation mode, while the small one is in that of the whole one."""
    call = call or (lambda model, *args: model(*args))
    graph, state = nnx.split(model)

    def applied(graph):
        def apply(state, *args):
            module = nnx.merge(graph, state)
            module.eval()
            return call(module, *args)

        return apply

    def rebuild(small):
        module = nnx.merge(graph, small)
        fit_sizes(module)
        return module, applied(nnx.split(module)[0])

    return Adapter(applied(graph), state, rebuild, lambda ranks: with_factors(model, ranks, call))


def fit_sizes(module: Any) -> None:
    """Sets the sizes that the layers in `module` remember to those of their arrays, in place.

    Known are `Linear`, `LinearGeneral`, `Einsum`, `Conv`, `ConvTranspose`, `Embed`, `MultiHeadAttention`, the norms and
    the recurrent cells of Flax, and what is derived from them. Any other layer is left alone: if it remembers a size
    that matters, the proof sees it.
    """
    # Outer modules come before what is in them: what attention or a cell remembers follows from its layers.
    for _, layer in nnx.iter_modules(module):
        for kind, fit in _FITS:
            if isinstance(layer, kind):
                fit(layer)


def _shape(variable):
    return tuple(variable.get_value().shape if hasattr(variable, "get_value") else variable.value.shape)


def _linear(layer):
    layer.in_features, layer.out_features = _shape(layer.kernel)


def _linear_general(layer):
    batch = len(layer.batch_axis)
    inputs = len(layer.in_features)
    shape = _shape(layer.kernel)[batch:]
    layer.in_features, layer.out_features = shape[:inputs], shape[inputs:]


def _einsum(layer):
    layer.kernel_shape = _shape(layer.kernel)


def _conv(layer):
    *_, per_group, out = layer.kernel_shape = _shape(layer.kernel)
    if layer.feature_group_count > 1:
        # Each group has as many outputs as it had; where that is not so, the proof finds the wrong number of groups.
        layer.feature_group_count = out // (layer.out_features // layer.feature_group_count)
    layer.in_features, layer.out_features = per_group * layer.feature_group_count, out


def _conv_transpose(layer):
    *_, rows, columns = layer.kernel_shape = _shape(layer.kernel)
    layer.in_features, layer.out_features = (columns, rows) if layer.transpose_kernel else (rows, columns)


def _embed(layer):
    layer.num_embeddings, layer.features = _shape(layer.embedding)


def _norm(layer):
    for name in ("scale", "bias", "mean", "var"):
        variable = getattr(layer, name, None)
        if isinstance(variable, nnx.Variable):
            [layer.num_features] = _shape(variable)
            return


def _attention(layer):
    features, heads, size = _shape(layer.query.kernel)
    layer.in_features, layer.num_heads, layer.head_dim = features, heads, size
    layer.qkv_features = heads * size
    layer.out_features = _shape(layer.out.kernel)[-1]
    if hasattr(layer, "num_kv_heads"):
        layer.num_kv_heads = _shape(layer.key.kernel)[1]


def _cell(layer):
    recurrent = [getattr(layer, name, None) for name in ("dense_h", "hi", "hf", "hn", "h")]
    kernels = [dense.kernel for dense in recurrent if dense is not None]
    if kernels:
        layer.hidden_features = _shape(kernels[0])[0]


_FITS = (
    (nnx.Linear, _linear),
    (nnx.LinearGeneral, _linear_general),
    (nnx.Einsum, _einsum),
    (nnx.Conv, _conv),
    (nnx.ConvTranspose, _conv_transpose),
    (nnx.Embed, _embed),
    ((nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm), _norm),
    (nnx.MultiHeadAttention, _attention),
    ((nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell), _cell),
)


def with_factors(
    model: Any, ranks: Mapping[str, int], call: Callable[..., Any] | None = None
) -> tuple[Any, Tree, Callable[..., Any]]:
    """An nnx module whose `Linear` layers named in `ranks` (from the kernel's path to the rank) are two.

    Returns:
        (the module, its state, a function of (state, *args)).

    Raises:
        CompactionError: a path that is not the kernel of a `Linear`.
    """
    small = nnx.clone(model)
    keys_of = keys_by_name(nnx.state(model))
    for path, rank in ranks.items():
        *parents, name, kernel = ("", *keys_of[path])  # the name is "" for a kernel of the module itself
        holder = small
        for key in parents[1:]:
            holder = _child(holder, key)
        layer = _child(holder, name) if name else holder
        if type(layer) is not nnx.Linear or kernel != "kernel" or not name:
            raise CompactionError(f"'{path}' must be the kernel of an `nnx.Linear` in a module, got {type(layer)}.")
        pair = _two_linears(layer, rank)
        if name.isdigit():
            holder[int(name)] = pair
        else:
            setattr(holder, name, pair)
    adapter = nnx_adapter(small, call)
    return small, adapter.variables, adapter.apply


def _child(holder, key):
    return holder[int(key)] if key.isdigit() else getattr(holder, key)


def _two_linears(layer, rank):
    factors = factor(layer.kernel.get_value(), rank)
    settings = {
        "dtype": layer.dtype,
        "param_dtype": layer.param_dtype,
        "precision": layer.precision,
        "rngs": nnx.Rngs(0),  # the initial kernels are replaced at once
    }
    first = nnx.Linear(layer.in_features, rank, use_bias=False, **settings)
    second = nnx.Linear(rank, layer.out_features, use_bias=layer.use_bias, **settings)
    first.kernel.set_value(factors.left)
    second.kernel.set_value(factors.right)
    if layer.bias is not None and second.bias is not None:
        second.bias.set_value(layer.bias.get_value())
    return nnx.Sequential(first, second)
