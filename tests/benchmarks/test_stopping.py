"""The trainings with each solver of the subproblem: four rows for a net and a method, and tables with the paper's."""

import json
from pathlib import Path

import pytest

from benchmarks import stopping
from tests.examples import realdata

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_the_tables_of_the_rows():
    assert stopping.table(json.loads((DOCS / "stopping.json").read_text())) in (DOCS / "results.md").read_text()


def test_the_table_has_the_papers_rows_after_ours():
    row = {"net": "mlp", "steps": 5, "method": "ramda", "solver": "exact (default)", "accuracy": 0.81234}
    row |= {"W": 0.5, "W_hat": 0.625, "seconds_per_epoch": 12.34}
    ours, paper = stopping.table([row]).split("\n\n")
    cells = [cell.strip() for cell in ours.splitlines()[-1].split("|")[1:-1]]
    assert cells == ["mlp, 5", "ramda", "exact (default)", "81.23", "50.00 / 62.50", "12.3"]
    assert len(paper.splitlines()) == 2 + len(stopping.PAPER)


@pytest.mark.slow
def test_a_net_is_trained_with_each_solver_and_only_once(tmp_path, capsys):
    data, file = realdata.write_mnist(tmp_path), tmp_path / "rows.json"
    arguments = ["--mnist", str(data), "--nets", "lenet5_small", "--methods", "ramda", "--json", str(file)]
    rows = stopping.main([*arguments, "--steps", "10"])
    assert [row["solver"] for row in rows] == list(stopping.SOLVERS) and rows == json.loads(file.read_text())
    # The batches are the same, and the solvers differ by what they leave unsolved.
    assert max(row["accuracy"] for row in rows) - min(row["accuracy"] for row in rows) <= 0.1
    assert all(row["steps"] == 10 and row["seconds_per_epoch"] > 0 for row in rows)
    # What is in the file is printed and not run again: the folder is not looked at.
    assert stopping.main([*arguments[:1], "nowhere", *arguments[2:]]) == rows
    assert "exact (default)" in capsys.readouterr().out
