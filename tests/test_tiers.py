"""The cases that `make test` leaves to the slow tests: each of their values must be in another case."""

import itertools
import types

import pytest

from tests.tiers import cover, mark_slow_cases

PAIRS = ["-".join(pair) for pair in itertools.product(["newton", "gradient", "closed form"], ["float32", "float64"])]


@pytest.mark.parametrize(("ids", "count"), [(PAIRS, 3), (["alone"], 1), (["a-b", "a", "b-a"], 2)])
def test_a_cover_has_each_value_at_each_place(ids, count):
    def values(names):
        return {value for name in names for value in enumerate(name.split("-"))}

    chosen = cover(ids)
    assert set(chosen) <= set(ids) and values(chosen) == values(ids)
    assert len(chosen) == count


class Case:
    """The part of pytest's items that `mark_slow_cases` uses."""

    def __init__(self, name, case, mark):
        self.nodeid, self.callspec = f"{name}[{case}]", types.SimpleNamespace(id=case)
        self.marks = [mark.mark]

    def get_closest_marker(self, name):
        return next((mark for mark in self.marks if mark.name == name), None)

    def add_marker(self, mark):
        self.marks.append(mark.mark)

    @property
    def is_slow(self):
        return self.get_closest_marker("slow") is not None


def test_cases_are_chosen_test_by_test():
    covering, named = pytest.mark.covering, pytest.mark.slow_except("scan", "vmap")
    cases = [Case(name, case, covering) for name in ("one", "two") for case in ("a-x", "a-y", "b-x", "b-y")]
    cases += [Case("three", case, named) for case in ("scan", "loop", "vmap")]
    cases.append(Case("four", "a", pytest.mark.filterwarnings("error")))
    mark_slow_cases(cases)
    assert [case.nodeid for case in cases if case.is_slow] == [
        "one[a-y]",
        "one[b-x]",
        "two[a-y]",
        "two[b-x]",
        "three[loop]",
    ]
