"""Numerical helpers over the whole range of floats."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax.numerics import at_step, cbrt, group_norms, next_count, one_pass_norms, scalars_dtype, sums_dtype

BITS = {np.float32: np.uint32, np.float64: np.uint64}


def ulps(found, x):
    """The error of `found` against the cube root in NumPy's widest float, in units in the last place."""
    exact = np.cbrt(x.astype(np.longdouble))
    return np.abs(found.astype(np.longdouble) - exact) / np.spacing(exact.astype(x.dtype)).astype(np.longdouble)


def floats_of_all_sizes(dtype, count=1_000_000):
    """Non-negative finite floats with uniform bits, so that every exponent occurs, also of denormals."""
    uint = BITS[dtype]
    rng = np.random.default_rng(0)
    largest = int(np.asarray(np.finfo(dtype).max).view(uint))
    bits = rng.integers(0, largest, size=count, endpoint=True, dtype=uint)
    # Add the neighbours of all powers of two, and many denormals.
    exponents = np.arange(0, largest + 1, 1 << np.finfo(dtype).nmant, dtype=uint)
    near = (exponents[:, None] + np.arange(4, dtype=uint)).reshape(-1)
    below = (exponents[1:, None] - np.arange(1, 5, dtype=uint)).reshape(-1)
    denormal = rng.integers(1, 1 << np.finfo(dtype).nmant, size=count // 10, dtype=uint)
    tiny = np.asarray([1, 2, 3], uint) << np.arange(np.finfo(dtype).nmant - 2, dtype=uint)[:, None]
    return np.concatenate([bits, near, below, denormal, tiny.reshape(-1)]).view(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_cbrt_is_within_four_units_in_the_last_place_over_all_floats(dtype):
    x = floats_of_all_sizes(dtype)
    x = x[(x > 0) & np.isfinite(x)]
    assert np.sum(x < np.finfo(dtype).tiny) > 1000
    with jax.enable_x64(dtype == np.float64):
        found = np.asarray(jax.jit(cbrt)(x))
    assert found.dtype == dtype
    assert np.max(ulps(found, x)) <= 4
    exact = np.cbrt(x.astype(np.longdouble))
    assert np.max(np.abs(found - exact) / exact) <= 2.5 * np.finfo(dtype).eps


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_cbrt_at_the_ends_of_the_range(dtype, jit):
    info = np.finfo(dtype)
    x = np.array([info.smallest_subnormal, info.tiny, np.nextafter(info.tiny, dtype(0)), info.max, 1, 8, 27], dtype)
    with jax.enable_x64(dtype == np.float64):
        function = jax.jit(cbrt) if jit else cbrt
        found = np.asarray(function(jnp.asarray(x)))
        assert np.all(ulps(found, x) <= 4)
        special = np.asarray(function(jnp.asarray([0, np.inf, np.nan], dtype)))
    np.testing.assert_array_equal(special, [0, np.inf, np.nan])
    assert not np.signbit(special[0])


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_cbrt_keeps_the_shape(shape):
    x = jnp.full(shape, 8.0)
    assert cbrt(x).shape == shape
    np.testing.assert_allclose(cbrt(x), np.full(shape, 2.0), rtol=2.4e-7)


def test_cbrt_makes_no_nan_on_the_way():
    x = jnp.asarray([0, 1e-45, 1e-39, 1e-30, 1, 1e30, 3e38, np.inf], jnp.float32)
    with jax.debug_nans(True):
        assert np.all(np.asarray(jax.jit(cbrt)(x)) >= 0)


@pytest.mark.covering
@pytest.mark.parametrize("scale", [1e-34, 1e-20, 1.0, 1e20, 1e36])
@pytest.mark.parametrize("axes", [(0,), (1, 2), (), (0, 1, 2)])
@pytest.mark.parametrize("norms", [group_norms, one_pass_norms])
def test_norms_are_numpys_at_any_scale(norms, scale, axes):
    x = np.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)) * scale, np.float32)
    wide = x.astype(np.longdouble)
    expected = np.sqrt(np.sum(wide**2, axis=axes, keepdims=True))
    found = norms(jnp.asarray(x), axes)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-6)


@pytest.mark.parametrize("norms", [group_norms, one_pass_norms])
@pytest.mark.parametrize("decades", [20, 36])
def test_norms_are_numpys_where_the_entries_of_a_group_differ_by_decades(norms, decades):
    rng = np.random.default_rng(0)
    x = np.asarray(10.0 ** rng.uniform(-decades, decades, size=(40, 7)), np.float32)
    expected = np.sqrt(np.sum(x.astype(np.longdouble) ** 2, axis=1, keepdims=True))
    np.testing.assert_allclose(norms(jnp.asarray(x), (1,)), expected.astype(float), rtol=1e-6)


@pytest.mark.parametrize("norms", [group_norms, one_pass_norms])
def test_norms_of_nothing_and_of_nan(norms):
    assert np.asarray(norms(jnp.zeros((3, 0)), (1,))).tolist() == [[0], [0], [0]]
    assert norms(jnp.zeros((0, 3)), (1,)).shape == (0, 1)
    found = np.asarray(norms(jnp.array([[3.0, 4.0], [np.nan, 1.0], [0.0, 0.0], [np.inf, 1.0]]), (1,)))[:, 0]
    np.testing.assert_array_equal(found, [5, np.nan, 0, np.inf])
    assert group_norms(jnp.ones((2, 3)), None).shape == (1, 1)


def test_sums_are_at_least_float32(x64):
    assert [sums_dtype(dtype) for dtype in (jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64)] == [
        jnp.float32, jnp.float32, jnp.float32, jnp.float64,
    ]  # fmt: skip
    assert scalars_dtype({}) == jnp.float32
    assert scalars_dtype({"a": jnp.ones(2, jnp.bfloat16)}) == jnp.float32
    assert scalars_dtype({"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float64)}) == jnp.float64


def test_at_step_takes_numbers_and_schedules():
    assert at_step(0.5, 3, jnp.float32) == jnp.float32(0.5)
    assert at_step(lambda step: 2 * step, 3, jnp.float32) == jnp.float32(6)
    assert at_step(1, 3, jnp.float32).dtype == jnp.float32


def test_a_count_stays_at_the_end_of_int32():
    last = jnp.asarray(np.iinfo(np.int32).max, jnp.int32)
    for count, expected in ((last, last), (last - 1, last), (jnp.zeros([], jnp.int32), 1)):
        found = next_count(count)
        assert found == expected and found.dtype == jnp.int32
