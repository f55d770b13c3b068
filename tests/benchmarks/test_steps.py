"""The benchmarks of the step run, and print and write what the README says. The figures at this size mean nothing."""

import json

import jax
import numpy as np
import pytest

from benchmarks import scaling, step_cost, train_step
from benchmarks.step_cost import verdicts
from benchmarks.trees import TREES, number_of_parameters

NAMES = {"tree", "method", "regularizer", "dtype", "device", "parameters", "leaves", "ratio", "ratio_quartiles"}
COSTS = NAMES | {"temporaries", "peak", "compile_seconds", "compile_ratio", "fusions", "loops", "iterations", "rounds"}


def run(command, arguments, path):
    """The rows that a command returns, after checking that it writes the same rows."""
    rows = command.main(["--small", "--json", str(path), *arguments])
    assert json.loads(path.read_text()) == rows
    for row in rows:
        low, high = row["ratio_quartiles"]
        assert 0 < low <= row["ratio"] <= high
    return rows


@pytest.mark.slow
def test_step_cost(tmp_path, capsys):
    rows = run(step_cost, ["--regularizers", "none", "group_lasso"], tmp_path / "rows.json")
    printed = capsys.readouterr().out
    assert [(row["method"], row["regularizer"]) for row in rows] == [
        ("ramda", "none"),
        ("ramda", "group_lasso"),
        ("rmda", "none"),
        ("rmda", "group_lasso"),
    ]
    for row in rows:
        assert COSTS | {"sparsity"} <= row.keys()
        assert row["compile_seconds"] > 0 and row["fusions"] > 0 and row["leaves"] == 8
        # The peak holds at least the parameters, the gradients and two or three buffers of the state.
        assert row["peak"] - row["temporaries"] > 3 + (row["method"] == "ramda")
        assert f"{row['method']}, {row['regularizer']}: {row['ratio']:.2f}" in printed
    solved = rows[1]
    assert solved["most_iterations"] >= solved["iterations"] >= 1


@pytest.mark.slow
def test_scaling(tmp_path):
    rows = run(scaling, ["--methods", "rmda"], tmp_path / "rows.json")
    assert [(row["tree"], row["leaves"]) for row in rows] == [("square_leaves", 10), ("small_leaves", 2)]
    assert all(COSTS <= row.keys() for row in rows)


@pytest.mark.slow
def test_train_step(tmp_path, capsys):
    rows = run(train_step, [], tmp_path / "rows.json")
    assert [row["method"] for row in rows] == ["adamw", "rmda"]
    assert rows[0]["ratio"] == rows[0]["step_ratio"] == 1
    for row in rows:
        assert NAMES <= row.keys()
        assert row["seconds"] > 0 and row["step_seconds"] > 0 and row["share"] > 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.slow
def test_gradients_of_real_training_steps():
    tree = TREES["transformer_xl"](small=True)
    assert "training steps" in tree.origin and number_of_parameters(tree.params) > 1000
    assert len({float(np.sum(np.abs(jax.tree.leaves(gradient)[0]))) for gradient in tree.gradients}) == 4
    for gradient in tree.gradients:
        assert jax.tree.map(np.shape, gradient) == jax.tree.map(np.shape, tree.params)
        assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("ratio, word", [(2.9, "met"), (3.1, "missed")])
def test_targets_are_for_the_full_tree_in_float32(ratio, word):
    row = {"tree": "resnet50", "method": "prox_adamw", "regularizer": "group_lasso", "dtype": "float32"}
    row |= {"device": "cpu", "ratio": ratio}
    assert verdicts(row) == f"ratio at most 3.0: {word}"
    assert verdicts(row | {"dtype": "bfloat16"}) == verdicts(row | {"tree": "matrix_4096"}) == ""
    assert verdicts(row | {"device": "gpu"}) == ""  # only RAMDA has a target on a GPU
