"""docs/results.md: its tables are what `examples.report` prints of the reports beside it."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from examples import report
from examples.experiments import CONFIGS
from examples.experiments.config import Method

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "results.md").read_text()
REPORTS = report.find([DOCS / "results"])
TABLES = list(report.tables(REPORTS))


@pytest.mark.parametrize("part", TABLES, ids=lambda part: part[:40])
def test_the_tables_are_those_of_the_reports(part):
    assert part in TEXT


def test_there_is_no_other_table_of_runs_than_those_of_the_reports():
    assert re.findall(r"^\*\*\w+\*\* \(.*$", TEXT, re.MULTILINE) == [
        line for line in re.findall(r"^\*\*.*$", TEXT, re.MULTILINE) if line in TABLES
    ]
    assert TEXT.count("| minutes ") == len(TABLES) // 2


def test_the_settings_of_the_reports_are_those_of_the_experiments():
    for one in REPORTS:
        config = CONFIGS[one["config"]]
        rate = one.get("learning_rate_scale", 1.0) * config.methods[one["method"]].learning_rate
        config = config.with_method(one["method"], learning_rate=rate)
        defaults = {field.name: field.default for field in dataclasses.fields(Method)}  # a report may be older than one
        settings = json.loads(json.dumps(config.methods[one["method"]].as_dict()))
        assert defaults | one["settings"] == settings, (one["config"], one["method"])


def test_every_figure_and_experiment_that_is_named_is_there():
    figures = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert figures and all((DOCS / figure).exists() for figure in figures)
    assert set(re.findall(r"examples\.train (\w+)", TEXT)) <= set(CONFIGS)


# What the page says in words.


def of(config, *methods):
    found = [one for one in REPORTS if one["config"] == config and one["method"] in methods and not one["stops_after"]]
    assert found
    return found


@pytest.mark.parametrize("config", ["synthetic_logistic", "synthetic_conv"])
def test_what_averages_finds_the_truth_and_keeps_it_and_the_others_do_not(config):
    for one in of(config, "ramda", "rmda"):
        assert one["identified"] == {"W": 1.0, "W_hat": 1.0}
        assert one["last_change_step_W"] < 0.8 * one["steps"]
        assert one["last_change_epoch_W_hat"] < 0.8 * one["steps"] / one["steps_per_epoch"]
    for one in of(config, "prox_sgd", "prox_adamw", "prox_ssi"):
        assert one["identified"]["W"] < 1 or one["last_change_step_W"] > 0.8 * one["steps"]


def test_the_logistic_regressions_have_the_papers_sparsity():
    share = {
        one["method"]: one["sparsity_W"]["weighted"] for one in of("mnist_logistic", *CONFIGS["mnist_logistic"].methods)
    }
    assert share["rmda"] == pytest.approx(0.5702, abs=1e-3) and share["ramda"] == pytest.approx(0.5740, abs=2e-3)
    assert max(share[method] for method in ("prox_sgd", "prox_adamw", "prox_ssi")) < 0.45


def test_rmda_has_the_papers_sparsity_in_three_seeds_and_settles_and_is_above_the_others_who_do_not():
    found = of("fashion_mlp_iclr", "rmda")
    assert len({one["seed"] for one in found}) == 3
    for one in found:
        assert one["sparsity_W"]["kernel"] == pytest.approx(0.429, abs=0.03)
        assert one["last_change_step_W"] < 0.9 * one["steps"]
    for other in of("fashion_mlp_iclr", "prox_sgd", "prox_ssi"):
        assert other["sparsity_W"]["kernel"] < min(one["sparsity_W"]["kernel"] for one in found)
        assert other["last_change_step_W"] > 0.99 * other["steps"]
