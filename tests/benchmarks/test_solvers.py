import json

import pytest

from benchmarks.solvers import EXACT, main


@pytest.mark.slow
def test_the_command_runs_and_writes_what_it_prints(tmp_path, capsys):
    main(["--small", "--steps", "4", "--json", str(tmp_path / "rows.json"), "--png", str(tmp_path / "figure.png")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    printed = capsys.readouterr().out
    assert {row["study"] for row in rows} == {"solvers", "rate", "training"}
    assert all(row["solver"] in printed for row in rows if "solver" in row)
    assert (tmp_path / "figure.png").stat().st_size > 0

    exact = [row for row in rows if row["study"] == "solvers" and row["solver"] == EXACT]
    for row in exact:
        assert row["ratio"] == 1
        # The reference knows nothing of the library's solvers; float32 here, rounding of rhs included.
        assert row["largest_error"] < 1e-4
        assert row["zeros_missed"] == row["zeros_false"] == 0
