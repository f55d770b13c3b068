"""The strength of each leaf's psi: that of all leaves, or that of the first pattern that the leaf's path matches."""

import re
from collections.abc import Sequence

#: The pattern of a strength that is given for all leaves.
ALL: str | None = None


def pattern_for(patterns: Sequence[str | None], path: str) -> str | None:
    """The first pattern that a leaf's path matches.

    Raises:
        ValueError: no pattern matches.
    """
    for pattern in patterns:
        if pattern is None or re.search(pattern, path):
            return pattern
    raise ValueError(
        f"Every regularized leaf must have a strength, but no pattern of {list(patterns)} matches '{path}'; add one, "
        "such as '' for all that is left."
    )


def check_patterns_used(patterns: Sequence[str | None], paths: Sequence[str]) -> None:
    """Raises a ValueError if a pattern is not the first match of any regularized leaf, or if a leaf matches none."""
    used = {pattern_for(patterns, path) for path in paths}
    for pattern in patterns if paths else ():
        if pattern not in used:
            raise ValueError(
                f"The strengths' pattern {pattern!r} is the first match of no regularized leaf. These are "
                f"{list(paths)}; fix the pattern, remove it, or put it before a wider one."
            )
