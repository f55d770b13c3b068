"""Metrics against hand-made trees and a naive loop over entries."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import GroupLasso, Null, metrics
from tests.reference import group_norm

# A tree for counts by hand. Groups are rows of `dense` and slices [:, :, i, :] of `conv`.
BY_HAND = {
    "dense": {
        "kernel": jnp.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),  # 1 of 3 groups is alive, of 2 entries each
        "bias": jnp.array([0.0, 5.0]),
    },
    "conv": {"kernel": jnp.zeros((2, 1, 2, 4)).at[1, 0, 1, 3].set(-2.0)},  # 1 of 2 groups is alive, of 8 entries each
}


def test_sparsities_of_a_tree_counted_by_hand():
    regularizer = GroupLasso()
    assert float(metrics.group_sparsity(regularizer, BY_HAND)) == pytest.approx(3 / 5)
    assert float(metrics.weighted_group_sparsity(regularizer, BY_HAND)) == pytest.approx((2 * 2 + 8) / (6 + 16))
    # The kernels are [:, :, i, o] in the convolution, where 7 of 8 are zero, and the groups in the dense layer.
    assert float(metrics.kernel_sparsity(regularizer, BY_HAND)) == pytest.approx((7 + 2) / (8 + 3))
    assert float(metrics.unstructured_sparsity(regularizer, BY_HAND)) == pytest.approx((5 + 15 + 1) / 24)
    only = metrics.unstructured_sparsity(regularizer, BY_HAND, regularized_only=True)
    assert float(only) == pytest.approx((5 + 15) / 22)


def test_sparsities_follow_the_regularizer_that_is_given():
    columns = {"dense/kernel": GroupLasso("output"), ".*": None}
    assert float(metrics.group_sparsity(columns, BY_HAND)) == pytest.approx(1 / 2)
    assert float(metrics.weighted_group_sparsity(columns, BY_HAND)) == pytest.approx(3 / 6)
    assert float(metrics.unstructured_sparsity(columns, BY_HAND, regularized_only=True)) == pytest.approx(5 / 6)
    whole = {"conv": GroupLasso(())}
    assert float(metrics.group_sparsity(whole, BY_HAND)) == 0


SHAPES = {"a": {"kernel": (4, 3), "bias": (3,)}, "b": {"kernel": (3, 2, 4, 3)}, "c": {"kernel": (2, 3, 2)}}


@pytest.mark.covering
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("spec", "axes"),
    [
        (GroupLasso(), {"a/kernel": (0,), "b/kernel": (2,), "c/kernel": (1,)}),
        ({"kernel": GroupLasso("output")}, {"a/kernel": (1,), "b/kernel": (3,), "c/kernel": (2,)}),
        ({"^[bc]/": GroupLasso("kernel")}, {"b/kernel": (2, 3), "c/kernel": (1, 2)}),
        ({"a/bias": GroupLasso(0)}, {"a/bias": (0,)}),
    ],
    ids=["input", "output", "kernel", "bias"],
)
def test_sparsities_are_those_of_a_naive_loop(spec, axes, seed):
    rng = np.random.default_rng(seed)
    params = {
        layer: {
            name: rng.normal(size=shape) * (rng.uniform(size=shape) < rng.uniform()) for name, shape in leaves.items()
        }
        for layer, leaves in SHAPES.items()
    }
    zero = groups = zero_entries = entries = zero_singles = zero_kernels = kernels = 0
    for path, group_axes in axes.items():
        layer, name = path.split("/")
        leaf = params[layer][name]
        rows = group_norm.rows(leaf, group_axes)
        is_zero = [all(entry == 0 for entry in row) for row in rows]
        zero, groups = zero + sum(is_zero), groups + len(rows)
        zero_entries, entries = zero_entries + sum(is_zero) * rows.shape[1], entries + leaf.size
        zero_singles += int(np.sum(leaf == 0))
        if leaf.ndim > 2:
            is_zero = [
                not np.any(leaf[..., i, o]) for i, o in itertools.product(range(leaf.shape[-2]), range(leaf.shape[-1]))
            ]
        zero_kernels, kernels = zero_kernels + sum(is_zero), kernels + len(is_zero)
    everything = np.concatenate([leaf.reshape(-1) for leaves in params.values() for leaf in leaves.values()])
    tree = jax.tree.map(jnp.asarray, params)
    expected = {
        "group_sparsity": zero / groups,
        "weighted_group_sparsity": zero_entries / entries,
        "kernel_sparsity": zero_kernels / kernels,
        "unstructured_sparsity": np.mean(everything == 0),
    }
    for name, value in expected.items():
        function = getattr(metrics, name)
        assert float(function(spec, tree)) == pytest.approx(value, abs=1e-7)
        assert float(jax.jit(lambda p, f=function: f(spec, p))(tree)) == pytest.approx(value, abs=1e-7)
    only = metrics.unstructured_sparsity(spec, tree, regularized_only=True)
    assert float(only) == pytest.approx(zero_singles / entries, abs=1e-7)
    assert 0 < expected["unstructured_sparsity"] < 1


@pytest.mark.parametrize(
    "name", ["group_sparsity", "weighted_group_sparsity", "kernel_sparsity", "unstructured_sparsity"]
)
def test_sparsity_of_nothing_is_zero(name):
    function = getattr(metrics, name)
    keywords = {"regularized_only": True} if name == "unstructured_sparsity" else {}
    for spec in (None, {"kernel": None}, Null()):
        value = function(spec, {"kernel": jnp.zeros((3, 2))}, **keywords)
        assert isinstance(value, jax.Array)
        assert float(value) == 0
    assert float(function(GroupLasso(), {}, **keywords)) == 0


def test_zero_means_exactly_zero_and_negative_zero_too():
    params = {"kernel": jnp.array([[1e-30, 0.0], [-0.0, 0.0]])}
    assert float(metrics.group_sparsity(GroupLasso(), params)) == 0.5


def test_layer_table_lists_alive_and_total_groups():
    assert metrics.layer_table(GroupLasso(), BY_HAND).splitlines() == [
        "leaf          alive  groups  sparsity",
        "conv/kernel       1       2    50.0 %",
        "dense/kernel      1       3    66.7 %",
        "total             2       5    54.5 %",
    ]
    assert metrics.layer_table(None, {}).splitlines()[-1].split() == ["total", "0", "0", "0.0", "%"]
    assert "(the array)" in metrics.layer_table(GroupLasso(0), jnp.ones(3))


def test_objective_adds_strength_times_psi_of_all_regularized_leaves():
    params = {"a": {"kernel": jnp.array([[3.0, 4.0], [0.0, 2.0]])}, "b": {"bias": jnp.array([7.0])}}
    regularizer = GroupLasso(group_weight=2.0)
    assert float(metrics.objective(regularizer, params, 1.5, 0.1)) == pytest.approx(1.5 + 0.1 * 2 * (5 + 2))
    assert float(metrics.objective(None, params, 1.5, 0.1)) == 1.5
