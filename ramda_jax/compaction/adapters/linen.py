"""Linen modules on smaller arrays: unchanged code, told the sizes of the arrays that it is given."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.linen.dtypes import promote_dtype

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.factored import factor
from ramda_jax.structure.paths import keys_by_name
from ramda_jax.typing import Tree


def linen_adapter(module: Any, variables: Tree, call: Callable[..., Any] | None = None) -> Adapter:
    """The `Adapter` of a linen module."""
    call = call or _apply
    apply = functools.partial(call, module)
    small = sizes_from_variables(apply)
    factorize = functools.partial(split_kernels, apply, variables)
    return Adapter(apply, variables, lambda variables: (small, small), factorize)


def _apply(module, variables, *args, **kwargs):
    return module.apply(variables, *args, **kwargs)


def sizes_from_variables(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function that runs linen modules run them with the sizes of the arrays they are given.

    `nn.Dense(64)` refuses a kernel of any other width. In here each layer's `features`, and a grouped convolution's
    `feature_group_count`, are read from its kernel, and the modules' code stays as it is.

    Args:
        function: for example `module.apply`.

    Returns:
        A function with the same arguments.

    Example:
        >>> import flax.linen as nn, jax.numpy as jnp
        >>> variables = {"params": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
        >>> sizes_from_variables(nn.Dense(64).apply)(variables, jnp.ones((1, 3)))
        Array([[3., 3.]], dtype=float32)
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with nn.intercept_methods(_interceptor):
            return function(*args, **kwargs)

    return wrapped


def _interceptor(next_function, args, kwargs, context):
    with _fields(context.module, _sizes(context.module, args)):
        return next_function(*args, **kwargs)


def _sizes(module, args):
    """The fields of a module that its arrays determine."""
    scope = module.scope
    if scope is None or not hasattr(module, "features"):
        return {}

    def shape(name):
        found = scope.get_variable("params", name) if scope.has_variable("params", name) else None
        return None if found is None else nn.unbox(found).shape

    kernel, embedding = shape("kernel"), shape("embedding")
    if embedding is not None:
        return {"num_embeddings": embedding[0], "features": embedding[1]}
    if kernel is None:
        return {}
    if isinstance(module.features, tuple):
        return {"features": kernel[len(kernel) - len(module.features) :]}
    if getattr(module, "transpose_kernel", False):
        return {"features": kernel[-2]}
    sizes = {"features": kernel[-1]}
    if isinstance(module, nn.DenseGeneral):
        return sizes
    if getattr(module, "feature_group_count", 1) > 1 and args and hasattr(args[0], "shape"):
        sizes["feature_group_count"] = args[0].shape[-1] // kernel[-2]
    return sizes


@contextlib.contextmanager
def _fields(module, values):
    """Fields of a (frozen) module set to other values for a while."""
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            object.__setattr__(module, name, value)
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(module, name, value)


LEFT, RIGHT = "kernel_left", "kernel_right"


def split_kernels(
    apply: Callable[..., Any], variables: Tree, ranks: Mapping[str, int]
) -> tuple[Callable[..., Any], Tree, Callable[..., Any]]:
    """A linen model whose kernels named in `ranks` (from paths to ranks) are `kernel_left` and `kernel_right`.

    Returns:
        (a function, its variables, the function).
    """
    keys_of = keys_by_name(variables)
    variables = jax.tree.map(lambda leaf: leaf, variables)
    for path, rank in ranks.items():
        *parents, name = keys_of[path]
        layer = variables
        for key in parents:
            layer = layer[key]
        factors = factor(layer.pop(name), rank)
        layer |= {LEFT: factors.left, RIGHT: factors.right}
    factored = kernels_from_factors(apply)
    return factored, variables, factored


def kernels_from_factors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function run the `nn.Dense` layers that have `kernel_left` and `kernel_right` as two thin products.

    Args:
        function: for example `module.apply`.

    Returns:
        A function with the same arguments.
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with nn.intercept_methods(_factored_dense):
            return function(*args, **kwargs)

    return wrapped


def _factored_dense(next_function, args, kwargs, context):
    module = context.module
    if type(module) is not nn.Dense or context.method_name != "__call__" or not module.has_variable("params", LEFT):
        return next_function(*args, **kwargs)
    names = [LEFT, RIGHT, *(["bias"] if module.use_bias else [])]
    values = [module.get_variable("params", name) for name in names]
    inputs, left, right, *bias = promote_dtype(*args, *values, dtype=module.dtype)
    outputs = inputs @ left @ right
    return outputs + bias[0] if bias else outputs
