"""Names of leaves: the same '/'-joined key path in dict, linen, nnx and dataclass trees."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path

from ramda_jax.typing import KeyPath, Tree

#: The name of a leaf under the empty key alone.
EMPTY_KEY = "''"


def path_keys(path: KeyPath) -> tuple[str, ...]:
    """The keys of a leaf's path as a tuple of strings. Unlike the name it tells the key `a/b` from the keys `a`, `b`.

    A trailing attribute `value` is dropped, as in `path_name`.
    """
    if path and isinstance(path[-1], GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return tuple(keystr((key,), simple=True) for key in path)


def path_name(path: KeyPath) -> str:
    """The '/'-joined key path of a leaf, such as `"conv/kernel"`; a bare array has the name `""`.

    A trailing attribute `value` is dropped, because the variables of nnx and the boxes of linen put it there at `init`,
    but not at `update`. A leaf under the empty key alone is named `"''"`: it is not a bare array.

    Args:
        path: a key path of `jax.tree_util`.

    Example:
        >>> from jax.tree_util import DictKey
        >>> path_name((DictKey("conv"), DictKey("kernel")))
        'conv/kernel'
    """
    keys = path_keys(path)
    return EMPTY_KEY if keys == ("",) else "/".join(keys)


def flatten_with_paths(
    tree: Tree, is_leaf: Callable[[Any], bool] | None = None
) -> tuple[list[tuple[KeyPath, Any]], Any]:
    """`jax.tree_util.tree_flatten_with_path`, with an error that names the keys of a dict that cannot be sorted."""
    try:
        return tree_flatten_with_path(tree, is_leaf=is_leaf)
    except ValueError as error:
        keys = next((list(node) for node in _dicts(tree) if not _is_sortable(node)), None)
        if keys is None:
            raise
        raise ValueError(
            f"The keys of a dict in a tree must be of one kind that can be sorted, got {keys}; use strings alone."
        ) from error


def _dicts(tree):
    if isinstance(tree, Mapping):
        yield tree
    inner = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, (list, tuple)) else ()
    for node in inner:
        yield from _dicts(node)


def _is_sortable(keys):
    try:
        sorted(keys)
    except TypeError:
        return False
    return True


def check_unique(paths: Sequence[KeyPath]) -> list[str]:
    """The names of key paths, as a list; raises a `ValueError` that has both paths if two have the same name."""
    names = [path_name(path) for path in paths]
    if len(set(names)) < len(names):
        first = {}
        for path, name in zip(paths, names, strict=True):
            other = first.setdefault(name, path)
            if other is not path:
                raise ValueError(
                    f"The '/'-joined paths of leaves must be different, but {keystr(other)} and {keystr(path)} are "
                    f"both named '{name}'; rename a key, such as one with a '/' in it or one of 0 and '0'."
                )
    return names


def named_leaves(tree: Tree) -> list[tuple[str, Any]]:
    """The leaves of `tree` in flattening order, as a list of (name, leaf).

    Raises:
        ValueError: two leaves have the same name, as in `{"a": {"b": ...}, "a/b": ...}`.

    Example:
        >>> named_leaves({"dense": {"bias": 0.0, "kernel": 1.0}})
        [('dense/bias', 0.0), ('dense/kernel', 1.0)]
    """
    flat, _ = flatten_with_paths(tree)
    names = check_unique([path for path, _ in flat])
    return [(name, leaf) for name, (_, leaf) in zip(names, flat, strict=True)]


def keys_by_name(tree: Tree) -> dict[str, tuple[str, ...]]:
    """A dict from the names of the leaves of `tree` to their keys (`path_keys`)."""
    paths = [path for path, _ in flatten_with_paths(tree)[0]]
    return dict(zip(check_unique(paths), map(path_keys, paths), strict=True))


def hidden_paths(tree: Tree) -> tuple[list[KeyPath], list[KeyPath]]:
    """Key paths of the places in `tree` without a leaf: those of None, and those that `optax.masked` hides."""

    def is_hidden(node):
        return node is None or isinstance(node, optax.MaskedNode)

    flat, _ = flatten_with_paths(tree, is_leaf=is_hidden)
    nones = [path for path, leaf in flat if leaf is None]
    masked = [path for path, leaf in flat if isinstance(leaf, optax.MaskedNode)]
    return nones, masked
