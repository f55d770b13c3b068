"""The sweep of learning rates runs; its tables say which rate is the best and what a rule gives."""

import json
import math

import pytest

from benchmarks import learning_rates
from benchmarks.learning_rates import GRIDS, best_rates, by_rule, grid, main


def row(method, best, name="some_net", lowest=1.0):
    """A sweep whose losses are a parabola of the logarithm of the rate, with a last rate at which runs diverge."""
    rates = grid(method)
    losses = [[lowest + (math.log10(rate / best) ** 2)] * 2 for rate in rates]
    losses[-1] = [1.0, None]
    return {"problem": name, "method": method, "steps": 10, "rates": rates, "losses": losses}


def test_best_rate_is_that_of_the_lowest_finite_mean():
    found = best_rates(row("ramda", 10**-1.5))
    assert found["best rate"] == "0.032" and found["loss"] == "1.000"
    # log10 of a factor at which the loss is 1.2 of the lowest: 0.447, so one grid point of 0.25 to each side.
    assert found["good from, to"] == "0.018, 0.056"
    assert best_rates(row("ramda", 1e-9))["best rate"].endswith("(edge)")


def test_a_rule_is_judged_by_the_loss_at_its_rate_beside_the_lowest():
    method, (peer, factor) = "rmda", learning_rates.RULES["rmda"]
    rows = [row(peer, 10**-1.5, lowest=2.0), row(method, 10**-1.5 * factor * 10**0.5)]
    (found,) = by_rule(rows, method)
    assert found["by the rule"] == f"{10**-1.5 * factor:.2g}"
    assert float(found["its loss over the lowest"]) == 1.25
    assert found["lowest over sgd's"] == "0.50"
    assert list(by_rule(rows[:1], method)) == []


def test_rules_give_rates_on_the_grids():
    for method, (peer, factor) in learning_rates.RULES.items():
        steps = 4 * math.log10(factor)
        assert steps == pytest.approx(round(steps)) and GRIDS[peer][0] < GRIDS[method][1]


@pytest.mark.slow
def test_the_command_runs_and_does_not_repeat_rows(tmp_path, capsys, monkeypatch):
    path = tmp_path / "rows.json"
    arguments = ["--small", "--problems", "digits_logistic", "--seeds", "1", "--json", str(path)]
    main(arguments)
    rows = json.loads(path.read_text())
    assert [row["method"] for row in rows] == list(GRIDS)
    assert all(len(row["losses"]) == len(row["rates"]) for row in rows)
    printed = capsys.readouterr().out
    assert "| digits_logistic | rmda" in printed and "by the rule" in printed
    monkeypatch.setattr(learning_rates, "sweep", None)
    main(arguments)
    main(["--table", str(path)])
    assert capsys.readouterr().out.count(printed[printed.index("| problem") :]) == 2
