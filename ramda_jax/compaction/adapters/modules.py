"""The modules inside an Equinox module."""

import dataclasses
from collections.abc import Iterator
from typing import Any


def fields_of(module: Any) -> list[str]:
    """The names of a module's fields."""
    return [field.name for field in dataclasses.fields(module)]


def modules_of(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path, module) for a module and the modules inside it; `path` is that of `node`."""
    import equinox as eqx

    if isinstance(node, eqx.Module):
        yield path, node
        children = ((name, getattr(node, name, None)) for name in fields_of(node))
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    elif isinstance(node, dict):
        children = node.items()
    else:
        return
    for name, child in children:
        yield from modules_of(child, f"{path}/{name}" if path else str(name))
