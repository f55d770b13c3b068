"""The shipped examples run, at a tiny scale."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from examples import digits, make_it_small, mnist_logistic, sparse_to_small
from examples.data import idx
from tests import kills
from tests.examples.realdata import write_mnist

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"  # nothing listens on the discard port, as on a machine without a network


@pytest.mark.slow
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


@pytest.mark.slow
def test_sparse_to_small_tells_its_story_on_digits(tmp_path, capsys):
    report = sparse_to_small.main(["--epochs", "8", "--strength", "1e-3", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    for line in ("1. Train", "groups that changed", "2. Compact", "proof:", "3. Fine-tune", "4. Save", "5. What"):
        assert line in printed
    assert report.after.params < report.before.params
    assert report.error <= 1e-5
    assert "groups that came or went: 0" in printed
    files = ("sparse_to_small.png", "compact.jax_export", "compact/plan.json", "compact/variables.safetensors")
    assert all((tmp_path / name).stat().st_size > 0 for name in files)


@pytest.mark.slow
def test_sparse_to_small_tells_its_story_on_mnist(tmp_path, capsys):
    arguments = ["--data-dir", str(write_mnist(tmp_path / "mnist")), "--epochs", "3", "--out", str(tmp_path / "out")]
    report = sparse_to_small.main([*arguments, "--strength", "1e-2"])
    assert report.before.params == 431_080 > report.after.params
    assert "within" in capsys.readouterr().out


@pytest.mark.slow
def test_make_it_small_reaches_the_size_that_is_asked_for_and_tells_its_story(tmp_path, capsys):
    arguments = ["--net", "mlp", "--keep", "0.3", "--epochs", "12", "--out", str(tmp_path)]
    report = make_it_small.main(arguments)
    printed = capsys.readouterr().out
    for line in ("1. Find", "lambda", "expected revivals", "2. Hold", "3. Compact", "Saved in"):
        assert line in printed
    assert "groups that came or went: 0" in printed
    assert 0.2 < 1 - report.removed_params < 0.4
    assert all((tmp_path / "compact" / name).stat().st_size > 0 for name in ("plan.json", "variables.safetensors"))


@pytest.mark.slow
def test_make_it_small_goes_by_flops_and_compares_with_ramda_alone(tmp_path, monkeypatch, capsys):
    arguments = ["--of", "flops", "--keep", "0.5", "--epochs", "8", "--fine-tune", "1", "--out", str(tmp_path)]
    report = make_it_small.main(arguments)
    assert "4. Fine-tune" in capsys.readouterr().out
    # Compaction meets the share asked for to one unit. One of the first layer's 32 channels has 3 % of the products.
    assert abs(0.5 - report.removed_flops) < 1 / 32
    monkeypatch.setattr(make_it_small, "TABLE_KEEPS", (0.3,))
    found = make_it_small.main(["--net", "mlp", "--table", "--epochs", "2", "--seeds", "1"])
    assert found in capsys.readouterr().out and "RAMDA alone" in found and "recipe" in found


@pytest.mark.parametrize("arguments", [["--keep", "1.5"], ["--net", "lenet5"], ["--data-dir", "mnist"]])
def test_make_it_small_refuses_what_does_not_go_together(arguments, capsys):
    with pytest.raises(SystemExit):
        make_it_small.main(arguments)
    assert "--keep must be" in (message := capsys.readouterr().err) or "go together" in message


def test_an_exported_program_is_the_old_or_the_new_one_wherever_a_kill_falls(tmp_path):
    model, path = nnx.Linear(2, 1, rngs=nnx.Rngs(0)), tmp_path / "model"
    sparse_to_small.export(model, (2,), path)
    whole = path.read_bytes()
    path.write_bytes(b"old")
    for number in range(20):
        with kills.Disk(tmp_path, fail_at=number).watched() as disk, contextlib.suppress(kills.Killed):
            sparse_to_small.export(model, (2,), path)
        assert path.read_bytes() in (b"old", whole)
        if disk.count <= number:
            break
    assert number > 2 and path.read_bytes() == whole


@pytest.mark.slow
def test_mnist_logistic_is_a_command_over_the_runner(tmp_path, capsys):
    arguments = ["--data-dir", str(write_mnist(tmp_path / "mnist")), "--method", "ramda", "--scale", "0.02"]
    result = mnist_logistic.main([*arguments, "--out", str(tmp_path / "run")])
    assert (result["config"], result["method"]) == ("mnist_logistic", "ramda")
    assert result["accuracy"] > 0.9
    assert 0 <= result["sparsity_W"]["weighted"] <= result["sparsity_W_hat"]["weighted"] < 1
    assert 0 < result["objective"] < np.log(10)
    assert "weighted group sparsity" in capsys.readouterr().out


@pytest.mark.slow
def test_without_data_and_network_the_script_says_what_to_put_where(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "mnist_logistic.py"), "--method", "ramda", "--data-dir", "mnist"]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment.update(HTTPS_PROXY=NOWHERE, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "mnist") in done.stderr
    for name in idx.MNIST_FILES:
        assert name in done.stderr
