"""The decoder's table in docs/results.md comes from its rows, and the text agrees with them."""

import json
from pathlib import Path

from examples import decoder

DOCS = Path(__file__).parents[2] / "docs"
ROWS = json.loads((DOCS / "decoder.json").read_text())


def test_the_table_is_that_of_the_rows():
    assert decoder.table(ROWS) in (DOCS / "results.md").read_text()


def test_rows_are_a_dense_model_and_smaller_ones_of_about_the_sizes_asked_for():
    dense, *small = ROWS
    assert dense["keep"] is None and len(small) >= 2
    for row in small:
        assert abs(row["params"] / dense["params"] - row["keep"]) < 0.005
        assert row["flops_per_token"] < dense["flops_per_token"] and row["bits_per_character"] < 4
