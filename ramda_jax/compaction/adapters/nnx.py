"""nnx modules on smaller arrays: new parameters, and layers told the sizes of theirs."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.factored import factor
from ramda_jax.compaction.adapters.sizes.nnx import fit_sizes, remembered_sizes
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.structure.paths import keys_by_name
from ramda_jax.typing import Tree


def nnx_adapter(
    model: Any,
    call: Callable[..., Any] | None = None,
    fit: Callable[[Any], Any] | None = None,
    train: bool = False,
) -> Adapter:
    """The `Adapter` of an nnx module; proved in evaluation mode, while the small one is in that of the whole one.

    With `train` its functions are those of training.
    """
    call = call or (lambda model, *args: model(*args))
    graph, state = nnx.split(model)

    def applied(graph):
        def apply(state, *args):
            module = nnx.merge(graph, state)
            module.train() if train else module.eval()
            return call(module, *args)

        return apply

    def rebuild(small, sizes):
        module = nnx.merge(graph, small)
        fit_sizes(module, model, sizes)
        if fit is not None:
            fitted = fit(module)
            module = module if fitted is None else fitted
        return module, applied(nnx.split(module)[0])

    return Adapter(
        applied(graph),
        state,
        rebuild,
        lambda ranks: with_factors(model, ranks, call),
        lambda *args: remembered_sizes(model),
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
