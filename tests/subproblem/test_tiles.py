"""A large leaf that is solved in tiles has the same solution as without tiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from ramda_jax.subproblem.running import tiles
from tests.tiny import array, points_and_infos

SHAPES = {"dense": (96, 80), "wide": (12, 640), "conv": (3, 3, 16, 64), "one": (20, 40)}


def trained(method, groups, strength, monkeypatch, tile):
    """(structured points, parameters, numbers of solver steps, last info) of eight steps on three leaves."""
    monkeypatch.setattr(tiles, "TILE", tile)
    rng = np.random.default_rng(0)
    params = {name: array(rng.standard_normal(SHAPES[name])) for name in ("dense", "conv", "one")}
    gradients = [{name: rng.standard_normal(SHAPES[name]) for name in params} for _ in range(8)]
    averaging = {"averaging": 1.0} if method == "ramda" else {}
    optimizer = getattr(ramda_jax, method)(0.1, ramda_jax.GroupLasso(groups), strength, **averaging)
    points, params, infos = points_and_infos(optimizer, params, gradients)
    return points, params[-1], [int(info.num_steps) for info in infos], infos[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, groups, strength",
    [("ramda", "input", 0.8), pytest.param("prox_adamw", "output", 2.0, marks=pytest.mark.slow)],
)
def test_a_training_in_tiles_is_the_whole_one(method, groups, strength, monkeypatch):
    with jax.enable_x64(True):
        whole, _, steps, info = trained(method, groups, strength, monkeypatch, 2**40)
        cut, params, cut_steps, cut_info = trained(method, groups, strength, monkeypatch, 2**10)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)
        np.testing.assert_array_equal(one == 0, other == 0)
    for point, leaf in zip(jax.tree.leaves(cut[-1]), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(point == 0, leaf == 0)  # there is no averaging
    shares = [np.mean(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(whole)]
    assert 0 < np.mean(shares) < 1  # some entries are zero and some are not
    assert cut_steps == steps
    assert info.converged and cut_info.converged
    assert float(cut_info.residual) <= 1e-12


def test_the_leaves_of_the_test_are_cut(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 2**10)
    lengths = {
        (name, groups): tiles.tile_of(ramda_jax.GroupLasso(groups).resolve(name, shape), shape)
        for name, shape in SHAPES.items()
        for groups in ("input", "output")
    }
    assert lengths == {
        ("dense", "input"): (0, 12),
        ("dense", "output"): (1, 10),
        ("wide", "input"): (0, 1),
        ("wide", "output"): (1, 80),
        ("conv", "input"): (2, 1),
        ("conv", "output"): (3, 4),
        ("one", "input"): (0, 20),
        ("one", "output"): (1, 40),
    }


def test_the_longest_of_several_group_axes_is_cut(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 2**10)
    for shape, cut in (((6, 96, 20), (1, 8)), ((96, 6, 20), (0, 8))):
        assert tiles.tile_of(ramda_jax.GroupLasso((0, 1)).resolve("kernel", shape), shape) == cut


@pytest.mark.parametrize(
    "shape, groups",
    [
        ((4, 8), (0,)),  # small
        ((97, 80), (0,)),  # a prime number of groups
        ((96, 2000), ()),  # one group
        ((4, 8000), (0,)),  # groups larger than a tile
    ],
)
def test_what_cannot_be_cut_stays_whole(shape, groups, monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 2**10)
    assert tiles.tile_of(ramda_jax.GroupLasso(groups).resolve("kernel", shape), shape) is None


def test_a_nan_stays_in_its_group(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 2**10)
    params = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((96, 80)), jnp.float32)}
    optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), 1e-3)
    grads = {"kernel": jnp.sin(params["kernel"]).at[17, 3].set(jnp.nan)}
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(updates["kernel"]).any(axis=1)), [17])


def test_the_residual_is_that_of_all_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 2**10)
    rng = np.random.default_rng(0)
    linear, metric = array(rng.standard_normal((96, 80)), "f4"), array(np.exp(rng.standard_normal((96, 80))), "f4")
    model = ramda_jax.QuadraticModel(linear, jnp.zeros_like(linear), metric, jnp.float32(1.0))
    rows = ramda_jax.GroupLasso((0,), group_weight=5.0)
    exact = ramda_jax.SecularNewton().solve(model, rows, ramda_jax.Context(jnp.zeros_like(linear)))

    # One pass from these radii leaves a residual with a bound.
    solver, radii = ramda_jax.SecularNewton(max_steps=1), exact.radii * jnp.linspace(1.2, 1.6, 96)[:, None]

    def residual(solve, part):
        of_part = model._replace(linear=linear[part], anchor=model.anchor[part], metric=metric[part])
        return solve(solver, of_part, rows, ramda_jax.Context(jnp.zeros_like(linear[part]), radii=radii[part])).residual

    def solved_whole(solver, *problem):
        return solver.solve(*problem)

    whole = residual(tiles.solve_in_tiles, slice(None))
    parts = [residual(solved_whole, slice(start, start + 12)) for start in range(0, 96, 12)]
    assert all(0 < part < np.inf for part in parts)
    np.testing.assert_allclose(whole, np.linalg.norm(parts), rtol=1e-5)


class WeightOfShape(ramda_jax.GroupLasso):
    """Groups whose weight depends on the length of an axis that is cut into tiles."""

    def weights(self, shape):
        return shape[0] / 96.0


class WeightPerGroup(ramda_jax.GroupLasso):
    """Groups whose weight increases with their index."""

    def weights(self, shape):
        return 1 + jnp.arange(float(shape[0]))[:, None] / shape[0]


@pytest.mark.parametrize(
    "regularizer, strength",
    [
        (ramda_jax.GroupLasso((0,), group_weight="sqrt_layer_size"), 0.35),
        (WeightPerGroup((0,)), 20.0),
        (WeightOfShape((0,)), 30.0),
    ],
)
def test_a_group_weighs_in_a_tile_what_it_weighs_in_the_leaf(regularizer, strength, monkeypatch):
    params = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((96, 80)), jnp.float32)}
    grads = jax.tree.map(jnp.sin, params)
    points = []
    for tile in (2**40, 2**10):
        monkeypatch.setattr(tiles, "TILE", tile)
        optimizer = ramda_jax.ramda(0.1, regularizer, strength, averaging=1.0)
        updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
        points.append(np.asarray(params["kernel"] + updates["kernel"]))
    assert 0 < np.mean(points[0] == 0) < 1
    np.testing.assert_allclose(*points, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(points[0] == 0, points[1] == 0)
