"""Words that the repository avoids: a linter finds them, and CONTRIBUTING.md lists them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = [line.split("->")[0] for line in (ROOT / "docs" / "words.txt").read_text().splitlines()]


def checked(folder):
    command = [sys.executable, "-m", "codespell_lib", "text.md"]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "words.txt", tmp_path / "docs")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_word_of_the_list_is_found(folder):
    (folder / "text.md").write_text(
        "".join(f"It says {word} here.\nLeft {word.capitalize()} right.\n" for word in WORDS)
    )
    result = checked(folder)
    found = re.findall(r"text.md:(\d+): ", result.stdout)
    assert found == [str(line + 1) for line in range(2 * len(WORDS))], result.stdout + result.stderr
    assert result.returncode != 0


def test_plain_words_pass(folder):
    (folder / "text.md").write_text("There is no root. A word that is no longer here, and what is no longer done.\n")
    result = checked(folder)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr


def test_contributing_has_the_list():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    [listed] = re.findall(r"<!-- words -->\n(.*?)\.\n<!-- end of words -->", text, re.DOTALL)
    assert " ".join(listed.split()).split(", ") == WORDS
