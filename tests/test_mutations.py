"""The catalogue of faults fits the sources. `make mutations` runs the tests on every fault, which takes long."""

import pytest

from tests import mutations

ROOT = mutations.ROOT


def test_every_fault_is_one_change_of_a_source_and_names_tests_that_there_are():
    for mutation in mutations.MUTATIONS:
        mutations.mutated(mutation, ROOT)
        for test in mutation.tests:
            file, *name = test.split("[")[0].split("::")
            path = ROOT / file
            assert path.exists(), test
            assert not name or f"def {name[-1]}(" in path.read_text(), test


def test_a_text_that_the_source_does_not_have_is_refused():
    stale = mutations.Mutation("probe.py", "no such line", "another", ("tests/test_tables.py",))
    with pytest.raises(mutations.BrokenCatalogue, match="must occur exactly once, but this one occurs 0 times"):
        mutations.mutated(stale, ROOT)
