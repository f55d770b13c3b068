"""Tiles of whole groups that fit on a chip."""

import math
from typing import get_args

import pytest

from ramda_jax.xla import tile_plans
from ramda_jax.xla.tile_plans import MOST, WANTED, Chip, TilePlan, plan_tiles

# Shapes with the axes inside a group.
LAYOUTS = [
    ((4096, 4096), (1,)),
    ((300, 4096), (0,)),
    ((1024, 16, 64), (1, 2)),
    ((16, 64, 1024), (0, 1)),
    ((3, 3, 64, 100), (0, 1, 3)),
    ((3, 3, 64, 100), (0, 1)),
    ((2, 1024, 1000), (0, 2)),
    ((2, 3, 4, 5), (1, 3)),
    ((5, 7), ()),
    ((5, 7), (0, 1)),
    ((7,), ()),
    ((7,), (0,)),
    ((1, 1, 8, 300), (0, 1, 2)),
]


@pytest.mark.parametrize("chip", get_args(Chip))
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("shape, inside", LAYOUTS)
@pytest.mark.parametrize("is_least", [False, True], ids=["as wanted", "least"])
def test_a_tile_has_whole_groups_in_the_lengths_that_the_chip_can_take(
    monkeypatch, is_least, shape, inside, itemsize, chip
):
    if is_least:
        monkeypatch.setattr(tile_plans, "WANTED", dict.fromkeys(get_args(Chip), 1))
    plan = plan_tiles(shape, inside, itemsize, chip)
    assert isinstance(plan, TilePlan)
    assert math.prod(plan.shape) == math.prod(shape)
    assert math.prod(plan.shape[axis] for axis in plan.inside) == math.prod(shape[axis] for axis in inside)
    assert all(plan.grid[axis] == 1 for axis in plan.inside)
    assert math.prod(plan.tile) <= MOST[chip]
    if chip == "gpu":
        assert all(length & (length - 1) == 0 for length in plan.tile)
    else:
        for axis, least in ((-1, 128), (-2, 32 // itemsize)):
            assert plan.tile[axis] % least == 0 or plan.tile[axis] == plan.shape[axis]


def test_small_leaves_are_one_tile_and_large_ones_are_tiles_of_the_wanted_size():
    for chip in get_args(Chip):
        small, large = (plan_tiles(shape, (1,), 4, chip) for shape in ((6, 10), (2**16, 64)))
        assert isinstance(small, TilePlan) and isinstance(large, TilePlan)
        assert small.grid == (1, 1)
        assert WANTED[chip] // 2 <= math.prod(large.tile) <= WANTED[chip]


# The layouts as in `input_formats` of a program compiled for a TPU v5e.
@pytest.mark.parametrize(
    "shape, order",
    [
        ((4096, 4096), (0, 1)),
        ((1024, 16, 64), (1, 2, 0)),
        ((1024, 4, 64), (1, 2, 0)),
        ((16, 64, 1024), (0, 1, 2)),
        ((2, 1024, 4, 64), (0, 2, 3, 1)),
        ((3, 3, 64, 64), (0, 1, 2, 3)),
        ((1, 1, 256, 64), (0, 1, 3, 2)),
        ((7, 7, 3, 64), (0, 2, 1, 3)),
        ((3, 1000, 64), (0, 2, 1)),
        ((100, 200), (1, 0)),
        ((4096, 4), (1, 0)),
        ((20, 64), (0, 1)),
        ((256, 32, 32), (1, 2, 0)),
        ((1000,), (0,)),
    ],
)
def test_a_tpus_kernel_takes_an_array_in_the_order_in_which_xla_stores_it(shape, order):
    plan = plan_tiles(shape, (), 4, "tpu")
    assert isinstance(plan, TilePlan)
    assert plan.order == order


def test_a_leaf_that_no_chip_can_hold_is_refused_with_the_reason():
    assert plan_tiles((2**14, 512), (0,), 4, "gpu") == (
        "groups of 16,384 entries: the least tile has 131,072, of which a chip holds 16,384"
    )
    assert "the least tile has" in str(plan_tiles((2**20,), (0,), 4, "tpu"))
    assert plan_tiles((0, 5), (1,), 4, "tpu") == "it is empty"
    assert isinstance(plan_tiles((2048, 300), (0,), 2, "gpu"), TilePlan)
    assert "2^31" in str(plan_tiles((2**20, 2**11), (1,), 4, "gpu"))
