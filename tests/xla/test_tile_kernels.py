"""A kernel computes the same as its function on the whole array, for any tiles."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax.xla import tile_plans
from ramda_jax.xla.tile_kernels import TileKernel, TileValues, by_chip
from ramda_jax.xla.tile_plans import Chip, TilePlan, plan_tiles
from tests.tiny import array


@dataclasses.dataclass(frozen=True)
class Centred:
    """Subtracts each group's mean from its entries and multiplies by a scalar; also returns the groups' sums."""

    inside: tuple[int, ...]
    size: int

    def __call__(self, scalars, values):
        x, narrow = values.entries
        total = jnp.sum(x, axis=self.inside, keepdims=True)
        centred = (x - total / self.size) * scalars[1]
        return TileValues((centred, (narrow.astype(jnp.float32) * scalars[0]).astype(narrow.dtype)), (total,))


def centred(x, inside):
    return (x - x.mean(axis=inside, keepdims=True)) * 3, x.sum(axis=inside, keepdims=True)


def kernel_of(shape, inside, chip):
    plan = plan_tiles(shape, inside, 2, chip)
    assert isinstance(plan, TilePlan)
    size = int(np.prod([shape[axis] for axis in inside]))
    dtypes = np.dtype(np.float32), np.dtype(jnp.bfloat16)
    return TileKernel(plan, Centred(plan.inside, size), dtypes, 1, ((0, 0), (1, 1)), interpret=True)


def arrays(shape, inside, batch=()):
    rng = np.random.default_rng(0)
    x = array(rng.normal(size=(*batch, *shape)), jnp.float32)
    groups = jnp.zeros([1 if axis in inside else length for axis, length in enumerate(shape)])
    return TileValues((x, x.astype(jnp.bfloat16)), (jnp.broadcast_to(groups, (*batch, *groups.shape)),))


@pytest.fixture
def small_tiles(monkeypatch):
    """Makes tiles as small as the chips allow, so that small arrays have many tiles."""
    monkeypatch.setattr(tile_plans, "WANTED", dict.fromkeys(get_args(Chip), 1))


# In the first three shapes the last tile extends beyond the array.
@pytest.mark.parametrize("chip", get_args(Chip))
@pytest.mark.parametrize(
    "shape, inside",
    [((20, 128), (1,)), ((5, 150), (0,)), ((3, 20, 128), (0, 2)), ((4, 3, 16, 2), (1, 3)), ((6,), (0,))],
)
def test_a_kernel_gives_what_its_function_gives_of_the_whole(small_tiles, shape, inside, chip):
    kernel = kernel_of(shape, inside, chip)
    assert np.prod(kernel.plan.grid) > 1 or shape == (6,)
    values = arrays(shape, inside)
    found = kernel((2, 3.0), values)  # outside of jit
    entries, sums = centred(np.asarray(values.entries[0], np.float64), inside)
    np.testing.assert_allclose(found.entries[0], entries, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.groups[0], sums, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.entries[1], values.entries[1] * 2)
    assert found.entries[1].dtype == jnp.bfloat16


@pytest.mark.parametrize("chip", get_args(Chip))
def test_a_kernel_under_vmap(small_tiles, chip):
    kernel, values = kernel_of((5, 150), (0,), chip), arrays((5, 150), (0,), batch=(2,))
    found = jax.jit(jax.vmap(lambda scalar, values: kernel((2, scalar), values)))(jnp.asarray([3.0, 6.0]), values)
    for i, factor in enumerate((1, 2)):
        entries, sums = centred(np.asarray(values.entries[0][i], np.float64), (0,))
        np.testing.assert_allclose(found.entries[0][i], factor * entries, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.groups[0][i], sums, rtol=1e-5, atol=1e-5)


def test_only_the_chips_that_have_kernels_run_them():
    def on(platform):
        def program(x):
            return by_chip(lambda: x + 1, lambda chip: jnp.sin(x) if chip == "tpu" else jnp.cos(x), x)

        text = jax.jit(program).trace(jnp.ones(3)).lower(lowering_platforms=(platform,)).as_text()
        return [name for name in ("add", "sine", "cosine") if f"stablehlo.{name} " in text]

    assert [on(platform) for platform in ("cpu", "rocm", "tpu", "cuda")] == [
        ["add"],
        ["add"],
        ["sine"],
        ["cosine"],
    ]
    assert by_chip(lambda: "default", lambda chip: chip, jnp.ones(3)) == "default"
