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


def test_fused_sums_keep_a_nan_in_its_group():
    x = jnp.ones((96, 128)).at[5, 77].set(jnp.nan)
    (sums,) = reductions.fused_sums((x,), (1,))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(sums)), [5])
