"""The tables of docs/beyond.md are those of the rows beside it."""

import json
from pathlib import Path

import pytest

from benchmarks.beyond import report

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "beyond.md").read_text()
ROWS = json.loads((DOCS / "beyond.json").read_text())


@pytest.mark.parametrize("study", ROWS)
def test_the_tables_are_those_of_the_rows(study):
    for table in getattr(report, study)(ROWS[study]).split("\n\n"):
        assert table.count("\n") > 2 and table in PAGE
