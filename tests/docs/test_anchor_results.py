"""The table of docs/scale.md on the anchor's dtype is that of the rows, and says what the text says."""

import json
from pathlib import Path

from benchmarks import anchors

DOCS = Path(__file__).parents[2] / "docs"
ROWS = json.loads((DOCS / "anchors.json").read_text())


def of(net, kind, field):
    return [row[field] for row in ROWS if (row["net"], row["anchor"]) == (net, kind)]


def test_the_table_is_that_of_the_rows():
    assert anchors.markdown(ROWS) in (DOCS / "scale.md").read_text()


def test_rounding_the_anchor_does_no_more_to_a_net_than_a_last_bit():
    for net in ("mlp", "conv"):
        rounded, bit = (max(map(max, of(net, kind, "distances"))) for kind in (anchors.BFLOAT16, anchors.LAST_BIT))
        assert rounded < 1.6 * bit
        accuracies = [of(net, kind, "accuracy") for kind in (anchors.FLOAT32, anchors.BFLOAT16)]
        assert all(abs(one - other) < 0.01 for one, other in zip(*accuracies, strict=True))


def test_logistic_regression_ends_at_the_same_zeros():
    assert of("logistic", anchors.BFLOAT16, "differ") == [0, 0, 0]
    assert max(map(max, of("logistic", anchors.BFLOAT16, "distances"))) < 0.0025
