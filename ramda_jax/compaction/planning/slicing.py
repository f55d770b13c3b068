"""Turns whole trees into small ones and back: parameters, batch statistics, states of optimizers."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.planning.plan import LeafPlan, Plan
from ramda_jax.structure.paths import EMPTY_KEY, check_unique, flatten_with_paths, named_leaves


def compact(plan: Plan, tree: Any) -> Any:
    """The kept slices of a tree: of the variables, of a part of them, or of any state that is kept per parameter.

    A leaf belongs to a leaf of the plan if its path ends with that leaf's path: `0/mu/conv/kernel` of Adam's state
    belongs to `conv/kernel`, or to `params/conv/kernel`. It is sliced along each axis of the same length; axes of
    length 1, as in the radii of `ProximalPointState`, stay. Leaves that do not belong to a leaf of the plan, such as
    step counts, are unchanged.

    Args:
        plan: from `plan_compaction`.
        tree: a pytree of arrays, or of shapes and dtypes.

    Returns:
        A pytree of the same structure. It shares no array with `tree`.

    Raises:
        CompactionError: a leaf belongs to a leaf of the plan but has another shape, as in the factored state of
            Adafactor.
        ValueError: two leaves have one '/'-joined path.

    Example:
        >>> import jax.numpy as jnp
        >>> from ramda_jax.compaction import LeafPlan
        >>> plan = Plan({"kernel": LeafPlan((2, 3), (None, (0, 2)))}, (), {})
        >>> compact(plan, {"kernel": jnp.array([[1, 2, 3], [4, 5, 6]])})
        {'kernel': Array([[1, 3],
               [4, 6]], dtype=int32)}
    """

    def cut(leaf, leaf_plan, name):
        kept = _kept_axes(name, leaf_plan, leaf_plan.shape, np.shape(leaf))
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(tuple(map(len, kept)), leaf.dtype)
        return _like(leaf, reordered(leaf_plan, _entries(leaf))[np.ix_(*kept)])

    return _map(plan, cut, lambda leaf_plan: leaf_plan.shape, tree)


def expand(plan: Plan, small: Any, whole: Any = None) -> Any:
    """The inverse of `compact`: a tree of the whole shapes.

    Args:
        plan: the plan by which the tree was made small.
        small: a result of `compact`, or a tree of the same structure.
        whole: a tree of the whole shapes with values for the deleted entries; None for zeros.

    Returns:
        A pytree of the structure of `small`; `compact(plan, expand(plan, small)) == small`.

    Raises:
        CompactionError: a leaf belongs to a leaf of the plan but does not have its small shape; `whole` has other
            leaves or shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from ramda_jax.compaction import LeafPlan
        >>> plan = Plan({"kernel": LeafPlan((2, 3), (None, (0, 2)))}, (), {})
        >>> expand(plan, {"kernel": jnp.array([[1, 3], [4, 6]])})
        {'kernel': Array([[1, 0, 3],
               [4, 0, 6]], dtype=int32)}
    """

    def fill(leaf, leaf_plan, name, background=None):
        _kept_axes(name, leaf_plan, leaf_plan.small_shape, np.shape(leaf))
        if background is not None:
            _kept_axes(name, leaf_plan, leaf_plan.shape, np.shape(background))
            if any(n != 1 == size for n, size in zip(np.shape(leaf), np.shape(background), strict=True)):
                raise CompactionError(
                    f"'{name}' of `whole` must have more than one index along the axes where that of `small` has, got "
                    f"{np.shape(background)} and {np.shape(leaf)}; give the tree that was made small."
                )
        # An axis of length 1 is ambiguous if one index of several was kept: it may be this index, or one number per
        # group. `whole` decides; without it we assume an index.
        lengths = zip(np.shape(leaf), leaf_plan.small_shape, leaf_plan.shape, strict=True)
        shape = tuple(whole if n == small else 1 for n, small, whole in lengths)
        if background is not None:
            shape = np.shape(background)
        entries = _entries(leaf)
        if background is None:
            result = np.zeros((*shape, *entries.shape[len(shape) :]), entries.dtype)
        else:
            result = np.array(reordered(leaf_plan, _entries(background)))
        places = [
            range(n) if kept is None or shape[axis] == 1 else kept
            for axis, (n, kept) in enumerate(zip(np.shape(leaf), leaf_plan.kept, strict=True))
        ]
        result[np.ix_(*places)] = entries
        return _like(leaf, reordered(leaf_plan, result, back=True))

    if whole is not None:
        names, others = ([name for name, _ in named_leaves(tree)] for tree in (small, whole))
        if names != others:
            wrong = sorted(set(names) ^ set(others)) or names
            raise CompactionError(
                f"`whole` must have the leaves of `small`, in their order, but differs in {wrong}; give the tree that "
                "was made small."
            )
    return _map(plan, fill, lambda leaf_plan: leaf_plan.small_shape, small, *(() if whole is None else (whole,)))


def reordered(leaf_plan: LeafPlan, array: np.ndarray, back: bool = False) -> np.ndarray:
    """An array of the whole shape with each layer's units in the plan's order, or with `back` in their original order.

    An array with a single number for all layers, or for all units, such as one per group, is unchanged.
    """
    for order in leaf_plan.orders:
        if any(array.shape[axis] != leaf_plan.shape[axis] for axis in (order.axis, *order.by)):
            continue
        indices = np.asarray(order.indices)
        indices = np.argsort(indices, -1) if back else indices
        # `by` is sorted, and so are the axes of `indices` except for the last.
        indices = np.moveaxis(indices, -1, sum(axis < order.axis for axis in order.by))
        axes = sorted((order.axis, *order.by))
        shape = [array.shape[axis] if axis in axes else 1 for axis in range(array.ndim)]
        array = np.take_along_axis(array, indices.reshape(shape), order.axis)
    return array


def find_leaves(plan: Plan, names: Sequence[str]) -> dict[str, str | None]:
    """A dict from the names of a tree's leaves to the paths in the plan that they belong to, or None.

    A leaf may belong to a path of the plan if its name ends with that path. Of several such paths, the right one leaves
    a prefix that most of the tree's leaves have. So Adam's `0/mu/kernel` belongs to `kernel`, even if there is also a
    leaf `mu/kernel`. Where the plan is that of a single array, which has no name, every leaf may belong to it.
    """
    is_array = plan.leaves.keys() == {""}

    @functools.cache
    def lookup(suffix):
        if suffix == EMPTY_KEY and suffix not in plan.leaves:
            suffix = ""
        if suffix in plan.leaves:
            return (suffix,)
        # The plan's path may begin with a collection, such as `params`, that the name lacks.
        longer = [path for path in plan.leaves if path.endswith("/" + suffix)]
        least = min((path.count("/") for path in longer), default=0)
        return tuple(path for path in longer if path.count("/") == least)

    @functools.cache
    def held_by(prefix):
        return sum(len(lookup(name[len(prefix) :])) == 1 for name in names if name.startswith(prefix))

    result = {}
    for name in names:
        starts = [0, *(place + 1 for place, character in enumerate(name) if character == "/")]
        starts += [len(name)] * is_array
        candidates = [start for start in starts if lookup(name[start:])]
        # If several are equal, `max` takes the first, which has the longest path.
        start = max(candidates, key=lambda start: held_by(name[:start]), default=None)
        found = () if start is None else lookup(name[start:])
        if len(found) > 1:
            raise CompactionError(
                f"The leaf '{name}' must belong to one leaf of the plan, but may to any of {sorted(found)}; give the "
                "whole tree that was planned."
            )
        result[name] = found[0] if found else None
    return result


def _map(plan, function, shape_of, tree, *others):
    """Applies `function` to the leaves that belong to a leaf of the plan; `shape_of` gives the shape they must have.

    A single number for a whole leaf is unchanged, unless the leaf itself is a single number.
    """
    flat, treedef = flatten_with_paths(tree)
    rest = [jax.tree.leaves(other) for other in others]
    names = check_unique([key_path for key_path, _ in flat])
    homes = find_leaves(plan, [name for name, (_, leaf) in zip(names, flat, strict=True) if np.ndim(leaf)])
    result = []
    for number, (name, (_, leaf)) in enumerate(zip(names, flat, strict=True)):
        path = homes.get(name)
        wanted = None if path is None else shape_of(plan.leaves[path])
        is_number = np.size(leaf) == 1 and np.shape(leaf) != wanted
        # If the plan is that of a single array, only the shape tells its state, such as `0/mu`, from other arrays.
        is_other = path == "" and name not in ("", EMPTY_KEY) and not _fits(wanted, np.shape(leaf))
        if path is None or is_other or (is_number and np.prod(plan.leaves[path].shape) > 1):
            result.append(jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf)
            continue
        result.append(function(leaf, plan.leaves[path], name, *(leaves[number] for leaves in rest)))
    return treedef.unflatten(result)


def _fits(shape, found):
    return len(found) == len(shape) and all(n in (1, size) for n, size in zip(found, shape, strict=True))


def _kept_axes(name, leaf_plan, shape, found):
    """The indices to keep along each axis of an array whose lengths are those of `shape`, or 1."""
    if not _fits(shape, found):
        raise CompactionError(
            f"'{name}' must have the shape {shape} of the leaf of the plan that it belongs to, or 1 along some axes, "
            f"got {tuple(found)}; give the tree that the plan is of, or start with a fresh state where it is not kept "
            "entry by entry."
        )
    return [
        range(n) if kept is None or (n == 1 and size != 1) else kept
        for n, size, kept in zip(found, shape, leaf_plan.kept, strict=True)
    ]


def _is_key(leaf):
    return jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)


def _entries(leaf):
    """A leaf as a NumPy array. PRNG keys become their numbers, along an additional axis."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(leaf, array):
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    # With its dtype named, JAX takes the array over, which must be a fresh one: a view of the leaf would share its
    # buffer. Without, JAX compiles a program that copies the array, one for each shape.
    return jnp.asarray(array, array.dtype) if isinstance(leaf, jax.Array) else array
