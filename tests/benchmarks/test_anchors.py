"""The benchmark of the anchor's dtype runs."""

import pytest

from benchmarks import anchors


@pytest.mark.slow
def test_a_rounded_anchor_moves_the_parameters_and_a_last_bit_hardly():
    rows = {row["anchor"]: row for row in anchors.main(["--small"])}
    assert rows[anchors.FLOAT32]["distances"] == [0, 0, 0]
    assert 1e-5 < min(rows[anchors.BFLOAT16]["distances"]) < 0.01
    assert 0 < max(rows[anchors.LAST_BIT]["distances"]) < 1e-5
