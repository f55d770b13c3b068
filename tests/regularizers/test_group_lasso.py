"""GroupLasso: value, prox, subdifferential and support belong to the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramda_jax import GroupLasso
from tests.reference import group_norm

# Pairs (shape, group axes).
LAYOUTS = [
    ((6, 5), (0,)),
    ((6, 5), (1,)),
    ((3, 3, 4, 2), (2,)),
    ((2, 3, 4), (0, 1)),
    ((7,), (0,)),
    ((7,), ()),
    ((), ()),
]


def shrunk(x, group_axes, threshold):
    """The prox by its formula, with the groups as rows."""
    norms = group_norm.norms(x, group_axes)[:, None]
    factor = np.where(norms <= threshold, 0, 1 - threshold / np.where(norms == 0, 1, norms))
    return group_norm.wide(group_norm.rows(x, group_axes)) * factor


@st.composite
def points(draw):
    shape, group_axes = draw(st.sampled_from(LAYOUTS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=shape) * 10.0 ** draw(st.floats(-20, 20))
    zero = rng.uniform(size=[n if i in group_axes else 1 for i, n in enumerate(shape)]) < draw(st.floats(0, 0.5))
    x = np.where(zero, 0, x)
    quantile = np.quantile(group_norm.norms(x, group_axes).astype(float), draw(st.floats(0, 1)))
    return x, group_axes, quantile * draw(st.sampled_from([0, 0.3, 0.99, 1.5])), rng


@pytest.mark.covering
@pytest.mark.parametrize("group_weight", ["sqrt_size", "sqrt_layer_size", 0.0, 0.3])
@pytest.mark.parametrize(("shape", "group_axes"), LAYOUTS)
def test_value_is_the_sum_of_the_weighted_norms(x64, shape, group_axes, group_weight):
    x = np.random.default_rng(0).normal(size=shape)
    rows = group_norm.rows(x, group_axes)
    omega = {"sqrt_size": np.sqrt(rows.shape[1]), "sqrt_layer_size": np.sqrt(rows.size)}.get(group_weight, group_weight)
    expected = sum(omega * np.sqrt(sum(entry**2 for entry in row)) for row in rows)
    value = GroupLasso(group_axes, group_weight).value(jnp.asarray(x))
    assert value.shape == ()
    assert value.dtype == x.dtype
    np.testing.assert_allclose(value, expected, rtol=1e-14)


def test_value_of_narrow_floats_is_float32():
    # The sum of 1000 ones would stop at 256 in bfloat16.
    value = GroupLasso((0,), group_weight=1.0).value(jnp.ones((1000, 1), jnp.bfloat16))
    assert value.dtype == jnp.float32
    assert float(value) == 1000


@settings(max_examples=80)
@given(problem=points())
def test_prox_minimises_its_own_value(problem):
    x, group_axes, weight, rng = problem
    regularizer = GroupLasso(group_axes)
    with jax.enable_x64(True):
        z = regularizer.prox(jnp.asarray(x), weight)
        assert z.shape == x.shape

        def objective(y):
            return float(0.5 * jnp.sum(jnp.square(y - x)) + weight * regularizer.value(y))

        lowest = objective(z)
        slack = 1e-14 * float(np.sum(x**2))
        competitors = [np.zeros_like(x), x]
        for size in (1e-4, 1e-2, 1.0):
            competitors.append(np.asarray(z) * (1 + size * rng.normal(size=x.shape)))
            competitors.append(np.asarray(z) + size * rng.normal(size=x.shape) * np.max(np.abs(x)))
        assert all(lowest <= objective(jnp.asarray(y)) + slack for y in competitors)


@settings(max_examples=80)
@given(problem=points())
def test_prox_is_the_point_whose_slope_lies_in_the_subdifferential(problem):
    x, group_axes, weight, _ = problem
    regularizer = GroupLasso(group_axes)
    eps = np.finfo(float).eps
    with jax.enable_x64(True):
        z = regularizer.prox(jnp.asarray(x), weight)
        ours = float(regularizer.subdifferential_distance(z, jnp.asarray(x) - z, weight))
        z = np.asarray(z)
    size = np.sqrt(group_norm.rows(x, group_axes).shape[1])
    problem = (z, x, np.ones_like(x), group_norm.wide(weight * size), group_axes)
    limit = 8 * eps * np.sqrt(np.sum(group_norm.norms(x, group_axes) ** 2))
    assert group_norm.distance([problem]) <= limit
    assert ours <= limit


@settings(max_examples=80)
@given(problem=points())
def test_prox_and_projection_add_up_to_the_point(problem):
    # Moreau: x = prox of the norm + projection on the ball of the dual norm.
    x, group_axes, weight, _ = problem
    rows = group_norm.wide(group_norm.rows(x, group_axes))
    radius = group_norm.wide(weight) * np.sqrt(group_norm.wide(rows.shape[1]))
    norms = group_norm.norms(x, group_axes)[:, None]
    projection = rows * np.minimum(1, radius / np.where(norms == 0, 1, norms))
    with jax.enable_x64(True):
        z = np.asarray(GroupLasso(group_axes).prox(jnp.asarray(x), weight))
    error = np.abs(group_norm.rows(z, group_axes) + projection - rows)
    assert np.all(error <= 8 * np.finfo(float).eps * norms)


@pytest.mark.parametrize(("shape", "group_axes"), LAYOUTS)
def test_prox_is_its_formula_with_one_weight_for_each_group(x64, shape, group_axes):
    # Solvers with a step size for each block pass an array of weights.
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape)
    regularizer = GroupLasso(group_axes, group_weight=1.0)
    weight = rng.uniform(0, 2, size=regularizer.radii_shape(shape))
    expected = shrunk(x, group_axes, group_norm.rows(weight, group_axes))
    z = np.asarray(regularizer.prox(jnp.asarray(x), jnp.asarray(weight)))
    np.testing.assert_allclose(group_norm.rows(z, group_axes), expected.astype(float), rtol=1e-13)


@pytest.mark.parametrize(("shape", "group_axes"), LAYOUTS)
def test_subdifferential_distance_is_the_reference_away_from_the_solution(x64, shape, group_axes):
    rng = np.random.default_rng(2)
    w, slope = rng.normal(size=shape), rng.normal(size=shape)
    w = np.where(rng.uniform(size=[n if i in group_axes else 1 for i, n in enumerate(shape)]) < 0.4, 0, w)
    weight = 0.3
    lam = weight * np.sqrt(group_norm.rows(w, group_axes).shape[1])
    expected = group_norm.distance([(w, slope + w, np.ones_like(w), lam, group_axes)])
    found = GroupLasso(group_axes).subdifferential_distance(jnp.asarray(w), jnp.asarray(slope), weight)
    np.testing.assert_allclose(float(found), float(expected), rtol=1e-13)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("group_weight", [0.0, 1.0])
def test_zero_groups_of_weight_zero_are_no_zero_over_zero(jit, weight, group_weight):
    x = jnp.zeros((3, 4)).at[1].set(2.0)
    regularizer = GroupLasso((0,), group_weight=group_weight)

    def everything(x, weight):
        return (
            regularizer.value(x),
            regularizer.prox(x, weight),
            regularizer.subdifferential_distance(x, x, weight),
            regularizer.screen(x, weight),
            regularizer.norms(x),
        )

    with jax.debug_nans(True):
        _, z, *_ = (jax.jit(everything) if jit else everything)(x, jnp.float32(weight))
    shrink = 1 - weight * group_weight / 4
    np.testing.assert_allclose(z, x * shrink)
    np.testing.assert_array_equal(z[0], 0)


def test_prox_lets_a_nan_through_in_its_own_group_only():
    x = jnp.full((3, 4), 0.1).at[1, 2].set(jnp.nan).at[2].set(5.0)
    z = np.asarray(GroupLasso((0,), group_weight=1.0).prox(x, 1.0))
    np.testing.assert_array_equal(z[0], 0)
    assert np.all(np.isnan(z[1]))
    np.testing.assert_allclose(z[2], 5.0 * (1 - 1 / 10), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-36, 1e-23, 1e-3, 1e18, 1e30])
def test_norms_neither_overflow_nor_underflow(scale):
    x = np.random.default_rng(3).normal(size=(5, 100)) * scale
    x[2] = 0
    norms = np.asarray(GroupLasso((0,)).norms(jnp.asarray(x, jnp.float32)))
    assert norms.shape == (5, 1)
    np.testing.assert_allclose(norms[:, 0], group_norm.norms(np.float32(x), (0,)).astype(float), rtol=1e-6)
    assert norms[2] == 0


@pytest.mark.parametrize(("shape", "group_axes"), LAYOUTS)
def test_support_and_sizes_are_those_of_a_loop_over_groups(shape, group_axes):
    rng = np.random.default_rng(4)
    x = rng.normal(size=shape) * (rng.uniform(size=shape) < 0.3)
    regularizer = GroupLasso(group_axes)
    support = np.asarray(regularizer.support(jnp.asarray(x)))
    rows = group_norm.rows(x, group_axes)
    assert support.shape == regularizer.radii_shape(shape)
    assert support.reshape(-1).tolist() == [any(entry != 0 for entry in row) for row in rows]
    assert regularizer.sizes(shape) == rows.shape[1]


def test_support_has_no_tolerance():
    x = jnp.zeros((2, 3)).at[1, 1].set(1e-30)
    np.testing.assert_array_equal(GroupLasso((0,)).support(x), [[False], [True]])


@settings(max_examples=60)
@given(problem=points())
def test_screen_is_where_the_solution_is_zero(problem):
    x, group_axes, weight, rng = problem
    regularizer = GroupLasso(group_axes)
    metric = 10.0 ** rng.uniform(-3, 1, size=x.shape)
    with jax.enable_x64(True):
        screened = np.asarray(regularizer.screen(jnp.asarray(x), weight)).reshape(-1)
    size = np.sqrt(group_norm.rows(x, group_axes).shape[1])
    # Any metric will do, because the optimality conditions at 0 do not contain it.
    w, _, _ = group_norm.solve(x, metric, weight * size, group_axes)
    border = np.abs(group_norm.norms(x, group_axes) - weight * size) <= 1e-14 * group_norm.norms(x, group_axes)
    np.testing.assert_array_equal(screened[~border], np.all(w == 0, axis=1)[~border])


def test_regularizers_are_hashable_equal_by_value_and_not_callable():
    assert GroupLasso("input") == GroupLasso() != GroupLasso("output")
    assert hash(GroupLasso((0, 1), 1)) == hash(GroupLasso([0, 1], 1.0))
    assert not callable(GroupLasso())
    assert GroupLasso().convex
    assert not GroupLasso().elementwise
