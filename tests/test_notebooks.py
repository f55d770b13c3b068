"""The committed notebooks. `make notebooks` executes them."""

import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def sources(notebook, kind):
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def test_there_are_eight_and_the_readme_has_a_line_for_each():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number}_" for number in range(1, 9)]
    assert re.findall(r"\]\((\w+\.ipynb)\)", (FOLDER / "README.md").read_text()) == [path.name for path in NOTEBOOKS]


@each
def test_notebook_is_valid_and_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    assert all(cell.execution_count is None and not cell.outputs for cell in code)


@each
def test_notebook_goes_from_a_title_to_what_to_remember(path):
    notebook = read(path)
    assert notebook.cells[0].cell_type == notebook.cells[-1].cell_type == "markdown"
    headings = [line for text in sources(notebook, "markdown") for line in text.splitlines() if line.startswith("#")]
    assert [line.split()[0] for line in headings] == ["#", *["##"] * (len(headings) - 1)]
    assert notebook.cells[0].source.startswith(headings[0])
    last = notebook.cells[-1].source
    assert "## What to remember" in last and "\nNext: " in last


@each
def test_notebook_checks_what_its_text_says(path):
    assert sum(source.count("assert ") for source in sources(read(path), "code")) >= 3
