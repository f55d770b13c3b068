import json

import pytest

from benchmarks.certificate import main


@pytest.mark.slow
def test_the_command_runs_and_writes_what_it_prints(tmp_path, capsys):
    main(["--small", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    printed = capsys.readouterr().out
    assert {row["problem"] for row in rows["by_step"]} == {"logistic", "moving"}
    assert all(row["problem"] in printed for row in rows["by_bound"])
    for row in rows["by_step"]:
        assert row["revived"] <= row["zero"]
        # More drift never makes a bound smaller.
        assert row["expected_by_bound_with_drift"] >= row["expected_by_bound"]
    # Groups with an informative bound, from the problem on which the premise is not made to fail.
    said = [row for row in rows["by_bound"] if row["problem"] == "logistic" and row["to"] < 1]
    assert said and all(row["revived"] <= row["mean_bound"] for row in said)
