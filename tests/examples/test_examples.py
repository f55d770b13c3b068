"""The examples run as they are shipped, at a tiny scale."""

import gzip
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from examples import digits, mnist_logistic

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"  # the discard port, where nobody listens: a machine without a network
TRAIN, TEST = 300, 50


def idx(array):
    """An array of bytes in the IDX format, as MNIST is published."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def data_dir(tmp_path):
    """The four files, with images that a logistic regression can tell apart: a bright row per class, a black border."""
    rng = np.random.default_rng(0)
    for prefix, count in (("train", TRAIN), ("t10k", TEST)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 50, (count, 28, 28))
        images[np.arange(count), 2 * labels + 4] += 150
        images[:, :, :4] = images[:, :, -4:] = 0
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


def test_digits_trains_prints_its_tables_and_draws(tmp_path, capsys):
    digits.main(["--epochs", "2", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "digits.json")])
    printed = capsys.readouterr().out
    for row in ("dense1/kernel", "test accuracy", "groups changed", "solver iterations per step", "seconds"):
        assert row in printed
    assert (tmp_path / "out" / "digits.png").read_bytes()[1:4] == b"PNG"
    runs = json.loads((tmp_path / "digits.json").read_text())
    assert list(runs) == ["RAMDA", "AdamW"]
    assert all(len(run["accuracy"]) == 2 and run["accuracy"][-1] > 0.5 for run in runs.values())
    assert runs["RAMDA"]["sparsity_eval"][-1] > runs["AdamW"]["sparsity"][-1] == 0


@pytest.mark.parametrize("method", mnist_logistic.METHODS)
def test_mnist_logistic_learns_and_writes_its_result(data_dir, method, tmp_path):
    result_file = tmp_path / "result.json"
    arguments = ["--data-dir", str(data_dir), "--method", method, "--epochs", "10", "--json", str(result_file)]
    mnist_logistic.main(arguments)
    result = json.loads(result_file.read_text())
    assert list(result) == [
        "method",
        "test_accuracy",
        "weighted_group_sparsity",
        "weighted_group_sparsity_eval",
        "objective",
        "seconds",
        "last_change_epoch",
        "changed_groups_last_epochs",
    ]
    assert result["method"] == method
    assert result["test_accuracy"] > 0.9
    assert 0 <= result["weighted_group_sparsity"] <= result["weighted_group_sparsity_eval"] < 1
    assert 0 < result["objective"] < np.log(10)
    assert 1 <= result["last_change_epoch"] <= 10
    changes = result["changed_groups_last_epochs"]
    assert len(changes) == 10 and max(e for e, n in enumerate(changes, 1) if n) == result["last_change_epoch"]


def test_the_same_seed_gives_the_same_result(data_dir):
    sets = mnist_logistic.load_mnist(data_dir)
    first, again, other = (mnist_logistic.train("ramda", *sets, epochs=2, seed=seed) for seed in (1, 1, 2))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert first["objective"] != other["objective"]


def test_a_method_without_averaging_is_one_more_line(data_dir, monkeypatch):
    method = mnist_logistic.Method(ramda_jax.prox_sgd, learning_rate=1e-1)
    monkeypatch.setitem(mnist_logistic.METHODS, "prox_sgd", method)
    result = mnist_logistic.train("prox_sgd", *mnist_logistic.load_mnist(data_dir), epochs=5, seed=1)
    assert result["weighted_group_sparsity"] == result["weighted_group_sparsity_eval"]


def test_the_padded_last_batch_has_the_plain_mean():
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.integers(0, 256, (TRAIN, 784)), jnp.uint8)
    labels = jnp.asarray(rng.integers(0, 10, TRAIN))
    params = {"kernel": jnp.asarray(rng.normal(size=(784, 10)), jnp.float32) / 28, "bias": jnp.zeros(10)}
    order = jnp.asarray(rng.permutation(TRAIN))
    indices, is_example = mnist_logistic.batches_of(order)
    assert indices.shape == is_example.shape == (3, 128)
    np.testing.assert_array_equal(indices[is_example == 1], order)

    def plain_mean(params, rows):
        logits = mnist_logistic.predict(params, images[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    last = indices[-1]
    padded = jax.value_and_grad(mnist_logistic.loss_fn)(params, images[last], labels[last], is_example[-1])
    plain = jax.value_and_grad(plain_mean)(params, order[256:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), padded, plain)


def test_without_data_and_network_the_script_says_what_to_put_where(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "mnist_logistic.py"), "--method", "ramda", "--data-dir", "mnist"]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment.update(HTTPS_PROXY=NOWHERE, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "mnist") in done.stderr
    for name in mnist_logistic.FILES:
        assert name in done.stderr


def test_only_what_is_missing_is_asked_for(data_dir, monkeypatch):
    monkeypatch.setattr(mnist_logistic, "MIRROR", NOWHERE + "/")
    (data_dir / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(SystemExit, match="t10k-labels") as error:
        mnist_logistic.main(["--data-dir", str(data_dir), "--method", "rmda"])
    assert "train-images" not in str(error.value)


def test_a_download_of_another_checksum_is_refused(tmp_path, monkeypatch):
    wrong = tmp_path / "mirror" / "train-images-idx3-ubyte.gz"
    wrong.parent.mkdir()
    wrong.write_bytes(b"not the published bytes")

    def download(url, output_file, pooch):
        Path(output_file).write_bytes(wrong.read_bytes())

    monkeypatch.setattr("pooch.core.choose_downloader", lambda *args, **kwargs: download)
    with pytest.raises(SystemExit, match="train-images"):
        mnist_logistic.main(["--data-dir", str(tmp_path / "data"), "--method", "rmda"])
    assert not (tmp_path / "data" / "train-images-idx3-ubyte.gz").exists()


def _images(count=TRAIN, size=28):
    return idx(np.zeros((count, size, size)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("train-images-idx3-ubyte.gz", gzip.compress(_images())[:100], id="truncated download"),
        pytest.param("train-images-idx3-ubyte.gz", gzip.compress(_images()[:-1]), id="one byte short"),
        pytest.param("train-images-idx3-ubyte.gz", gzip.compress(_images()[:6]), id="half a header"),
        pytest.param("train-images-idx3-ubyte.gz", gzip.compress(b""), id="nothing in it"),
        pytest.param("train-images-idx3-ubyte.gz", b"", id="empty"),
        pytest.param("t10k-images-idx3-ubyte.gz", _images(TEST), id="not gzipped"),
        pytest.param("t10k-images-idx3-ubyte.gz", gzip.compress(b"\x01" + _images(TEST)[1:]), id="wrong magic number"),
        pytest.param("t10k-images-idx3-ubyte.gz", gzip.compress(_images(TEST, 27)), id="other images"),
        pytest.param("train-labels-idx1-ubyte.gz", gzip.compress(idx(np.zeros(TRAIN - 1))), id="a label too few"),
        pytest.param("t10k-labels-idx1-ubyte.gz", gzip.compress(idx(np.full(TEST, 10))), id="a label of 10"),
    ],
)
def test_a_malformed_file_is_refused_by_name(data_dir, name, content):
    (data_dir / name).write_bytes(content)
    with pytest.raises(SystemExit, match=re.escape(name)):
        mnist_logistic.main(["--data-dir", str(data_dir), "--method", "ramda", "--epochs", "1"])
