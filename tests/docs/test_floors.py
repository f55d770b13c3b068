"""The package's folders are layers (floors): an import from a higher layer is found."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECK = "from importlinter.cli import lint_imports_command as run; run()"
ADDED = {
    "upward between folders": ("numerics/norms.py", "from ramda_jax.solvers.base import Solver", "folders are floors"),
    "upward in compaction": (
        "compaction/tracing/walk.py", "from ramda_jax.compaction.planning.plan import Plan", "wings of compaction"
    ),
    "a circle in a folder": (
        "regularizers/groups/norm_penalty.py",
        "from ramda_jax.regularizers.groups.regularizer import GroupRegularizer",
        "No circle",
    ),
}  # fmt: skip


def checked(folder):
    command = [sys.executable, "-c", CHECK, "--no-cache"]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": "."}, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("added", [None, *ADDED])
def test_the_contract_holds_and_an_upward_import_breaks_it(added, tmp_path):
    shutil.copytree(ROOT / "ramda_jax", tmp_path / "ramda_jax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    if added is None:
        result = checked(tmp_path)
        assert result.returncode == 0, result.stdout
        return
    file, line, contract = ADDED[added]
    path = tmp_path / "ramda_jax" / file
    path.write_text(path.read_text() + f"\n{line}\n")
    result = checked(tmp_path)
    assert result.returncode == 1
    assert any(contract in found and "BROKEN" in found for found in result.stdout.splitlines()), result.stdout


def test_rooms_are_small():
    """A module has at most 250 lines, a folder at most 10 modules besides `__init__.py`."""
    modules = sorted((ROOT / "ramda_jax").rglob("*.py"))
    assert len(modules) > 100
    long = {path.name: lines for path in modules if (lines := len(path.read_text().splitlines())) > 250}
    assert not long, f"These modules have more than 250 lines: {long}; split them."
    folders = {path.parent for path in modules}
    full = {
        str(folder): count
        for folder in folders
        if (count := len([path for path in folder.glob("*.py") if path.name != "__init__.py"])) > 10
    }
    assert not full, f"These folders have more than 10 modules: {full}; put some in a folder of their own."
