"""Every Python snippet in README.md and the documentation runs, in the order of its page."""

import unittest
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parents[2]
SYBIL = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()])
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "examples/*.md", "notebooks/*.md", "tests/*.md")
    for path in ROOT.glob(pattern)
    if "```python" in path.read_text()
)


@pytest.mark.slow_except(
    "README.md",
    "docs/getting-started.md",
    "docs/questions.md",
    "docs/tuning.md",
    "docs/porting.md",
    "docs/scale.md",
    "docs/alternatives.md",
    "docs/identification.md",
)
@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_snippets_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = 0
    for example in SYBIL.parse(page).examples():
        try:
            example.evaluate()
            ran += 1
        except unittest.SkipTest as reason:
            assert str(reason), f"line {example.line}: a skipped snippet must say why; add a reason"
    assert ran > 0
