import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.zoo import check, tables
from benchmarks.zoo.__main__ import FEW, check_all, main
from benchmarks.zoo.elsewhere import another_process
from benchmarks.zoo.entries import ENTRIES, FAMILIES
from benchmarks.zoo.entry import left, units

ROOT = Path(__file__).parents[2]
STORED = json.loads((ROOT / "docs" / "zoo.json").read_text())
OUTCOMES = {row["name"]: row["outcome"] for row in STORED if row["study"] == "zoo"}
WITH_MAXIMA = "pairs and sets"


def test_dead_units_are_where_they_are_said_to_be():
    leaves = {"a": np.ones((3, 4, 12)), "b": np.ones((3, 5))}
    # Each of 5 units is two adjacent indices of "a", with other indices before and after them. Each of the 3 layers has
    # different dead units.
    units(5, ("a", 2, 2, 1, 11), ("b", 1), layers=3).kill(leaves, np.random.default_rng(0))
    dead = leaves["b"] == 0
    assert dead.sum(axis=1).tolist() == [5 - left(5)] * 3 == [2] * 3 and len(np.unique(dead, axis=0)) > 1
    assert (leaves["a"][:, :, [0, 11]] == 1).all()
    np.testing.assert_array_equal(leaves["a"][:, 0, 1:11] == 0, np.repeat(dead, 2, axis=1))
    np.testing.assert_array_equal(leaves["a"].any(axis=1), leaves["a"].all(axis=1))


def test_the_few_architectures_are_one_of_each_library_and_go_to_the_least():
    assert {ENTRIES[name][1].library for name in FEW} == {"nnx", "linen", "Equinox", "function"}
    assert {OUTCOMES[name] for name in FEW} == {check.LEAST}


@pytest.fixture(scope="module")
def elsewhere():
    """Another process that rebuilds the small models, for all families."""
    with another_process() as errors:
        yield errors


def check_family(family, folder, elsewhere):
    rows = check_all(list(FAMILIES[family]), folder, elsewhere)
    assert [row["wrong"] for row in rows] == [""] * len(rows)
    assert {row["name"]: row["outcome"] for row in rows} == {name: OUTCOMES[name] for name in FAMILIES[family]}
    for row in rows:
        if row["name"] in FEW:
            # The small model was compared with the whole one.
            assert 0 <= row["error"] <= 1e-6 and 0 <= row["elsewhere"] <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != WITH_MAXIMA])
def test_a_family_comes_to_what_the_page_says(family, tmp_path, elsewhere):
    check_family(family, tmp_path, elsewhere)


# This test is slow, because only the slow tests compile as users do. With little optimisation XLA computes a maximum
# twice, with different bits, and loses parts of its gradient (PointNet), in the whole and in the small model.
@pytest.mark.slow
def test_the_family_with_maxima_comes_to_what_the_page_says(tmp_path, elsewhere):
    check_family(WITH_MAXIMA, tmp_path, elsewhere)


@pytest.mark.slow
def test_the_command_measures_times_and_writes_what_it_prints(tmp_path, capsys):
    rows = main(["--times", "--small", "--json", str(tmp_path / "rows.json")])
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    assert [row["refused"] for row in rows] == [2, 2, None]
    assert all(row["name"] in capsys.readouterr().out for row in rows[:1])


def changed(small, factor):
    """The same compaction with other small variables."""
    variables = jax.tree.map(lambda leaf: factor * leaf, small.variables)
    return dataclasses.replace(small, variables=variables)


@pytest.mark.parametrize(
    ("changes", "factor", "wrong"),
    [
        ({}, 1.01, "outputs differ by"),
        ({}, np.nan, "outputs differ by nan"),
        ({"expert": {"hidden": (7, 9)}}, 1, "123 entries are left, fewer than the least by hand"),
        ({"expert": {"hidden": (5, 9)}}, 1, "not to the least, for another reason than the one expected"),
        ({"inputs": lambda rng, batch: (np.zeros((batch, 6)),)}, 1, "outputs are the same for all inputs"),
    ],
)
def test_what_is_wrong_is_found(changes, factor, wrong, tmp_path, monkeypatch):
    def compact_model(*args, **settings):
        return changed(check_compact_model(*args, num_random=0, **settings), factor)

    check_compact_model = check.compact_model
    monkeypatch.setattr(check, "compact_model", compact_model)
    entry = dataclasses.replace(ENTRIES["MLP, plain"][1], **changes)
    row = check.check_entry("dense nets", "MLP, plain", entry, tmp_path / "one")
    assert wrong in row.wrong and row.outcome == check.WRONG


def test_the_page_has_what_the_command_has_found():
    page = (ROOT / "docs" / "zoo.md").read_text()
    zoo, times = ([row for row in STORED if row["study"] == study] for study in ("zoo", "time"))
    assert [row["name"] for row in zoo] == list(ENTRIES)
    assert f"# The zoo: what compaction leaves of {len(ENTRIES)} architectures" in page
    for table in (tables.by_family(zoo), tables.by_architecture(zoo), tables.by_time(times)):
        assert tables.markdown(*table) in page
    outcomes = list(OUTCOMES.values())
    assert outcomes.count("wrong") == 0 and outcomes.count("compacts to the least") >= 0.9 * len(outcomes)
    # The page explains each architecture that keeps more than the least.
    assert all(f"**{row['name']}**" in page for row in zoo if row["left"] > row["least"])
