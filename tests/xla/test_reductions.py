"""Several sums in one pass equal the separate sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax.xla import reductions


@pytest.mark.parametrize(
    "shape, axes, cut",
    [
        ((96, 128), (1,), ((96, 16, 8), 1)),
        ((128, 96), (0,), ((8, 16, 96), 1)),
        ((3, 3, 32, 64), (0, 1, 3), ((3, 3, 32, 8, 8), 3)),
        ((50, 1000), (1,), ((50, 10, 100), 1)),
        ((97, 131), (1,), None),  # a prime number
        ((4096, 32), (1,), None),  # too few neighbours
        ((8, 64), (1,), None),  # small
        ((96, 128), (), None),
    ],
)
def test_fused_sums_are_the_sums(shape, axes, cut):
    x = np.random.default_rng(0).random(shape, np.float32)
    assert reductions._cut(jax.typeof(jnp.asarray(x)), axes) == cut
    sums = jax.jit(lambda x: reductions.fused_sums((x, x * x, 1 / x), axes))(x)
    for found, terms in zip(sums, (x, x * x, 1 / x), strict=True):
        np.testing.assert_allclose(found, np.sum(terms, axes, np.float64, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_in_pairs_are_the_sums(number, dtype):
    with jax.enable_x64(dtype == np.float64):
        terms = np.random.default_rng(number).normal(size=(number, 3, 40, 8)).astype(dtype)
        terms[0, 1, 2, 3], terms[-1, 2, 5, 6] = np.inf, np.nan
        sums = reductions._sums_in_pairs([jnp.asarray(x) for x in terms], (0, 2))
        assert [x.dtype for x in sums] == [dtype] * number
        found, expected = np.stack(sums), np.sum(terms, (1, 3), np.float64, keepdims=True)
    rtol, atol = (2e-6, 1e-5) if dtype == np.float32 else (1e-14, 1e-13)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("platform, in_pairs", [("cpu", False), ("tpu", False), ("cuda", True)])
def test_only_gpus_of_nvidia_sum_in_pairs(platform, in_pairs):
    terms = [jax.ShapeDtypeStruct((6, 8), np.float32)] * 3
    step = jax.jit(lambda *terms: reductions.one_kernel_sums(terms, (1,)))
    assert ("complex<f32>" in step.trace(*terms).lower(lowering_platforms=(platform,)).as_text()) == in_pairs


def test_fused_sums_keep_a_nan_in_its_group():
    x = jnp.ones((96, 128)).at[5, 77].set(jnp.nan)
    (sums,) = reductions.fused_sums((x,), (1,))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(sums)), [5])
