"""The table of docs/tuning.md on the nuclear norm is that of the rows, and says what the text says."""

import json
from pathlib import Path

from benchmarks import nuclear

DOCS = Path(__file__).parents[2] / "docs"
FOUND = json.loads((DOCS / "nuclear.json").read_text())


def test_the_table_is_that_of_the_rows():
    assert nuclear.markdown(FOUND) in (DOCS / "tuning.md").read_text()


def test_the_default_is_closer_after_as_many_decompositions():
    for study, field, factor in (("golden", "deviation", 4), ("recorded", "median", 1), ("training", "distance", 3)):
        for method in ("ramda", "prox_adamw"):
            of = {row["solver"]: row[field] for row in FOUND[study] if row["method"] == method}
            assert of["default, 5"] < of[f"{nuclear.RELEASED}, 5"] / factor
