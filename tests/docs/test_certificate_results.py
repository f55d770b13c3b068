"""The nuclear norm's table of docs/certificate.md is that of the rows, and says what the text says."""

import json
from pathlib import Path

from benchmarks import certificate

DOCS = Path(__file__).parents[2] / "docs"
FOUND = json.loads((DOCS / "certificate.json").read_text())


def test_the_table_of_ranks_is_that_of_the_rows():
    assert certificate.markdown(FOUND["by_step"]) in (DOCS / "certificate.md").read_text()


def test_no_class_of_bounds_was_exceeded_where_the_premise_holds():
    said = [row for row in FOUND["by_bound"] if "moving" not in row["problem"] and row["to"] < 1]
    assert {row["problem"] for row in said} == {"logistic", "conv_net", "low_rank", "low_rank_rmda"}
    assert all(row["revived"] <= row["above"] for row in said if row["above"] > 0)
    for problem, number in (("low_rank", 220), ("low_rank_rmda", 240)):
        rows = [row for row in said if (row["problem"], row["kind"]) == (problem, "bound")]
        assert sum(row["groups"] for row in rows) == number
        assert not any(row["revived"] for row in rows)


def test_the_ranks_that_will_grow_are_flagged_once_the_mean_has_moved():
    rows = {row["t"]: row for row in FOUND["by_step"] if row["problem"] == "moving_rank"}
    assert all(row["revived"] == 2 for row in rows.values())
    assert rows[1000]["expected_by_bound"] < 1 and rows[1000]["drifting"] == 0
    assert rows[2000]["expected_by_bound"] < 1 < 2 <= rows[2000]["expected_by_bound_with_drift"]
    assert rows[2000]["revived_and_drifting"] == 2
