"""README.md as the wheel and the sdist contain it, for a package index."""

import importlib.util
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
spec = importlib.util.spec_from_file_location("for_index", ROOT / "docs" / "for_index.py")
assert spec is not None and spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


def targets(text):
    """The addresses of all links and pictures."""
    for token in MarkdownIt("commonmark").parse(text):
        for child in token.children or ():
            address = child.attrGet("href") or child.attrGet("src")
            if address:
                yield child.type, str(address)


def test_with_an_address_every_link_and_picture_is_absolute():
    text = module.for_index(README, "1.2.3", "https://example.org/me/ramda_jax/")
    found = set(targets(text))
    assert len(found) == len(set(targets(README)))
    assert all(address.startswith("https://") for _, address in found)
    for picture in ("size", "sparsity"):
        assert ("image", f"https://example.org/me/ramda_jax/raw/v1.2.3/docs/{picture}.png") in found
    assert ("link_open", "https://example.org/me/ramda_jax/blob/v1.2.3/docs/guide.md") in found
    anchored = "https://example.org/me/ramda_jax/blob/v1.2.3/docs/compaction.md#low-rank"
    assert ("link_open", anchored) in found


def test_without_an_address_nothing_leads_nowhere():
    text = module.for_index(README, "1.2.3")
    assert all(address.startswith("https://") for _, address in targets(text))
    assert ".png" not in text and "The picture" not in text
    assert "Equinox, Flax and plain JAX" in " ".join(text.split()) and "libraries.md" not in text


@pytest.mark.parametrize("repository", [None, "https://example.org/me/ramda_jax"])
def test_the_index_is_told_how_to_install_a_release_and_sees_no_comments(repository):
    text = module.for_index(README, "1.2.3", repository)
    for command in ('pip install "ramda_jax[flax,storage]"\n', 'pip install "ramda_jax[storage]" equinox\n'):
        assert command in text
    assert "in a checkout" not in text
    assert "<!--" not in text
    code = re.findall(r"```python\n.*?```", README, re.DOTALL)
    assert code and re.findall(r"```python\n.*?```", text, re.DOTALL) == code
