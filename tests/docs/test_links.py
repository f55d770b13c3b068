"""Links in Markdown files have targets, and the commands name modules and make targets that exist."""

import importlib.util
import itertools
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
NOT_OURS = ("out", "data", "dist", "node_modules", "generated")
FILES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(
        part in NOT_OURS or (part.startswith(".") and part != ".github") for part in path.relative_to(ROOT).parts
    )
)
PARSER = MarkdownIt("commonmark")


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def tokens(path):
    for token in PARSER.parse(path.read_text()):
        yield token
        yield from token.children or ()


def anchors(path):
    """The anchors that GitHub and the site give to headings."""
    parsed = PARSER.parse(path.read_text())
    titles = [after.content for token, after in itertools.pairwise(parsed) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_all_pages_are_looked_at():
    found = names(FILES)
    for name in ("README.md", "CONTRIBUTING.md", "docs/guide.md", "examples/README.md", "benchmarks/README.md"):
        assert name in found


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_internal_links_resolve(path):
    for token in tokens(path):
        target = token.attrGet("href") or token.attrGet("src")
        if target is None or re.match(r"\w+:", target):
            continue
        place, _, anchor = target.partition("#")
        linked = path.parent / place if place else path
        assert linked.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(linked), f"{linked} has no heading {anchor}"


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_commands_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = path.read_text()
    for module in re.findall(r"python -m ((?:examples|benchmarks|docs|tests)[\w.]*)", text):
        assert importlib.util.find_spec(module), f"python -m {module}"
    code = [token.content for token in tokens(path) if token.type in ("fence", "code_inline")]
    for target in re.findall(r"^make ([a-z][a-z-]*)", "\n".join(code), re.MULTILINE):
        assert target in targets, f"make {target}"


def test_every_example_is_named_in_its_readme():
    readme = (ROOT / "examples" / "README.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert path.name.startswith("__") or f"({path.name})" in readme, path.name
