"""Finds a user's parameters among the traced variables, of which they may be a part."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.structure.paths import named_leaves
from ramda_jax.typing import Shape

_REMEDY = "give the parameters that `trace_dims` was given, or a part of them."


def traced_paths(shapes: Mapping[str, Shape], params: Any) -> dict[str, str]:
    """A dict from the paths of parameters to the paths of the same leaves in the trace.

    If a common prefix, such as `params/`, leads from all parameters to traced leaves of their shapes, it is used.
    Otherwise each leaf is looked up by itself.

    Args:
        shapes: the shapes of the traced leaves by path.
        params: the variables that were traced, or a part of them.

    Raises:
        CompactionError: a leaf of `params` that was not traced, or that may be any of several.
    """
    own = {path: tuple(np.shape(leaf)) for path, leaf in named_leaves(params)}
    if all(shapes.get(path) == shape for path, shape in own.items()):
        return {path: path for path in own}
    first = next(iter(own))
    prefixes = [traced.removesuffix(first) for traced in shapes if traced.endswith(f"/{first}")]
    fitting = [prefix for prefix in prefixes if all(shapes.get(prefix + path) == shape for path, shape in own.items())]
    if len(fitting) == 1:
        return {path: fitting[0] + path for path in own}
    # The other way round: the collection itself was traced.
    prefixes = [first.removesuffix(traced) for traced in shapes if first.endswith(f"/{traced}")]
    for prefix in prefixes:
        if all(path.startswith(prefix) and shapes.get(path[len(prefix) :]) == shape for path, shape in own.items()):
            return {path: path[len(prefix) :] for path in own}
    return _one_by_one(shapes, own)


def _one_by_one(shapes, own):
    result, owner = {}, {}
    for path, shape in own.items():
        found = [traced for traced in shapes if traced == path or traced.endswith(f"/{path}")]
        found = [traced for traced in found if traced == path] or found
        if len(found) != 1 or shapes[found[0]] != shape:
            raise CompactionError(
                f"Each leaf of `params` must be one of those traced, but '{path}' of shape {shape} may be any of "
                f"{found}; {_REMEDY}"
            )
        [traced] = found
        if traced in owner:
            raise CompactionError(
                f"Each leaf of `params` must be another of those traced, but '{owner[traced]}' and '{path}' both are "
                f"'{traced}'; {_REMEDY}"
            )
        owner[traced] = path
        result[path] = traced
    return result
