"""`make dist-check`: runs README.md's quickstart with the built wheel in a fresh environment, away from the checkout.

python tests/check_dist.py dist
"""

import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTALLED = """
import importlib.metadata, importlib.resources, pathlib, sys
import ramda_jax
assert pathlib.Path(ramda_jax.__file__).is_relative_to(sys.prefix), ramda_jax.__file__
assert importlib.metadata.version("ramda_jax") == ramda_jax.__version__
assert importlib.resources.files(ramda_jax).joinpath("py.typed").is_file()
print("ramda_jax", ramda_jax.__version__, "in", sys.prefix)
"""


def check_contents(wheel, sdist):
    """Checks that the wheel has only the package, and that the sdist has what its tests and documents need."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ramda_jax"}, tops
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "Makefile", "docs/conf.py", "tests/check_dist.py"):
        assert name in names, name
    for folder in ("out", "data", "docs/api/generated"):
        assert not any(name.startswith(f"{folder}/") for name in names), folder


def main(dist):
    """Checks the wheel and the sdist in the folder `dist`."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    check_contents(wheel, sdist)
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder, "environment"), with_pip=True)
        python = Path(folder, "environment", "bin", "python")
        # First the library alone, then with what the quickstart needs. `-I` hides the checkout and the user's packages.
        for packages, code in (([wheel], INSTALLED), ([f"{wheel}[flax]", "scikit-learn"], "\n".join(snippets))):
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(install, check=True)
            subprocess.run([python, "-I", "-W", "error", "-c", code], cwd=folder, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
