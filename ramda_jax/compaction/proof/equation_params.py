"""Parameters of equations in two traces: all must be equal, except for those that follow from sizes."""

import dataclasses
import sys
from collections.abc import Callable

import jax
import numpy as np

from ramda_jax.compaction.tracing.program import Visit
from ramda_jax.compaction.tracing.rules import Rule


def difference(visit: Visit, small: Visit, masks: Callable[[np.ndarray], np.ndarray], rule: Rule | None) -> str:
    """What differs in the parameters of two equations of one primitive, on all and on the kept indices; "" if nothing.

    `rule` is the primitive's rule, None if it has no rule.
    """
    ours, theirs = visit.equation.params, small.equation.params
    if ours.keys() != theirs.keys():
        return f"has other parameters in the small model: {sorted(ours.keys() ^ theirs.keys())}"
    for key in ours.keys() - (rule.size_params if rule else set()):
        if not _is_same(ours[key], theirs[key]):
            return f"has {key}={theirs[key]} in the small model, not {ours[key]}"
    return rule.check(visit, small, masks) if rule and rule.check else ""


def _is_same(ours, theirs):
    # Bodies are compared where they are walked. Functions, such as the rule of a custom derivative, do not matter.
    if hasattr(ours, "eqns") or hasattr(ours, "jaxpr") or (callable(ours) and not isinstance(ours, type)):
        return True
    if isinstance(ours, (tuple, list)):
        is_like = isinstance(theirs, (tuple, list)) and len(ours) == len(theirs)
        return is_like and all(_is_same(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(ours, dict):
        is_like = isinstance(theirs, dict) and ours.keys() == theirs.keys()
        return is_like and all(_is_same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (np.ndarray, jax.Array)):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        return ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    if dataclasses.is_dataclass(ours) and type(ours) is type(theirs):
        names = [field.name for field in dataclasses.fields(ours)]
        return all(_is_same(getattr(ours, name), getattr(theirs, name)) for name in names)
    if bool(ours == theirs):
        return True
    # Objects that are compared by identity have the same text if they are the same. The text of long arrays must not be
    # cut.
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        return type(ours) is type(theirs) and str(ours) == str(theirs)
