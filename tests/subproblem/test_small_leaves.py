"""Small leaves that are solved at once have the solutions of leaves that are solved one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from ramda_jax.subproblem.running import batches, tiles
from tests.tiny import array, points_and_infos

TILE = 2**10
SHAPES = {
    "a": (12, 20),
    "b": (3, 3, 5, 8),
    "c": (12, 20),
    "empty": (0, 3),
    "large": (64, 40),
    "one": (1, 1),
    "wide": (4, 200),
    "z": (30, 20),
}
CONVEX = ramda_jax.GroupLasso()
MIXED = {"a|b|large": ramda_jax.GroupMCP(omega=0.3), "c": ramda_jax.SparseGroupLasso(), ".*": CONVEX}

STRENGTHS = {"ramda": 0.9, "prox_adamw": 2.0}


def trained(method, regularizer):
    """(structured points, last info) of six steps."""
    rng = np.random.default_rng(0)
    params = {name: array(rng.standard_normal(shape)) for name, shape in SHAPES.items()}
    optimizer = getattr(ramda_jax, method)(0.1, regularizer, STRENGTHS[method])
    gradients = [{name: rng.standard_normal(shape) for name, shape in SHAPES.items()} for _ in range(6)]
    points, _, infos = points_and_infos(optimizer, params, gradients)
    return points, infos[-1]


@pytest.mark.slow_except("ramda-mixed")
@pytest.mark.parametrize("regularizer", [CONVEX, MIXED], ids=["convex", "mixed"])
@pytest.mark.parametrize("method", ["ramda", "prox_adamw"])
def test_solutions_are_those_of_leaves_solved_one_by_one(method, regularizer, monkeypatch):
    monkeypatch.setattr(tiles, "TILE", TILE)
    with jax.enable_x64(True):
        together, info = trained(method, regularizer)
        monkeypatch.setattr(batches, "_is_small", lambda problem: False)
        alone, info_alone = trained(method, regularizer)
    for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(one == 0, other == 0)
    zero = {name: np.mean([point[name] == 0 for point in together]) for name in SHAPES if name != "empty"}
    assert sum(0 < share < 1 for share in zero.values()) >= 3, zero
    assert info.converged and info_alone.converged
    assert info.num_steps == info_alone.num_steps


def loops(params, regularizer=CONVEX):
    """The number of loops in a step's program for CPUs."""
    optimizer = ramda_jax.ramda(0.1, regularizer, 0.5)
    traced = jax.jit(optimizer.update).trace(params, jax.eval_shape(optimizer.init, params), params)
    return traced.lower(lowering_platforms=("cpu",)).as_text().count("stablehlo.while")


def leaves(*shapes):
    return {f"{number:02}": jax.ShapeDtypeStruct(shape, jnp.float32) for number, shape in enumerate(shapes)}


@pytest.mark.parametrize(
    "shapes, sets",
    [
        ([(8, 4), (4, 8), (8, 4), (2, 2, 8)], 1),
        ([(32, 32), (16, 64), (64, 16)], 2),  # two tiles fill a set
        ([(30, 30), (30, 20), (30, 20), (2, 2)], 2),
        ([(8, 4)] * 20 + [(4, 8)] * 20, 2),  # equal leaves are stacked if they are many
        ([(8, 4)] * 15 + [(4, 8)] * 15, 1),
    ],
)
def test_a_set_is_one_loop_over_a_limited_number_of_entries(shapes, sets, monkeypatch):
    monkeypatch.setattr(tiles, "TILE", TILE)
    assert loops(leaves(*shapes)) == sets


def test_leaves_share_a_loop_if_their_regularizers_differ_but_not_if_their_dtypes_do():
    both = leaves((8, 4), (8, 6))
    assert loops(both, {"00": CONVEX, "01": ramda_jax.GroupMCP(omega=0.3)}) == 1
    with jax.enable_x64(True):
        assert loops(both | {"01": jax.ShapeDtypeStruct((8, 6), jnp.float64)}) == 2


@pytest.mark.parametrize("base", [ramda_jax.SecularNewton, ramda_jax.ClosedForm], ids=lambda base: base.__name__)
def test_a_subclass_with_a_solve_of_its_own_gets_every_leaf(base):
    found = []

    class Watched(base):
        def solve(self, model, regularizer, context):
            found.append(model.linear.shape)
            return super().solve(model, regularizer, context)

    params, method = leaves((8, 4), (8, 6)), ramda_jax.rmda if base is ramda_jax.ClosedForm else ramda_jax.ramda
    optimizer = method(0.1, CONVEX, 0.5, solver=Watched())
    jax.eval_shape(optimizer.update, params, jax.eval_shape(optimizer.init, params), params)
    assert {(8, 4), (8, 6)} <= set(found)


def test_a_nan_stays_in_its_leaf():
    params = {name: jnp.full(shape, 0.5) for name, shape in SHAPES.items()}
    gradients = jax.tree.map(jnp.ones_like, params)
    gradients["c"] = gradients["c"].at[3, 4].set(jnp.nan)
    optimizer = ramda_jax.ramda(0.1, CONVEX, 1e-3)
    updates, state = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    assert [name for name, update in updates.items() if np.isnan(update).any()] == ["c"]
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(updates["c"]).any(axis=1)), [3])
    assert not ramda_jax.solver_info(state).converged
