"""Linen modules with smaller arrays: the code is unchanged, and gets the sizes of the arrays."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.factors.linen import layouts, with_factors
from ramda_jax.compaction.adapters.sizes.remembered import Remembered, Sizes, numbers_of, with_number
from ramda_jax.compaction.tracing.static_args import hold_static
from ramda_jax.typing import Tree


def linen_adapter(
    module: Any,
    variables: Tree,
    call: Callable[..., Any] | None = None,
    fit: Callable[[Any, Tree], Any] | None = None,
) -> Adapter:
    """The `Adapter` of a linen module."""
    call = call or _apply
    apply = functools.partial(call, module)

    def rebuild(small, sizes):
        fitted = module if fit is None else fit(module, small)
        function = sizes_from_variables(functools.partial(call, fitted), sizes)
        return function, function

    def factorize(cuts):
        factored, small = with_factors(sizes_from_variables(apply), variables, cuts)
        return factored, small, factored

    return Adapter(
        apply,
        variables,
        rebuild,
        functools.partial(layouts, apply, variables),
        factorize,
        functools.partial(remembered_sizes, apply, variables),
    )


def _apply(module, variables, *args, **kwargs):
    return module.apply(variables, *args, **kwargs)


def sizes_from_variables(function: Callable[..., Any], sizes: Sizes | None = None) -> Callable[..., Any]:
    """Makes a function that runs linen modules with the sizes of the arrays that they are given.

    `nn.Dense(64)` refuses a kernel of any other width. Inside the returned function each layer's `features`, and a
    grouped convolution's `feature_group_count`, are read from its kernel. The modules' code is unchanged. Parameters of
    any other module have the given shapes, whatever its code says.

    Args:
        function: a function that runs linen modules, such as `module.apply`.
        sizes: values for the numbers that `remembered_sizes` names.

    Returns:
        A function with the same arguments.

    Example:
        >>> import flax.linen as nn, jax.numpy as jnp
        >>> variables = {"params": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
        >>> sizes_from_variables(nn.Dense(64).apply)(variables, jnp.ones((1, 3)))
        Array([[3., 3.]], dtype=float32)
    """

    by_module = {}
    for (path, name), number in (sizes or {}).items():
        by_module.setdefault(path, {})[name] = number

    def interceptor(next_function, args, kwargs, context):
        module = context.module
        own = by_module.get("/".join(module.path), {}) if module.scope is not None else {}
        with _fields(module, _sizes(module, args)), _numbers(module, own), _any_shape(module.scope):
            return next_function(*args, **kwargs)

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with nn.intercept_methods(interceptor):
            return function(*args, **kwargs)

    return wrapped


def remembered_sizes(apply: Callable[..., Any], variables: Tree, *args: Any) -> list[Remembered]:
    """The numbers that the modules of a model remember in their fields, including modules inside these fields."""
    found = {}

    def interceptor(next_function, args, kwargs, context):
        module = context.module
        if module.scope is not None:
            kind, path = f"{type(module).__module__}.{type(module).__qualname__}", "/".join(module.path)
            for name, number in _numbers_of(module):
                found.setdefault((path, kind, name), number)
        return next_function(*args, **kwargs)

    held, arrays = hold_static(apply, args)
    with nn.intercept_methods(interceptor):
        jax.eval_shape(held, variables, *arrays)
    return [Remembered(path, kind, name, number) for (path, kind, name), number in found.items()]


def _numbers_of(module):
    fields = _fields_of(module)
    yield from numbers_of(fields, depth=2)
    for name, value in fields.items():
        if isinstance(value, nn.Module):
            yield from ((f"{name}.{inner}", number) for inner, number in _numbers_of(value))


def _fields_of(module):
    names = (field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name"))
    return {name: value for name in names if (value := getattr(module, name, None)) is not None}


@contextlib.contextmanager
def _numbers(module, numbers):
    """Temporarily gives other numbers to fields of a module, and of modules inside them."""
    with contextlib.ExitStack() as stack:
        for name, number in numbers.items():
            holder, (first, *rest) = module, name.split(".")
            while rest and isinstance(getattr(holder, first), nn.Module):
                holder, (first, *rest) = getattr(holder, first), rest
            value = with_number(getattr(holder, first), ".".join(rest), number) if rest else number
            stack.enter_context(_fields(holder, {first: value}))
        yield


@contextlib.contextmanager
def _any_shape(scope):
    """Accepts a scope's parameters as they are, whatever shape its module would give them."""
    if scope is None or "param" in vars(scope):
        yield
        return
    original = scope.param

    def param(name, init_fn, *args, **kwargs):
        if not scope.has_variable("params", name):
            return original(name, init_fn, *args, **kwargs)
        shapes = jax.eval_shape(lambda: scope.get_variable("params", name))
        return original(name, lambda *_, **__: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), **kwargs)

    scope.param = param
    try:
        yield
    finally:
        del scope.param


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
    """Temporarily sets fields of a (frozen) module to other values."""
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            object.__setattr__(module, name, value)
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(module, name, value)
