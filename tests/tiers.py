"""The cases of a test that `make test` runs. `make test-slow` runs the other cases.

`@pytest.mark.covering` keeps enough cases to have every value of every parameter once, about 33 of 66 regularizers
times two dtypes. `@pytest.mark.slow_except("scan", "vmap")` keeps the cases with these ids.
"""

import collections

import pytest

SLOW = pytest.mark.slow(reason="another case of this test runs in `make test`")


def cover(ids):
    """A few of `ids`, which are names of values joined by hyphens, that together have each value at each place."""
    values = [set(enumerate(name.split("-"))) for name in ids]
    missing, chosen = set().union(*values), []
    while missing:
        best = max(range(len(ids)), key=lambda number: (len(values[number] & missing), -number))
        chosen.append(ids[best])
        missing -= values[best]
    return chosen


def mark_slow_cases(items):
    """Marks the slow cases. Every worker of a run chooses the same cases."""
    covering = collections.defaultdict(list)
    for item in items:
        if item.get_closest_marker("covering") and hasattr(item, "callspec"):
            covering[item.nodeid.partition("[")[0]].append(item)
        if (kept := item.get_closest_marker("slow_except")) and item.callspec.id not in kept.args:
            item.add_marker(SLOW)
    for cases in covering.values():
        kept = cover([item.callspec.id for item in cases])
        for item in cases:
            if item.callspec.id not in kept:
                item.add_marker(SLOW)
