"""The picture in README.md is what its command draws, and shows what the text below it says."""

import json
from pathlib import Path

from PIL import Image

from docs import sparsity

ROOT = Path(__file__).parents[2]


def test_the_picture_is_drawn_by_its_command_and_is_in_the_readme(tmp_path):
    sparsity.main(tmp_path / "sparsity.png")
    with Image.open(tmp_path / "sparsity.png") as drawn, Image.open(ROOT / "docs" / "sparsity.png") as kept:
        assert drawn.size == kept.size
    text = (ROOT / "README.md").read_text()
    assert "](docs/sparsity.png)" in text and "`python -m docs.sparsity`" in text


def test_one_method_keeps_its_zeros_at_the_same_accuracy():
    for method in sparsity.TITLES:
        report = json.loads((ROOT / "docs" / "results" / "mnist_logistic" / f"{method}-1.json").read_text())
        assert f"{report['accuracy']:.1%}" == "91.3%"
        last = report["rounds"]["W_hat"][-50:]
        assert max(last) - min(last) < 0.01 if method == "ramda" else max(last) - min(last) > 0.3
