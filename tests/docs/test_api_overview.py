"""The overview of the API reference names what exists, and leads to every page of the reference."""

import re
from operator import attrgetter
from pathlib import Path

import pytest

import ramda_jax

API = Path(__file__).parents[2] / "docs" / "api"
OVERVIEW = (API / "index.md").read_text()
NAMES = sorted(set(re.findall(r"`((?:\w+\.)*\w+)`", OVERVIEW)) - {"ramda_jax", "__all__", "optax.chain"})


def test_the_overview_names_something_for_each_step():
    assert {"describe", "ramda", "eval_params", "compaction.compact_model", "Regularizer"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_the_overview_is_public(name):
    place, _, last = name.rpartition(".")
    space = attrgetter(place)(ramda_jax) if place else ramda_jax
    assert last in space.__all__


def test_the_overview_links_every_page():
    pages = {path.name for path in API.glob("*.md")} - {"index.md"}
    assert pages <= set(re.findall(r"\]\((\w+\.md)\)", OVERVIEW.split("## All pages")[1]))
    assert {f"{name}.md" for name in OVERVIEW.split("```{toctree}")[1].split() if name.isalpha()} == pages
