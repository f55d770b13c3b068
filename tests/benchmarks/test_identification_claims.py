"""The claims hold in tiny cases, and each figure tells a case that the claim excludes from one that it covers."""

from benchmarks.identification_claims import compositions, no_limit, ramda_convex, robust


def test_rmda_stops_where_its_rate_falls_and_not_at_a_constant_one():
    constant, falling = no_limit(16384, 4, ("l1, constant rate", "l1, falling rate"))
    assert constant["ratio"] > 1 and abs(constant["deviation"] / constant["predicted"] - 1) < 0.2
    assert falling["ratio"] < 0.7


def test_ramda_comes_to_the_minimiser_of_a_convex_loss_where_its_rate_falls():
    constant, falling = ([row for row in ramda_convex(2048, 2, (q,))] for q in (0.0, 0.6))
    # The bound holds on every path, whatever the rate, and is not so loose that it says nothing.
    assert all(0.02 < row["regret_over_bound"] <= 1 for row in constant + falling)
    assert falling[1]["gap"] < 0.6 * falling[0]["gap"]


def test_batch_normalised_passes_average_over_compositions_if_each_order_is_drawn():
    rows = compositions(256, 16)
    drawn, one = ([row for row in rows if row["orders"] == orders] for orders in ("drawn", "one"))
    assert drawn[-1]["error"] < drawn[0]["error"] / 4
    assert 0.6 < drawn[-1]["error"] / drawn[-1]["predicted"] < 1.6
    assert drawn[-1]["error_of_whole"] > 3 * drawn[-1]["error"] and one[-1]["error"] > 3 * drawn[-1]["error"]


def test_the_mean_of_the_samples_hulls_holds_the_average_and_the_hull_of_the_mean_does_not():
    rows = {row["points"]: row for row in robust(128, 1)}  # the last row of each
    assert abs(rows["worst"]["excess"]) < 0.01 and rows["worst"]["excess_of_mean"] > 0.02
    assert rows["drawn"]["excess"] < 0
    assert rows["twice"]["excess"] > 0.02
