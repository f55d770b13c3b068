"""docs/results.md: its tables are those that `examples.report` prints from the reports beside it."""

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
    for entry in REPORTS:
        config = CONFIGS[entry["config"]]
        rate = entry.get("learning_rate_scale", 1.0) * config.methods[entry["method"]].learning_rate
        config = config.with_method(entry["method"], learning_rate=rate)
        defaults = {field.name: field.default for field in dataclasses.fields(Method)}  # a report may lack a new field
        settings = json.loads(json.dumps(config.methods[entry["method"]].as_dict()))
        assert defaults | entry["settings"] == settings, (entry["config"], entry["method"])


def test_every_figure_and_experiment_that_is_named_is_there():
    figures = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert figures and all((DOCS / figure).exists() for figure in figures)
    assert set(re.findall(r"examples\.train (\w+)", TEXT)) <= set(CONFIGS)


def test_every_table_of_the_papers_that_has_an_experiment_is_in_the_list():
    listed = re.findall(r"^\| ((?:ICLR|NeurIPS) (?:Table|Figure|Appendix) \w+)", TEXT, re.MULTILINE)
    named = {
        f"{config.paper.split()[0]} {config.table}"
        for config in CONFIGS.values()
        if config.table.startswith(("Table", "Figure", "Appendix"))
    }
    assert len(named) > 8 and named <= set(listed)


# What the page says in words.


def of(config, *methods):
    found = [
        entry
        for entry in REPORTS
        if entry["config"] == config and entry["method"] in methods and not entry["stops_after"]
    ]
    assert found
    return found


@pytest.mark.parametrize("config", ["synthetic_logistic", "synthetic_conv"])
def test_what_averages_finds_the_truth_and_keeps_it_and_the_others_do_not(config):
    for entry in of(config, "ramda", "rmda"):
        assert entry["identified"] == {"W": 1.0, "W_hat": 1.0}
        assert entry["last_change_step_W"] < 0.8 * entry["steps"]
        assert entry["last_change_epoch_W_hat"] < 0.8 * entry["steps"] / entry["steps_per_epoch"]
    for entry in of(config, "prox_sgd", "prox_adamw", "prox_ssi"):
        assert entry["identified"]["W"] < 1 or entry["last_change_step_W"] > 0.8 * entry["steps"]


def test_the_logistic_regressions_have_the_papers_sparsity():
    share = {
        entry["method"]: entry["sparsity_W"]["weighted"]
        for entry in of("mnist_logistic", *CONFIGS["mnist_logistic"].methods)
    }
    assert share["rmda"] == pytest.approx(0.5702, abs=1e-3) and share["ramda"] == pytest.approx(0.5740, abs=2e-3)
    assert max(share[method] for method in ("prox_sgd", "prox_adamw", "prox_ssi")) < 0.45


def test_rmda_has_the_papers_sparsity_in_three_seeds_and_settles_and_is_above_the_others_who_do_not():
    found = of("fashion_mlp_iclr", "rmda")
    assert len({entry["seed"] for entry in found}) == 3
    for entry in found:
        assert entry["sparsity_W"]["kernel"] == pytest.approx(0.429, abs=0.03)
        assert entry["last_change_step_W"] < 0.9 * entry["steps"]
    for other in of("fashion_mlp_iclr", "prox_sgd", "prox_ssi"):
        assert other["sparsity_W"]["kernel"] < min(entry["sparsity_W"]["kernel"] for entry in found)
        assert other["last_change_step_W"] > 0.99 * other["steps"]
