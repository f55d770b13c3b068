"""Names of leaves: the same '/'-joined key path in dict, linen, nnx and dataclass trees."""

import jax
import optax
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path


def path_name(path):
    """The '/'-joined key path of a leaf, such as `"conv/kernel"`; a bare array has the name `""`.

    A trailing attribute `value` is dropped: the variables of nnx and the boxes of linen put it there
    at `init`, but not at `update`. (No two leaves can get the same name by it: what has an attribute is no leaf.)
    """
    if path and isinstance(path[-1], GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return keystr(path, simple=True, separator="/")


def named_leaves(tree):
    """The leaves of `tree` in flattening order, as a list of (name, leaf)."""
    return [(path_name(path), leaf) for path, leaf in tree_flatten_with_path(tree)[0]]


def hidden_names(tree):
    """Names of the places in `tree` that hold no leaf: None, and what `optax.masked` hides from us."""

    def is_hidden(node):
        return node is None or isinstance(node, optax.MaskedNode)

    flat, _ = tree_flatten_with_path(tree, is_leaf=is_hidden)
    return [path_name(path) for path, leaf in flat if is_hidden(leaf)]


def map_named(function, tree, *rest):
    """`jax.tree.map` whose function also gets the leaf's name first; the trees are paired by leaves."""
    leaves, treedef = jax.tree.flatten(tree)
    names = [name for name, _ in named_leaves(tree)]
    others = [jax.tree.leaves(other) for other in rest]
    return treedef.unflatten([function(*args) for args in zip(names, leaves, *others, strict=True)])
