"""Which leaf gets which regularizer: alone, by path patterns, or by a tree."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.null import Null
from ramda_jax.structure.alone import is_selected_alone
from ramda_jax.structure.packing import packed
from ramda_jax.structure.paths import check_unique, flatten_with_paths, hidden_paths, path_keys, path_name
from ramda_jax.typing import RegularizerSpec, Tree
from ramda_jax.validation import check_arrays


class _Place(NamedTuple):
    """The place of a leaf: its name, and the keys of which the name consists."""

    name: str
    keys: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One entry of an assignment: `regularizer` (or None, psi = 0) for what `key` names.

    Attributes:
        key: a pattern for `re.search` on the leaf's name, or the name of the path of a leaf or a subtree.
        regularizer: a `Regularizer` or None.
        keys: None for a pattern. Otherwise the path from a tree, which is taken literally, key by key. (Joined by '/',
            a key that contains '/' would also match leaves elsewhere.)
    """

    key: str
    regularizer: Regularizer | None
    keys: tuple[str, ...] | None = None

    @property
    def is_pattern(self) -> bool:
        return self.keys is None

    def covers_subtree(self, place: _Place) -> bool:
        """Whether this is the path of a subtree that a leaf lies in."""
        return self.keys is not None and place.keys[: len(self.keys)] == self.keys != place.keys

    def matches(self, place: _Place) -> bool:
        if self.keys is None:
            return re.search(self.key, place.name) is not None
        return place.keys[: len(self.keys)] == self.keys


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A user's specification of regularizers, in a form that is hashable and independent of the parameters.

    Attributes:
        alone: the regularizer given alone, or None.
        rules: the ordered rules of a mapping or tree; empty if a regularizer was given alone.
        remedy: the remedy in the error for a rule that matches nothing.
    """

    alone: Regularizer | None = None
    rules: tuple[Rule, ...] = ()
    remedy: str = dataclasses.field(default="fix the pattern or remove it.", compare=False)

    @property
    def regularizers(self) -> tuple[Regularizer, ...]:
        """All regularizers of the specification, without None."""
        named = (self.alone, *(rule.regularizer for rule in self.rules))
        return tuple(regularizer for regularizer in named if regularizer is not None)


def assignment(regularizer: "RegularizerSpec | Assignment") -> Assignment:
    """Turns a user's specification into an `Assignment`.

    Args:
        regularizer: one of
            None: psi = 0 everywhere;
            a `Regularizer`: alone, for every leaf that `is_selected_alone`;
            a flat, ordered mapping: its keys are patterns (`re.search` on the '/'-joined key path, first match wins),
            its values a `Regularizer` or None;
            any other pytree of the parameters' structure, or a prefix of it, with a `Regularizer` or None at its
            leaves, whose places are paths. A regularizer at the place of a subtree takes the leaves in it that it would
            take alone.

    Raises:
        TypeError: an entry is neither a regularizer nor None.
        ValueError: a pattern is not a regular expression; two paths of a tree have the same name.

    Example:
        >>> import ramda_jax
        >>> [rule.key for rule in assignment({"conv.*/kernel": ramda_jax.GroupLasso(), "dense": None}).rules]
        ['conv.*/kernel', 'dense']
    """
    if isinstance(regularizer, Assignment):
        return regularizer
    if regularizer is None or isinstance(regularizer, Regularizer):
        return Assignment(alone=None if isinstance(regularizer, Null) else regularizer)

    def is_value(node):
        return node is None or isinstance(node, (Regularizer, optax.MaskedNode))

    if (
        isinstance(regularizer, Mapping)
        and all(isinstance(key, str) for key in regularizer)
        and all(map(is_value, regularizer.values()))
    ):
        for key in regularizer:
            check_pattern(key)
        rules = tuple(Rule(key, value) for key, value in regularizer.items() if not isinstance(value, optax.MaskedNode))
        return Assignment(rules=rules, remedy=getattr(regularizer, "remedy", Assignment.remedy))
    flat, _ = flatten_with_paths(regularizer, is_leaf=is_value)
    for path, value in flat:
        if not is_value(value):
            raise TypeError(
                f"A regularizer must be a `Regularizer` or None, got {value!r} at '{path_name(path)}'; use for "
                "example `GroupLasso()`, a mapping of path patterns, or a tree of these."
            )
    names = check_unique([path for path, _ in flat])
    return Assignment(
        rules=tuple(
            Rule(name, value, path_keys(path))
            for name, (path, value) in zip(names, flat, strict=True)
            if not isinstance(value, optax.MaskedNode)
        )
    )


def check_pattern(pattern: Any) -> None:
    """Raises a ValueError unless a key of a flat mapping is a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"A pattern must be a regular expression, got {pattern!r} ({error}); escape it by `re.escape`."
        ) from None


def assign(spec: RegularizerSpec | Assignment, params: Tree) -> list[tuple[str, Any, Regularizer | None]]:
    """Decides, from paths and shapes alone, which regularizer each leaf of `params` gets.

    Args:
        spec: an `Assignment`, or anything `assignment` takes.
        params: a pytree of arrays (or anything with a shape).

    Returns:
        A list of (name, leaf, regularizer) in flattening order. The regularizer is resolved for its leaf (groups as
        axes), or None for psi = 0. If the specification is for the parameters in another order, such as that of
        `compaction.Coupling.regularizer`, the leaves are in that order.

    Raises:
        ValueError: a pattern or path matches nothing; a regularizer alone selects nothing although some leaf
            has two axes or more; a regularizer does not fit its leaf; two leaves have the same name.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))}
        >>> [(path, found) for path, _, found in assign(ramda_jax.L1(), params)]
        [('bias', None), ('kernel', L1(factor=1.0, non_negative=False))]
    """
    params = packed(spec, params)
    spec = assignment(spec)
    flat, _ = flatten_with_paths(params)
    paths = [path for path, _ in flat]
    leaves = [(name, leaf) for name, (_, leaf) in zip(check_unique(paths), flat, strict=True)]
    check_arrays("Parameters", leaves)
    if not spec.rules:
        result = [
            (path, leaf, _resolve(spec.alone, path, leaf) if is_selected_alone(path, leaf.ndim) else None)
            for path, leaf in leaves
        ]
        selected_nothing = all(regularizer is None for *_, regularizer in result)
        if spec.alone is not None and selected_nothing and any(leaf.ndim >= 2 for _, leaf in leaves):
            raise ValueError(
                f"{spec.alone!r} given alone selects no leaf: it takes leaves of two axes or more whose last key is "
                "not that of a bias, a scale, an embedding, a table or tokens. The paths are "
                f"{[path for path, _ in leaves]}; name what to regularize by a mapping of patterns."
            )
        return result

    used = set()
    result = []
    places = [_Place(name, path_keys(path)) for path, (name, _) in zip(paths, leaves, strict=True)]
    for place, (path, leaf) in zip(places, leaves, strict=True):
        regularizer = None
        for number, rule in enumerate(spec.rules):
            if rule.matches(place):
                used.add(number)
                if not rule.covers_subtree(place) or is_selected_alone(path, leaf.ndim):
                    regularizer = rule.regularizer
                break
        result.append((path, leaf, _resolve(regularizer, path, leaf)))
    hidden, masked = hidden_paths(params)
    places += [_Place(path_name(path), path_keys(path)) for path in hidden]
    # No check on a tree without leaves: `optax.tree.map_params` calls `init` with one. And none if `optax.masked` or
    # `partition` hide subtrees: the pattern may match in these.
    if leaves and not masked:
        for number, rule in enumerate(spec.rules):
            known = number in used or any(map(rule.matches, places))
            if known or (rule.regularizer is None and not rule.is_pattern):
                continue
            raise ValueError(
                f"The {'pattern' if rule.is_pattern else 'path'} {rule.key!r} matches no leaf. The paths are "
                f"{[path for path, _ in leaves]}; {spec.remedy}"
            )
    return result


def regularized_leaves(spec: RegularizerSpec | Assignment, params: Tree) -> list[tuple[str, Any, Regularizer]]:
    """The part of the result of `assign` for the leaves that get a regularizer.

    Args, raises: as `assign`.

    Returns:
        A list of (name, leaf, regularizer), the regularizer resolved for its leaf.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> params = {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))}
        >>> [(path, found) for path, _, found in regularized_leaves(ramda_jax.L1(), params)]
        [('kernel', L1(factor=1.0, non_negative=False))]
    """
    found = [(path, leaf, regularizer) for path, leaf, regularizer in assign(spec, params) if regularizer is not None]
    for path, leaf, _ in found:
        if not jnp.issubdtype(leaf.dtype, jnp.number) or jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise TypeError(
                f"A leaf with a regularizer must be an array of real numbers, got {leaf.dtype} at '{path}'; leave it "
                "out by a narrower pattern."
            )
    return found


def _resolve(regularizer: Regularizer | None, path: str, leaf: Any) -> Regularizer | None:
    if regularizer is None or isinstance(regularizer, Null):
        return None
    return regularizer.resolve(path, tuple(leaf.shape))
