"""nnx modules with smaller arrays: new parameters, and layers with the sizes of their arrays."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.factors.nnx import layouts, with_factors
from ramda_jax.compaction.adapters.sizes.nnx import fit_sizes, remembered_sizes


def nnx_adapter(
    model: Any,
    call: Callable[..., Any] | None = None,
    fit: Callable[[Any], Any] | None = None,
    train: bool = False,
) -> Adapter:
    """The `Adapter` of an nnx module. It is proved in evaluation mode; the small one keeps the whole module's mode.

    With `train` its functions run in training mode.
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

    def factorize(cuts):
        small = with_factors(model, cuts)
        factored = nnx_adapter(small, call)
        return small, factored.variables, factored.apply

    return Adapter(
        applied(graph),
        state,
        rebuild,
        lambda *args: layouts(model),
        factorize,
        lambda *args: remembered_sizes(model),
    )
