"""The pictures in README.md are what their commands draw, and show what the text below them says."""

import json
from pathlib import Path

import pytest
from PIL import Image

from docs import size, sparsity

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("picture", [size, sparsity], ids=["size", "sparsity"])
def test_a_picture_is_drawn_by_its_command_and_is_in_the_readme(picture, tmp_path):
    name = picture.__name__.removeprefix("docs.")
    picture.main(tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as drawn, Image.open(ROOT / "docs" / f"{name}.png") as kept:
        assert drawn.size == kept.size
    text = (ROOT / "README.md").read_text()
    assert f"](docs/{name}.png)" in text and f"`python -m docs.{name}`" in text


def test_one_method_keeps_its_zeros_at_the_same_accuracy():
    for method in sparsity.TITLES:
        report = json.loads((ROOT / "docs" / "results" / "mnist_logistic" / f"{method}-1.json").read_text())
        assert f"{report['accuracy']:.1%}" == "91.3%"
        last = report["rounds"]["W_hat"][-50:]
        assert max(last) - min(last) < 0.01 if method == "ramda" else max(last) - min(last) > 0.3
