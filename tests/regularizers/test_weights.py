"""Relative weights: scaled regularizers, weights per group and adaptive weights."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax as rj
from ramda_jax.structure import adaptive_weights
from tests.tiny import normal_tree, train

PARAMS = {"first": {"kernel": (6, 4)}, "second": {"kernel": (4, 3)}}
WEIGHTS = np.array([[0.0], [0.5], [1.0], [2.0], [3.0], [50.0]])


def gradient(params):
    return jax.tree.map(jnp.sin, params)


@pytest.mark.slow_except("GroupLasso(groups='input', group_weight='sqrt_size', non_negative=False)")
@pytest.mark.parametrize(
    "regularizer",
    [rj.GroupLasso(), rj.SparseGroupMCP(omega=1.0), rj.L1(), rj.MCP(1.0), rj.NuclearNorm(), rj.TopGroups(0.5)],
    ids=repr,
)
def test_two_times_a_regularizer_is_twice_the_strength(regularizer):
    params = normal_tree(PARAMS)
    found, state = train(rj.ramda(0.3, 2.0 * regularizer, strength=0.1, averaging=0.5), gradient, params, 3)
    expected, other = train(rj.ramda(0.3, regularizer, strength=0.2, averaging=0.5), gradient, params, 3)
    for one, two in ((found, expected), (rj.eval_params(state, found), rj.eval_params(other, expected))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, two)
    for metric in ("scalar", "diagonal"):
        assert rj.default_solver(2.0 * regularizer, metric) == rj.default_solver(regularizer, metric)
    before = rj.metrics.layer_table(regularizer, expected)
    assert rj.metrics.layer_table(2.0 * regularizer, expected) == before
    assert isinstance(2.0 * regularizer, rj.regularizers.GroupRegularizer) == isinstance(
        regularizer, rj.regularizers.GroupRegularizer
    )


def test_factors_multiply_and_keep_the_class_where_it_has_one():
    assert 2 * rj.L1() == rj.L1() * np.float64(2.0) == np.float32(2.0) * rj.L1() == rj.L1(factor=2.0)
    assert 3.0 * (2.0 * rj.NuclearNorm()) == rj.NuclearNorm(factor=6.0)
    assert 3.0 * (2.0 * rj.GroupLasso()) == rj.Scaled(rj.GroupLasso(), 6.0) == rj.GroupLasso() * 6
    assert 2.0 * rj.GroupLasso() != 3.0 * rj.GroupLasso() and hash(2.0 * rj.GroupLasso()) == hash(rj.GroupLasso() * 2)
    x = jnp.array([[-1.0, 2.0]])
    np.testing.assert_array_equal((0.0 * rj.L1(non_negative=True)).prox(x, 1.0), x)
    assert float((0.0 * rj.Box()).value(x)) == 0
    for regularizer in (2.0 * rj.GroupLasso(), 2.0 * rj.MCP(1.0), rj.GroupLasso(group_weight=WEIGHTS)):
        assert pickle.loads(pickle.dumps(regularizer)) == copy.deepcopy(regularizer) == regularizer


def test_scaled_leaves_of_all_compete_with_the_others():
    params = normal_tree(PARAMS)
    together = rj.TopGroups(0.5, over="all")
    expected, _ = train(rj.rmda(0.1, together, strength=1.0, averaging=1.0), gradient, params, 1)
    for regularizer in (
        {"first/kernel": together, "second/kernel": 2.0 * together},
        {"first/kernel": rj.Scaled(together, 3.0), "second/kernel": rj.Scaled(together, 2.0)},
    ):
        found, _ = train(rj.rmda(0.1, regularizer, strength=1.0, averaging=1.0), gradient, params, 1)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    assert 0 * together == rj.Null()


@pytest.mark.parametrize("as_given", ["array", "jax array", "list", "function", "function of a number"])
def test_weights_per_group_are_those_of_single_groups(as_given):
    given = {
        "array": WEIGHTS,
        "jax array": jnp.asarray(WEIGHTS),
        "list": WEIGHTS.tolist(),
        "function": lambda path, shape: WEIGHTS if path == "dense/kernel" else 1.0,
        "function of a number": lambda path, shape: float(shape[0]),
    }[as_given]
    weights = np.full((6, 1), 6.0) if as_given == "function of a number" else WEIGHTS
    regularizer = rj.GroupLasso(group_weight=given).resolve("dense/kernel", (6, 4))
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32) * 3
    rows = [rj.GroupLasso(group_weight=float(w[0])).prox(x[i : i + 1], 0.5) for i, w in enumerate(weights)]
    np.testing.assert_allclose(regularizer.prox(x, 0.5), np.concatenate(rows), rtol=1e-6)
    np.testing.assert_allclose(regularizer.value(x), np.sum(weights[:, 0] * np.linalg.norm(x, axis=1)), rtol=1e-6)
    assert hash(regularizer) == hash(rj.GroupLasso(group_weight=given).resolve("dense/kernel", (6, 4)))
    assert regularizer.resolve("other", (6, 4)) == regularizer


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_per_group_keep_the_dtype(dtype, x64):
    x = np.ones((6, 4), dtype)
    regularizer = rj.GroupLasso((0,), WEIGHTS)
    assert regularizer.prox(x, 1.0).dtype == regularizer.value(x).dtype == dtype
    _, state = train(rj.ramda(0.1, regularizer, 0.1), gradient, {"kernel": jnp.asarray(x)}, 1)
    assert state[1].radii["kernel"].dtype == dtype


def test_adaptive_weights_are_the_formula_and_train():
    params = normal_tree({"kernel": (6, 4)})
    params["kernel"] = params["kernel"].at[2].set(0.0)
    norms = np.linalg.norm(params["kernel"], axis=1, keepdims=True)
    for regularizer in (rj.GroupLasso(), 2.0 * rj.GroupLasso(), rj.GroupLasso(group_weight=WEIGHTS)):
        adaptive = adaptive_weights(regularizer, params, power=0.5, eps=0.1)["^kernel$"]
        expected = regularizer.weights((6, 4)) * (norms / norms.mean() + 0.1) ** -0.5
        np.testing.assert_allclose(adaptive.weights((6, 4)), expected, rtol=1e-6)
    optimizer = rj.ramda(0.1, adaptive_weights(rj.GroupLasso(), params), 0.05, averaging=1.0)
    found, _ = train(optimizer, gradient, params, 3)
    assert not np.any(found["kernel"][2])
    np.testing.assert_allclose(  # all norms are 0, so each counts as average
        adaptive_weights(rj.GroupLasso(), {"kernel": jnp.zeros((2, 3))})["^kernel$"].weights((2, 3)), 3**0.5 / 1.01
    )


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: -1.0 * rj.GroupLasso(), ValueError, "`factor` must be finite and at least 0, got -1.0"),
        (lambda: -1.0 * rj.L1(), ValueError, "`factor` must be finite and at least 0, got -1.0"),
        (lambda: "two" * rj.MCP(1.0), TypeError, "`factor` must be a real number or a schedule, got 'two'"),
        (lambda: jnp.array(2.0) * rj.MCP(1.0), TypeError, "`factor` must be a Python number"),
        (lambda: (lambda step: 2.0) * rj.MCP(1.0), TypeError, "`factor` must be a Python number"),
        (lambda: rj.Scaled(None, 2.0), TypeError, "`regularizer` must be a `Regularizer`, got None"),
        (lambda: rj.GroupLasso(group_weight=-WEIGHTS), ValueError, "`group_weight` must be finite and at least 0"),
        (
            lambda: rj.GroupLasso(group_weight=WEIGHTS * np.nan),
            ValueError,
            "`group_weight` must be finite and at least",
        ),
        (lambda: rj.GroupLasso(group_weight=[["a"]]), TypeError, "`group_weight` must hold real numbers"),
        (lambda: rj.GroupLasso(group_weight=True), TypeError, "`group_weight` must be a real number"),
        (
            lambda: rj.GroupLasso(group_weight=WEIGHTS).resolve("dense/kernel", (5, 4)),
            ValueError,
            r"must broadcast against one number per group, of shape \(5, 1\) for 'dense/kernel', got shape \(6, 1\)",
        ),
        (
            lambda: rj.GroupLasso(0, lambda path, shape: 1.0).weights((2, 3)),
            ValueError,
            r"use `resolve\(path, shape\)`",
        ),
        (lambda: rj.L1(non_negative=1), TypeError, "`non_negative` must be True or False, got 1"),
        (lambda: rj.GroupLasso(non_negative=1), TypeError, "`non_negative` must be True or False, got 1"),
        (lambda: adaptive_weights(rj.L1(), {"kernel": jnp.ones((2, 3))}), ValueError, "regularizers of group norms"),
        (lambda: adaptive_weights(rj.GroupLasso(), {}, power=0.0), ValueError, "`power` must be finite and above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()
