"""The benchmark of the nuclear norm's solvers runs, and its rows are what its table needs."""

import pytest

from benchmarks import nuclear


@pytest.mark.slow
def test_it_runs_once_and_then_reads_its_file(tmp_path):
    file = tmp_path / "rows.json"
    found = nuclear.main(["--small", "--json", str(file)])
    assert {row["method"] for row in found["recorded"]} == {"ramda", "prox_adamw"}
    assert all(0 <= row["median"] <= row["largest"] for row in found["recorded"])
    assert found["training"][0]["solver"] == "exact" and found["training"][0]["distance"] == 0
    # What the file has is not measured again.
    assert nuclear.main(["--small", "--json", str(file)]) == found
