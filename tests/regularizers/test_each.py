"""Promises of all regularizers, and properties of each: ties, bounds, levels, ranks, refusals."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ramda_jax as rj
from ramda_jax.numerics import differentiable_group_norms
from tests.regularizers.cases import CASES, prox
from tests.tiny import array

pytestmark = pytest.mark.covering

every_case = pytest.mark.parametrize("name", CASES)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
HAS_LEVELS = ["Binary", "Quantized"]


def resolved(name):
    return CASES[name].regularizer.resolve("dense/kernel", CASES[name].shape)


# All of them.


@every_case
def test_regularizers_are_frozen_hashable_equal_by_value_and_not_callable(name):
    regularizer = CASES[name].regularizer
    copy = dataclasses.replace(regularizer)
    assert copy == regularizer and copy is not regularizer
    assert hash(copy) == hash(regularizer)
    assert regularizer == resolved(name).resolve("other/kernel", CASES[name].shape) or resolved(name) != regularizer
    assert not callable(regularizer)
    assert not jax.tree.leaves(regularizer) or jax.tree.leaves(regularizer) == [regularizer]
    for field in dataclasses.fields(regularizer):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(regularizer, field.name, getattr(regularizer, field.name))
    others = [other.regularizer for key, other in CASES.items() if key != name]
    assert regularizer not in others
    assert repr(regularizer).startswith(type(regularizer).__name__ + "(")


@every_case
def test_resolve_can_be_repeated_and_no_longer_depends_on_the_path(name):
    once = resolved(name)
    assert type(once) is type(CASES[name].regularizer)
    assert once.resolve("attention/query/kernel", CASES[name].shape) == once


@every_case
def test_methods_agree_on_shapes_and_dtypes(name):
    regularizer, shape = resolved(name), CASES[name].shape
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            w = jax.ShapeDtypeStruct(shape, dtype)
            if not (isinstance(regularizer, rj.Projection) and dtype in (jnp.bfloat16, jnp.float16)):
                value = jax.eval_shape(regularizer.value, w)
                assert value.shape == () and value.dtype == jnp.promote_types(dtype, jnp.float32)
            support = jax.eval_shape(regularizer.support, w)
            assert support.dtype == bool
            # The support covers each entry once. A rank does not count entries.
            if not isinstance(regularizer, rj.NuclearNorm):
                assert np.prod(support.shape) * regularizer.sizes(shape) == np.prod(shape)
            if dtype not in (jnp.float32, jnp.float64):
                continue
            x = jax.eval_shape(regularizer.prox, w, jax.ShapeDtypeStruct((), dtype))
            assert x.shape == shape and x.dtype == dtype
            distance = jax.eval_shape(regularizer.subdifferential_distance, w, w, jax.ShapeDtypeStruct((), dtype))
            assert distance.shape == () and distance.dtype == dtype
            screened = jax.eval_shape(regularizer.screen, w, jax.ShapeDtypeStruct((), dtype))
            assert screened is None or jnp.broadcast_shapes(screened.shape, shape) == shape


@every_case
def test_a_nan_goes_through(name):
    # A NaN must not become a zero, a bound or a level. (The projections are Optax's own.)
    shape = CASES[name].shape
    x = np.random.default_rng(0).normal(size=(60, *shape)).astype(np.float32)
    at = (0,) * len(shape)
    x[:, *at] = np.nan
    weight = np.repeat(np.float32([0.0, 1e-3, 1.0, 1e6]), 15)
    found = prox(CASES[name], x, weight)
    assert np.all(np.isnan(found[:, *at]))


@pytest.mark.parametrize("name", [name for name in CASES if not isinstance(CASES[name].regularizer, rj.Projection)])
def test_the_gradient_of_the_value_is_finite_where_groups_are_zero(name):
    case, regularizer = CASES[name], resolved(name)
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(regularizer.value(w))))
    w = jnp.asarray(np.random.default_rng(0).normal(size=case.shape), jnp.float32)
    for part in (w * 0, w.at[:2].set(0), w):
        assert np.isfinite(gradient(part)).all()
    if case.is_grouped:
        # The norm's derivative is 0, the smallest subgradient, at a zero group, and the gradient elsewhere.
        norms = regularizer.norms(w)
        own = jax.grad(lambda w: jnp.sum(differentiable_group_norms(w, regularizer.axes_inside(w.ndim))))
        assert not own(w * 0).any()
        np.testing.assert_allclose(own(w), w / norms, rtol=1e-5)


# 0 has no nearest point on a sphere.
@pytest.mark.parametrize("name", [name for name in CASES if name != "Projection sphere"])
def test_nothing_is_not_a_number_on_the_way_for_zero_leaves(name):
    case = CASES[name]
    regularizer = resolved(name)
    zero = jnp.zeros(case.shape)
    with jax.debug_nans(True):
        assert np.isfinite(regularizer.value(zero)) or case.is_indicator
        for weight in (0.0, 1.0):
            assert np.all(np.isfinite(regularizer.prox(zero, weight)))
            regularizer.screen(zero, weight)
            distance = float(regularizer.subdifferential_distance(zero, zero, weight))
            if np.isfinite(regularizer.value(zero)) and name != "Binary":  # 0 is a peak of it
                assert distance == 0
        regularizer.support(zero)


NAMES_FOR_EMPTY = [
    name
    for name in CASES
    if (not name.startswith("Projection") or name == "Projection non-negative") and not name.endswith("of weights")
]


def for_any_shape(name):
    regularizer = CASES[name].regularizer
    if isinstance(regularizer, rj.Scaled):
        return 2.0 * dataclasses.replace(regularizer.regularizer, **({"groups": 0} if CASES[name].is_grouped else {}))
    if isinstance(regularizer, rj.NofM):
        return rj.NofM(1, 3)
    return dataclasses.replace(regularizer, groups=0) if hasattr(regularizer, "groups") else regularizer


@pytest.mark.parametrize("name", NAMES_FOR_EMPTY)
def test_leaves_without_entries(name):
    for shape in ((0, 3), (3, 0)):
        regularizer = for_any_shape(name).resolve("dense/kernel", shape)
        empty = jnp.zeros(shape)
        with jax.debug_nans(True):
            assert float(regularizer.value(empty)) == 0
            assert regularizer.prox(empty, 1.0).shape == shape
            assert float(regularizer.subdifferential_distance(empty, empty, 1.0)) == 0
            regularizer.screen(empty, 1.0)
            assert not np.any(regularizer.support(empty))


@pytest.mark.slow_except("shape0")
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_leaves_without_entries_are_trained(shape):
    params = {f"layer{i}": {"kernel": jnp.zeros(shape)} for i in range(len(NAMES_FOR_EMPTY))}
    regularizers = {f"layer{i}/kernel": for_any_shape(name) for i, name in enumerate(NAMES_FOR_EMPTY)}
    optimizer = rj.ramda(0.1, regularizers, strength=1.0)
    updates, state = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    assert all(leaf.shape == shape for leaf in jax.tree.leaves(updates))
    assert bool(rj.solver_info(state).converged)


@every_dtype
@pytest.mark.parametrize(
    "name", [name for name in CASES if CASES[name].is_grouped or name.startswith(("L1", "MCP", "Nuclear"))]
)
def test_zeros_have_no_sign(name, dtype):
    # A -0.0 in the parameters would equal 0, but have other bits.
    shape = CASES[name].shape
    x = np.random.default_rng(0).normal(size=(60, *shape)).astype(dtype)
    found = prox(CASES[name], x, np.repeat(np.asarray([0.3, 1.0, 50.0], dtype), 20))
    assert np.sum(found == 0) >= 20 * found[0].size
    assert not np.any(np.signbit(found[found == 0]))


def test_zero_vectors_of_the_nuclear_norm_have_no_sign():
    for shape in ((1, 1), (5, 1), (1, 5)):
        x = -jnp.ones(shape)
        np.testing.assert_array_equal(np.asarray(rj.NuclearNorm(split=1).prox(x, 100.0)).view(np.int32), 0)


@every_case
def test_support_is_of_what_is_exactly_structured(name):
    regularizer, shape = resolved(name), CASES[name].shape
    w = np.random.default_rng(0).uniform(0.26, 0.29, size=shape).astype(np.float32)  # unstructured
    assert np.all(regularizer.support(jnp.asarray(w)))
    structured = {"Box": -0.5, "Box unbounded": 0.25, "Binary": -1.0, "Quantized": 0.3}.get(name, 0.0)
    w[0] = structured
    found = np.asarray(regularizer.support(jnp.asarray(w)))
    if name.startswith("NuclearNorm"):
        assert np.sum(found) == np.linalg.matrix_rank(w.reshape(-1, shape[-1]))
        return
    if len(shape) == 3:  # groups along the middle axis are not zero yet
        assert np.all(found)
        w[:, 0] = 0
        found = np.asarray(regularizer.support(jnp.asarray(w)))
        np.testing.assert_array_equal(found.reshape(-1), [False, True])
    elif name in ("Null", "Projection sphere") or structured == 0 or CASES[name].is_indicator:
        np.testing.assert_array_equal(np.broadcast_to(found, shape)[0], False)
        assert np.all(found[1:])


# L1, the sparse groups and MCP.


def test_l1_keeps_a_zero_a_zero_and_thresholds_at_the_border():
    x = jnp.array([1.0, -1.0, 1.0000001, 0.0, -0.0, jnp.inf, -jnp.inf])
    np.testing.assert_allclose(rj.L1().prox(x, 1.0), [0, 0, 1.1920929e-07, 0, 0, jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(rj.L1(factor=0.0).prox(x, 1.0), x)
    np.testing.assert_array_equal(rj.L1(factor=2.0).prox(jnp.array([3.0, -1.5]), 1.0), [1, 0])


@given(ratio=st.floats(0, 1), weight=st.floats(0.01, 3), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_sparse_group_lasso_is_one_prox_after_the_other(ratio, weight, seed):
    # Simon and others, 2013: shrink the entries first, then the groups.
    with jax.enable_x64(True):
        x = np.random.default_rng(seed).normal(size=(5, 4))
        found = rj.SparseGroupLasso((0,), group_weight=0.7, l1_ratio=ratio).prox(jnp.asarray(x), weight)
        entries = np.sign(x) * np.maximum(np.abs(x) - weight * ratio, 0)
        norms = np.linalg.norm(entries, axis=1, keepdims=True)
        factor = np.maximum(1 - weight * (1 - ratio) * 0.7 / np.where(norms == 0, 1, norms), 0)
        np.testing.assert_allclose(found, entries * factor, rtol=1e-12, atol=1e-14)


def test_mcp_does_not_shrink_what_is_beyond_its_knee():
    x = jnp.array([4.0, 4.000001, -17.3, 1e30])
    np.testing.assert_array_equal(rj.MCP(omega=4.0).prox(x, 1.0), x)
    rows = jnp.array([[3.0, 4.0], [-30.0, 40.0]])
    np.testing.assert_array_equal(rj.GroupMCP((0,), group_weight=1.0, omega=5.0).prox(rows, 1.0), rows)


# Box.


@given(
    lower=st.one_of(st.floats(-5, 1, width=32), st.just(-np.inf)),
    length=st.one_of(st.floats(0.125, 5, width=32), st.just(np.inf)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_box_reaches_its_bounds_exactly(lower, length, seed):
    upper = np.inf if np.isinf(length) else (length if np.isinf(lower) else lower + length)
    box = rj.Box(lower, upper)
    x = 6 * np.random.default_rng(seed).normal(size=50).astype(np.float32)
    found = np.asarray(box.prox(jnp.asarray(x), 0.5))
    low, high = np.float32(lower), np.float32(upper)
    np.testing.assert_array_equal(found, np.where(x < low, low, np.where(x > high, high, x)))
    assert float(box.value(jnp.asarray(found))) == 0
    np.testing.assert_array_equal(box.support(jnp.asarray(found)), (low < x) & (x < high))
    # Every positive weight gives the same.
    np.testing.assert_array_equal(box.prox(jnp.asarray(x), 1e-30), found)


def test_box_value_is_infinite_outside_and_unconstrained_without_a_weight():
    box = rj.Box(-1.0, np.inf)
    assert float(box.value(jnp.array([-1.0, 1e30]))) == 0
    assert float(box.value(jnp.array([-1.0000001, 0.0]))) == np.inf
    np.testing.assert_array_equal(box.prox(jnp.array([-3.0]), 0.0), [-3])
    assert float(box.value(jnp.array([jnp.nan]))) == np.inf


@pytest.mark.parametrize("metric", ["scalar", "diagonal"])
def test_box_bounds_are_reached_and_kept_in_training(metric):
    method = rj.ramda if metric == "diagonal" else rj.rmda
    optimizer = method(0.3, {"alpha": rj.Box(0.0, 1.0)}, strength=1.0, averaging=1.0)
    params = {"alpha": jnp.array([0.5, 0.5, 0.5])}
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    for _ in range(30):
        grads = {"alpha": jnp.array([1.0, -1.0, 0.0])}
        updates, state = step(grads, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params["alpha"], [0, 1, 0.5])


# Levels.


@every_dtype
@pytest.mark.parametrize("levels", [(0.0,), (-1.0, 1.0), (-1.0, 0.0, 0.1, 2.0), (0.1, 0.3), (-7.0, 1e-3, 5.0)])
def test_quantized_ends_at_the_levels_themselves_and_never_beyond(levels, dtype):
    with jax.enable_x64(dtype == np.float64):
        regularizer = rj.Quantized(levels)
        rng = np.random.default_rng(0)
        x = (3 * rng.normal(size=2000)).astype(dtype)
        exact = np.asarray(levels, dtype)
        nearest = exact[np.argmin(np.abs(x[:, None] - exact), axis=1)]
        for weight in (1e-3, 0.2, 1.0, 100.0):
            weight = np.asarray(weight, dtype)
            found = np.asarray(regularizer.prox(jnp.asarray(x), weight))
            is_level = np.abs(x - nearest) <= weight
            np.testing.assert_array_equal(found[is_level], nearest[is_level])
            moved = x[~is_level] - np.sign(x - nearest)[~is_level] * weight
            np.testing.assert_array_equal(found[~is_level], moved)
            assert np.all(np.abs(found - nearest) <= np.abs(x - nearest))
            assert np.all(np.sign(found - nearest) * np.sign(x - nearest) >= 0)
        np.testing.assert_array_equal(np.asarray(regularizer.prox(jnp.asarray(x), np.asarray(100, dtype))), nearest)
        assert float(regularizer.value(jnp.asarray(nearest))) == 0
        assert not np.any(regularizer.support(jnp.asarray(nearest)))
        np.testing.assert_array_equal(regularizer.nearest(jnp.asarray(nearest)), nearest)


def test_ties_between_levels_go_to_the_greater_one():
    x = jnp.array([0.0, -0.0, -1.0, 1.0])
    np.testing.assert_array_equal(rj.Binary().nearest(x), [1, 1, -1, 1])
    np.testing.assert_array_equal(rj.Binary().prox(x, 0.25), [0.25, 0.25, -1, 1])
    np.testing.assert_array_equal(rj.Binary().prox(x, 1.0), [1, 1, -1, 1])
    middle = jnp.array([-0.5, 0.5, 1.5])
    np.testing.assert_array_equal(rj.Quantized((-1.0, 0.0, 1.0, 2.0)).nearest(middle), [0, 1, 2])
    # Both levels are minimisers, because they are equally far.
    np.testing.assert_array_equal(rj.Binary().value(x), 2.0)


def test_levels_are_sorted_numbers_whatever_sequence_they_come_in():
    assert rj.Quantized([2, -1, 0]) == rj.Quantized((-1.0, 0.0, 2.0)) == rj.Quantized(np.array([0.0, 2.0, -1.0]))
    assert rj.Quantized(jnp.array([1.0, -1.0])).levels == (-1.0, 1.0) == rj.Binary().levels
    assert hash(rj.Quantized([0, 1])) == hash(rj.Quantized((1.0, 0.0)))


# The nuclear norm.


@functools.partial(jax.jit, static_argnums=0)
def nuclear(regularizer, w, weight):
    """The results of a nuclear norm's methods for a leaf, from one program."""
    prox = regularizer.prox(w, weight)
    return {
        "matrix": regularizer.matrix(w),
        "singular values": regularizer.singular_values(w),
        "value": regularizer.value(w),
        "prox": prox,
        "prox by Gram": dataclasses.replace(regularizer, gram=True).prox(w, weight),
        # Weights as the solver passes them: one number for the block.
        "prox and value": regularizer.prox_and_value(w, jnp.full((1,) * w.ndim, weight)),
        "support": regularizer.support(prox),
    }


@pytest.mark.parametrize(
    ("path", "shape", "split", "resolved_split", "rows", "columns"),
    [
        ("dense/kernel", (6, 4), None, 1, 6, 4),
        ("kernel", (6, 4), None, 1, 6, 4),
        ("conv/kernel", (3, 3, 5, 7), None, 3, 45, 7),
        ("conv/kernel", (3, 3, 5, 7), 2, 2, 9, 35),
        ("conv/kernel", (3, 3, 5, 7), 1, 1, 3, 105),
        ("conv/kernel", (3, 3, 5, 7), -2, 2, 9, 35),
        ("conv/kernel", (4, 5, 7), None, 2, 20, 7),
        ("attention/query/kernel", (8, 2, 3), None, 1, 8, 6),
        ("attention/key/kernel", (8, 2, 3), None, 1, 8, 6),
        ("attention/value/kernel", (8, 2, 3), None, 1, 8, 6),
        ("attention/out/kernel", (2, 3, 8), None, 2, 6, 8),
        ("attention/query/kernel", (8, 2, 3), 2, 2, 16, 3),
        ("head/query/kernel", (8, 6), None, 1, 8, 6),  # a dense layer with the name query
        ("stem/value/kernel", (3, 3, 5, 7), None, 3, 45, 7),
        ("query", (8, 2, 3), None, 2, 16, 3),  # a leaf with this name, not a layer
    ],
)
def test_nuclear_norm_splits_axes_into_rows_and_columns(path, shape, split, resolved_split, rows, columns):
    regularizer = rj.NuclearNorm(split).resolve(path, shape)
    assert regularizer.split == resolved_split
    w = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    matrix = w.reshape(rows, columns)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    weight = np.float32(np.median(s))
    found = jax.tree.map(np.asarray, nuclear(regularizer, w, weight))
    np.testing.assert_array_equal(found["matrix"], matrix)
    np.testing.assert_allclose(found["singular values"], s, rtol=1e-5)
    np.testing.assert_allclose(found["value"], np.sum(s), rtol=1e-5)
    expected = ((u * np.maximum(s - weight, 0)) @ vt).reshape(shape)
    np.testing.assert_allclose(found["prox"], expected, atol=1e-5)
    prox, value = found["prox and value"]
    np.testing.assert_allclose(prox, expected, atol=1e-5)
    np.testing.assert_allclose(value, np.sum(np.maximum(s - weight, 0)), rtol=1e-5)
    np.testing.assert_allclose(found["prox by Gram"], expected, atol=1e-5)
    assert np.sum(found["support"]) == np.sum(s > weight)


@functools.partial(jax.jit, static_argnums=0)
def prox_value_and_support(regularizer, w, weight):
    prox, value = regularizer.prox_and_value(w, weight)
    return prox, value, regularizer.support(prox)


def with_spectrum(rng, shape, singular, dtype):
    """A matrix with these singular values, rounded to the dtype, and the SVD in float64 of the rounded matrix."""
    left, right = (np.linalg.qr(rng.normal(size=(n, len(singular))))[0] for n in shape)
    matrix = ((left * singular) @ right.T).astype(dtype)
    return matrix, np.linalg.svd(matrix.astype(np.float64), full_matrices=False)


@every_dtype
@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (30, 30)])
def test_nuclear_prox_by_gram_errs_by_the_rounding_of_the_gram_matrix_over_the_threshold(shape, threshold, dtype):
    rng, scale = np.random.default_rng(0), 1e-22  # its square is zero in float32
    # Zero and small singular values, pairs close to the threshold on both sides, and larger ones.
    singular = np.concatenate(
        [np.linspace(0, threshold / 3, 8), threshold * np.array([0.7, 0.7, 1.3, 1.3]), [1.0, 1.0]]
    )
    with jax.enable_x64(dtype == np.float64):
        matrix, (u, s, vt) = with_spectrum(rng, shape, scale * singular, dtype)
        weight = threshold * scale
        regularizer = rj.NuclearNorm(split=1, gram=True)
        found, value, support = jax.tree.map(
            np.asarray, prox_value_and_support(regularizer, matrix, np.asarray(weight, dtype))
        )
    assert np.sum(support) == 4
    kept = np.maximum(s - weight, 0)
    # The rounding of products of n terms is about sqrt(n) eps, and of LAPACK's eigenvectors sqrt(n) eps of the largest.
    eps, n = np.finfo(dtype).eps, max(shape)
    bound = np.sqrt(n) * eps * np.sum(s**2) / weight + np.sqrt(n) * eps * np.linalg.norm(kept)
    assert found.dtype == dtype
    assert np.linalg.norm(found - (u * kept) @ vt) <= bound
    assert abs(value - np.sum(kept)) <= np.sqrt(len(s)) * bound
    # The bound is far from the nearest singular value, so the rank must be right.
    assert bound < 0.2 * weight
    assert np.linalg.matrix_rank(found / scale, tol=2 * bound / scale) == np.sum(kept > 0) == 4


def test_nuclear_prox_by_gram_is_zero_where_that_of_the_svd_is_and_lets_nan_through():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
    for gram in (False, True):
        regularizer = rj.NuclearNorm(split=1, gram=gram)
        largest = float(jnp.max(regularizer.singular_values(x)))
        np.testing.assert_array_equal(np.asarray(regularizer.prox(x, 1.01 * largest)).view(np.int32), 0)
        np.testing.assert_array_equal(regularizer.prox(x, 0.0), x)
        np.testing.assert_array_equal(regularizer.prox(jnp.zeros_like(x), 1.0), 0)
        assert np.all(np.isnan(regularizer.prox(x.at[1, 2].set(jnp.nan), 0.5)))


@pytest.mark.parametrize(
    ("split", "path", "shape", "message"),
    [
        (None, "dense/bias", (4,), r"leaf of two axes or more, but 'dense/bias' has shape \(4,\); leave it out"),
        (None, "scale", (), r"leaf of two axes or more, but 'scale' has shape \(\)"),
        (0, "dense/kernel", (4, 3), r"`split` must leave rows and columns, got 0 for 'dense/kernel' of shape \(4, 3\)"),
        (-2, "dense/kernel", (4, 3), "`split` must leave rows and columns, got -2"),
        (2, "dense/kernel", (4, 3), "got 2 for 'dense/kernel' .* use an axis from 1 to 1"),
        (-5, "conv/kernel", (3, 3, 2, 2), "got -5 for 'conv/kernel' .* use an axis from 1 to 3"),
    ],
)
def test_nuclear_norm_refuses_leaves_without_rows_or_columns(split, path, shape, message):
    with pytest.raises(ValueError, match=message):
        rj.NuclearNorm(split).resolve(path, shape)
    params = {path: jnp.ones(shape)}
    with pytest.raises(ValueError, match=message):
        rj.rmda(0.1, {re.escape(path): rj.NuclearNorm(split)}, strength=0.1).init(params)


def test_rank_is_counted_above_a_tolerance():
    w = jnp.asarray(np.diag([4.0, 1.0, 1e-3, 1e-12]).astype(np.float32))
    regularizer = rj.NuclearNorm(split=1)
    np.testing.assert_array_equal(regularizer.support(w), [True, True, True, False])
    np.testing.assert_array_equal(regularizer.support(w, rtol=1e-2), [True, True, False, False])
    np.testing.assert_array_equal(regularizer.support(w, rtol=0.0), [True, True, True, True])
    assert not np.any(regularizer.support(jnp.zeros((3, 3))))


@given(
    shape=st.sampled_from([(1, 1), (1, 6), (6, 1), (4, 4), (7, 3)]),
    seed=st.integers(0, 2**32 - 1),
    rank=st.integers(1, 4),
    exponent=st.floats(-30, 30),
    relative=st.floats(-1e-4, 1e-4),
)
@settings(max_examples=120)
def test_nuclear_screening_is_never_wrong(shape, seed, rank, exponent, relative):
    """If it says zero, the spectral norm is at most the weight, at any scale. Rank one is the tightest case."""
    rng = np.random.default_rng(seed)
    matrix = sum(np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1])) for _ in range(rank))
    if seed % 3 == 0:
        matrix = np.sign(matrix)  # with entries of one size the bound by row and column sums is tight
    matrix = (10.0**exponent * matrix / np.linalg.norm(matrix, 2)).astype(np.float32)
    spectral = np.linalg.norm(matrix.astype(float), 2)
    weight = np.float32(spectral * (1 + relative))
    screened = _screen(jnp.asarray(matrix), weight)
    if spectral > weight * (1 + 1e-6):
        assert not screened
    # The screen is useful: it says zero for every weight above the Frobenius norm, but never for a matrix with a NaN.
    assert _screen(jnp.asarray(matrix), np.float32(np.linalg.norm(matrix.astype(float)) * (1 + 1e-5)))
    assert not _screen(jnp.asarray(matrix).at[0, 0].set(jnp.nan), np.float32(3e38))


@jax.jit
def _screen(matrix, weight):
    screened = rj.NuclearNorm(split=1).screen(matrix, weight)
    assert screened.shape == (1, 1)
    return screened[0, 0]


def test_nuclear_screening_does_not_underflow():
    # The square of 1e-23 is 0 in float32.
    assert not rj.NuclearNorm(split=1).screen(jnp.full((2, 2), 1e-23), 1e-25)
    assert rj.NuclearNorm(split=1).screen(jnp.full((2, 2), 1e-23), 3e-23)


@pytest.mark.parametrize("metric", ["scalar", "diagonal"])
def test_leaves_of_equal_shape_are_solved_in_one_batch_as_if_alone(metric):
    rng = np.random.default_rng(0)
    shapes = {"a": (6, 4), "b": (6, 4), "c": (5, 4), "d": (6, 4), "e": (2, 3, 4), "f": (4, 6)}
    # The sizes are very different, so some leaves end after few iterations and some after many.
    linear = {k: array(rng.normal(size=s) * 10.0**i, jnp.float32) for i, (k, s) in enumerate(shapes.items())}
    anchor = {k: array(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}
    if metric == "diagonal":
        diagonal = {
            k: array(10.0 ** rng.uniform(-0.3 * i, 0, size=s), jnp.float32) for i, (k, s) in enumerate(shapes.items())
        }
    else:
        diagonal = {k: jnp.asarray(10.0**-i, jnp.float32) for i, k in enumerate(shapes)}
    start = {k: array(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}
    model = rj.QuadraticModel(linear, anchor, diagonal, jnp.float32(1.5))
    solver = rj.ProximalGradient(max_steps=200, rtol=1e-4) if metric == "diagonal" else None

    def solve(model, start):
        optimizer = rj.proximal_point(rj.NuclearNorm(), 0.3, solver)
        value, state = optimizer.update(model, optimizer.init(start), start)
        return value, state.info

    together, info = jax.jit(solve)(model, start)
    text = jax.jit(solve).lower(model, start).as_text()
    assert "tensor<3x6x4xf32>" in text  # three leaves in one batch
    steps = []
    for k in shapes:
        leaf_model = rj.QuadraticModel({k: linear[k]}, {k: anchor[k]}, {k: diagonal[k]}, model.weight)
        alone, alone_info = jax.jit(solve)(leaf_model, {k: start[k]})
        steps.append(int(alone_info.num_steps))
        scale = np.max(np.abs(alone[k])) + np.max(np.abs(linear[k] / diagonal[k]))
        np.testing.assert_allclose(together[k], alone[k], rtol=0, atol=3e-6 * scale)
    # A leaf that has converged waits for the others, and does not iterate on.
    assert abs(int(info.num_steps) - max(steps)) <= (2 if metric == "diagonal" else 0)
    assert metric == "scalar" or min(steps) < max(steps)


# Projections.


def test_projection_takes_any_function_and_is_compared_by_identity():
    simplex = rj.Projection(optax.projections.projection_simplex)
    assert simplex == rj.Projection(optax.projections.projection_simplex)
    ball = functools.partial(optax.projections.projection_l2_ball, scale=2.0)
    assert rj.Projection(ball) == rj.Projection(ball) != rj.Projection(functools.partial(ball))
    assert rj.Projection(ball).convex and not rj.Projection(ball, is_convex=False).convex
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(rj.Projection(ball).prox(x, 1e-9), x * 0.4, rtol=1e-6)
    np.testing.assert_array_equal(rj.Projection(ball).prox(x, 0.0), x)
    assert float(rj.Projection(ball).value(x)) == np.inf
    assert float(rj.Projection(ball).value(x * 0.4)) == 0


@pytest.mark.parametrize("method", [rj.rmda, rj.ramda, rj.prox_sgd, rj.prox_adamw], ids=lambda f: f.__name__)
def test_projection_keeps_every_iterate_in_its_set(method):
    optimizer = method(0.1, {"w": rj.Projection(optax.projections.projection_simplex)}, strength=1.0)
    params = {"w": jnp.array([0.2, 0.3, 0.5])}
    target = jnp.array([0.9, 0.4, -0.5])  # its projection is (0.75, 0.25, 0)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update({"w": params["w"] - target}, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["w"]

    carry = (params, optimizer.init(params))
    (params, state), iterates = jax.jit(lambda carry: jax.lax.scan(step, carry, length=2000))(carry)
    assert np.all(iterates >= 0)
    np.testing.assert_allclose(np.sum(iterates, axis=1), 1, rtol=1e-5)
    structured = rj.eval_params(state, params)["w"]
    np.testing.assert_allclose(structured, [0.75, 0.25, 0], atol=0.01)
    assert structured[2] == 0


# Refusals.


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rj.L1(-1.0), ValueError, "`factor` must be finite and at least 0, got -1.0"),
        (lambda: rj.L1(np.inf), ValueError, "`factor` must be finite and at least 0, got inf"),
        (lambda: rj.L1("much"), TypeError, "`factor` must be a real number .*, got 'much'"),
        (lambda: rj.L1(True), TypeError, "`factor` must be a real number .*, got True"),
        (lambda: rj.SparseGroupLasso(l1_ratio=1.5), ValueError, r"`l1_ratio` must be in \[0, 1\], got 1.5; use 0.0"),
        (lambda: rj.SparseGroupLasso(l1_ratio=-0.1), ValueError, r"`l1_ratio` must be in \[0, 1\], got -0.1"),
        (lambda: rj.SparseGroupLasso(l1_ratio=None), TypeError, "`l1_ratio` must be a real number .*, got None"),
        (lambda: rj.SparseGroupLasso("rows"), ValueError, "`groups` must be a known name or axes, got 'rows'"),
        (lambda: rj.MCP(0.0), ValueError, "`omega` must be finite and above 0, got 0.0; use for example omega=1.0"),
        (lambda: rj.MCP(np.nan), ValueError, "`omega` must be finite and above 0, got nan"),
        (lambda: rj.MCP("1"), TypeError, "`omega` must be a real number .*, got '1'"),
        (lambda: rj.GroupMCP(), ValueError, "Exactly one of `omega` and `gamma` .* omega=None and gamma=None; use"),
        (lambda: rj.GroupMCP(omega=1.0, gamma=2.0), ValueError, "Exactly one .* omega=1.0 and gamma=2.0; use"),
        (lambda: rj.GroupMCP(omega=-1.0), ValueError, "`omega` must be finite and above 0, got -1.0"),
        (lambda: rj.GroupMCP(gamma=0.0), ValueError, "`gamma` must be finite and above 0, got 0.0; .* gamma=1.0"),
        (lambda: rj.GroupMCP("rows", omega=1.0), ValueError, "`groups` must be a known name or axes, got 'rows'"),
        (lambda: rj.GroupMCP(group_weight="size", omega=1.0), ValueError, "`group_weight` must be one of .*, got 'si"),
        (lambda: rj.SparseGroupMCP(omega=1.0, l1_ratio=2.0), ValueError, r"`l1_ratio` must be in \[0, 1\], got 2.0"),
        (lambda: rj.SparseGroupMCP(), ValueError, "Exactly one of `omega` and `gamma` must be given"),
        (lambda: rj.SparseGroupMCP(gamma=-2.0), ValueError, "`gamma` must be finite and above 0, got -2.0"),
        (lambda: rj.NuclearNorm(factor=-2.0), ValueError, "`factor` must be finite and at least 0, got -2.0"),
        (lambda: rj.NuclearNorm(split=1.0), TypeError, "`split` must be an axis or None, got 1.0; use -1"),
        (lambda: rj.NuclearNorm(split=True), TypeError, "`split` must be an axis or None, got True"),
        (lambda: rj.NuclearNorm(gram=1), TypeError, "`gram` must be True or False, got 1"),
        (
            lambda: rj.Box(1.0, 0.0),
            ValueError,
            "`lower` must be below `upper`, got 1.0 and 0.0; swap them",
        ),
        (lambda: rj.Box(1.0, 1.0), ValueError, "`lower` must be below `upper`, got 1.0 and 1.0"),
        (lambda: rj.Box(np.nan, 1.0), ValueError, "`lower` must be below `upper`, got nan and 1.0"),
        (lambda: rj.Box(None, 1.0), TypeError, "`lower` and `upper` must be Python numbers, got None and 1.0"),
        (lambda: rj.Box(jnp.zeros(2), 1.0), TypeError, "`lower` and `upper` must be Python numbers"),
        (lambda: rj.Quantized(()), ValueError, r"`levels` must be finite and different, got \(\); use for example"),
        (lambda: rj.Quantized((1.0, 1)), ValueError, r"`levels` must be finite and different, got \(1.0, 1\)"),
        (lambda: rj.Quantized((0.0, np.inf)), ValueError, "`levels` must be finite and different"),
        (lambda: rj.Quantized((0.0, np.nan)), ValueError, "`levels` must be finite and different"),
        (lambda: rj.Quantized(3.0), TypeError, "`levels` must be a sequence of numbers, got 3.0; use for example"),
        (lambda: rj.Quantized("ab"), TypeError, "`levels` must be a sequence of numbers, got 'ab'"),
        (lambda: rj.Binary((1.0, 1.0)), ValueError, "`levels` must be finite and different"),
        (lambda: rj.Projection(3), TypeError, "`function` must be a projection, got 3; use one of `optax.projections`"),
    ],
)
def test_bad_settings_are_refused_by_name_with_a_remedy(make, error, message):
    with pytest.raises(error, match=message):
        make()
