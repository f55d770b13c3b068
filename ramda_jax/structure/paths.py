"""Names of leaves: the same '/'-joined key path in dict, linen, nnx and dataclass trees."""

import optax
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path


def path_name(path):
    """The '/'-joined key path of a leaf, such as `"conv/kernel"`; a bare array has the name `""`.

    A trailing attribute `value` is dropped: the variables of nnx and the boxes of linen put it there
    at `init`, but not at `update`. (No two leaves can get the same name by it: what has an attribute is no leaf.)

    Args:
        path: a key path as `jax.tree_util` has them.

    Example:
        >>> from jax.tree_util import DictKey
        >>> path_name((DictKey("conv"), DictKey("kernel")))
        'conv/kernel'
    """
    if path and isinstance(path[-1], GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return keystr(path, simple=True, separator="/")


def named_leaves(tree):
    """The leaves of `tree` in flattening order, as a list of (name, leaf).

    Example:
        >>> named_leaves({"dense": {"bias": 0.0, "kernel": 1.0}})
        [('dense/bias', 0.0), ('dense/kernel', 1.0)]
    """
    return [(path_name(path), leaf) for path, leaf in tree_flatten_with_path(tree)[0]]


def hidden_names(tree):
    """Names of the places in `tree` that hold no leaf: those of None, and those that `optax.masked` hides."""

    def is_hidden(node):
        return node is None or isinstance(node, optax.MaskedNode)

    flat, _ = tree_flatten_with_path(tree, is_leaf=is_hidden)
    nones = [path_name(path) for path, leaf in flat if leaf is None]
    masked = [path_name(path) for path, leaf in flat if isinstance(leaf, optax.MaskedNode)]
    return nones, masked
