"""Regularizers of coupled groups with the weights of a coupling."""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from ramda_jax.compaction.grouping.parts import COUPLED
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.regularizers.null import Null
from ramda_jax.regularizers.scaled import Scaled
from ramda_jax.structure.assignment import check_pattern


def weighing(regularizer: Regularizer | None, weights: np.ndarray) -> Regularizer | None:
    """A regularizer whose groups weigh these numbers `[size]`; the same object if it has weights of its own.

    Raises:
        ValueError: its groups have no weights.
    """
    if isinstance(regularizer, Scaled):
        inner = weighing(regularizer.regularizer, weights)
        assert inner is not None
        return regularizer if inner is regularizer.regularizer else dataclasses.replace(regularizer, regularizer=inner)
    if regularizer is None or isinstance(regularizer, Null) or not len(weights):
        return regularizer  # nothing is regularized, or nothing is left of the width
    if not isinstance(regularizer, GroupRegularizer):
        raise ValueError(
            f"A coupling with weights must be given regularizers of group norms, got {regularizer!r}, which would "
            "ignore them; use `GroupLasso(groups=0)`, or couple with `weight='size'`."
        )
    if regularizer.group_weight != "sqrt_size":
        return regularizer
    is_same = np.ptp(weights) == 0
    return dataclasses.replace(regularizer, group_weight=float(weights[0]) if is_same else weights[:, None])


def weighed_patterns(
    patterns: Mapping[str, Regularizer | None], weights: Mapping[str, np.ndarray], others: Iterable[str]
) -> dict[str, Regularizer | None]:
    """Patterns on packed paths whose regularizers have these weights, with a pattern for each width that gets weights.

    Args:
        patterns: maps patterns to regularizers; the first match wins.
        weights: maps widths to arrays `[size]`; empty if there are none.
        others: the packed paths of the leaves that are not coupled.
    """
    found, left, others = {}, dict(weights), list(others)
    for pattern, regularizer in patterns.items():
        check_pattern(pattern)
        own = [name for name in left if re.search(pattern, f"{COUPLED}/{name}")]
        weighed = {name: weighing(regularizer, left.pop(name)) for name in own}
        if all(one is regularizer for one in weighed.values()):
            found[pattern] = regularizer
            continue
        found |= {f"^{COUPLED}/{re.escape(name)}$": one for name, one in weighed.items()}
        if any(re.search(pattern, path) for path in others):
            found[pattern] = regularizer
    return found
