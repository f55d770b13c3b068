import json

import pytest

from benchmarks.certificate import RANKS, main


@pytest.mark.slow
def test_the_command_runs_and_writes_what_it_prints(tmp_path, capsys):
    main(["--small", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    printed = capsys.readouterr().out
    assert {row["problem"] for row in rows["by_step"]} == {"logistic", "moving", *RANKS}
    assert all(row["problem"] in printed for row in rows["by_bound"])
    for row in rows["by_step"]:
        assert row["revived"] <= row["zero"]
        # More drift never makes a bound smaller.
        assert row["expected_by_bound_with_drift"] >= row["expected_by_bound"]
    # Groups with an informative bound, from the problem on which the premise is not made to fail.
    for problem in ("logistic", "low_rank", "low_rank_rmda"):
        said = [row for row in rows["by_bound"] if row["problem"] == problem and row["to"] < 1]
        assert said and all(row["revived"] <= row["mean_bound"] for row in said)
    assert all(name in printed for name in RANKS.values())


@pytest.mark.slow
def test_rows_of_problems_that_are_not_run_stay(tmp_path):
    path = tmp_path / "rows.json"
    other = {"problem": "other", "t": 1}
    path.write_text(json.dumps({"by_step": [other], "by_bound": [other]}))
    for _ in range(2):
        main(["--small", "--problems", "moving", "--json", str(path)])
    rows = json.loads(path.read_text())
    assert [row["problem"] for row in rows["by_step"]] == ["other", *["moving"] * 4]
    assert rows["by_bound"][0] == other
