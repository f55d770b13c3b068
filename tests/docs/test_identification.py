"""The numbers in docs/identification.md, and of the minimiser in docs/results.md, agree with the rows beside them."""

import json
from pathlib import Path

import numpy as np

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "identification.md").read_text()
ROWS = json.loads((DOCS / "identification.json").read_text())


def cells(text):
    """The cells of each line of the tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def number(text):
    return float(text.replace(",", "").rstrip(" %"))


def test_the_table_of_constant_rates_is_that_of_the_rows():
    lines = {line[0]: line[1:] for line in cells(PAGE) if len(line) == 9}
    for row in ROWS["constant"]:
        found = lines[f"`{row['method']}`, {row['rate']:g}, {row['averaging']:g}"]
        counts = [row[name] for name in ("come_and_go_living", "predicted", "come_and_go_zero")]
        assert [int(cell) for cell in found[:3]] == counts
        names = ("radius", "radius_predicted", "radius_W", "radius_W_predicted", "sideways")
        np.testing.assert_allclose([number(cell) for cell in found[3:]], [row[name] for name in names], atol=6e-5)


def test_the_rows_show_what_the_page_says_of_constant_rates():
    for row in ROWS["constant"]:
        assert row["come_and_go_zero"] == 0
        assert abs(row["come_and_go_living"] - row["predicted"]) <= 1
        np.testing.assert_allclose(row["radius"], row["radius_predicted"], rtol=0.16)
        if "gap" in row:
            assert row["gap"] < row["gap_bound"] and row["slope_error"] < row["slope_bound"]


def test_the_table_of_short_groups_is_in_the_rows():
    seen = [line for line in cells(PAGE) if len(line) == 6 and line[3].endswith("%") and line[4].endswith("%")]
    assert len(seen) == 9
    for line in seen:
        norm, deviation, share, predicted, flips = (number(cell) for cell in line[1:])
        assert any(
            np.isclose(row["norm"], norm, atol=6e-4)
            and np.isclose(row["deviation_predicted"], deviation, atol=6e-4)
            and np.isclose(100 * row["share_zero"], share, rtol=0.05)
            and np.isclose(100 * row["share_zero_predicted"], predicted, rtol=0.05)
            and np.isclose(row["flips_per_1000"], flips, rtol=0.05)
            for row in ROWS["groups"]
        ), line


def test_the_table_of_last_stages_is_that_of_the_rows():
    found = [line for line in cells(PAGE) if len(line) == 7 and line[0].startswith("`")]
    assert len(found) == len(ROWS["last_stage"])
    for line, row in zip(found, ROWS["last_stage"], strict=True):
        values = [number(cell) for cell in line[1:]]
        names = ("last_rate", "right_percent", "flips_living", "flips_zero", "radius", "anchor")
        np.testing.assert_allclose(values, [row[name] for name in names], rtol=0.06)


def test_the_average_comes_to_the_gradient_while_the_slow_change_grows():
    for rate, power in ((1.0, 0.6), (0.1, 0.0), (0.2, 0.9), (0.05, 0.0)):
        rows = [row for row in ROWS["average"] if (row["rate"], row["power"]) == (rate, power)]
        assert np.all(np.diff([row["slow"] for row in rows]) > 0)
        assert np.all(np.diff([row["average_error"] for row in rows]) < 0)
    (forgotten,) = {round(row["anchor"], 2) for row in ROWS["average"] if row["power"] == 1}
    assert forgotten == 0.05  # 1 / (2 eta): the anchor is never forgotten


def test_what_is_said_of_the_minimiser_is_in_its_rows():
    text = (DOCS / "results.md").read_text()
    rows = json.loads((DOCS / "minimiser.json").read_text())
    best = rows["minimiser"]
    assert best["zero"] == best["certified"] == 450 and f"{best['zero'] / 784:.2%}" == "57.40%"
    assert f"{best['objective']:.10f}" in text
    for row in rows["runs"]:
        assert row["zero_in_both"] == row["zero"] and row["only_in_run"] == 0
        line = next(line for line in cells(text) if line[:2] == [f"`{row['method']}`", str(row["zero"])])
        assert number(line[4]) == round(100 * row["largest_margin_missed"], 2)
        assert number(line[5]) == round(100 * row["average_of_missed"], 1) < 100
        np.testing.assert_allclose(number(line[6]), 100 * row["anchor_of_missed"], rtol=0.06)
        np.testing.assert_allclose(number(line[7]), row["objective_above"], rtol=0.02)
