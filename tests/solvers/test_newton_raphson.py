"""NewtonRaphson against the released iteration in a NumPy loop, and against the exact solution."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import (
    GroupLasso,
    GroupMCP,
    NewtonRaphson,
    QuadraticModel,
    SecularNewton,
    SparseGroupLasso,
    default_solver,
    proximal_point,
    solver_info,
)
from ramda_jax.solvers import Context
from tests import problems
from tests.reference import group_norm

SHAPE = (8, 30)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)


def random_problem(seed, decades, dtype=np.float64, weight_factor=0.7, tail=1):
    rng = np.random.default_rng(seed)
    rhs, metric = rng.normal(size=SHAPE), problems.random_metric(rng, SHAPE, decades, tail)
    rhs *= 10.0 ** rng.uniform(-0.5, 0.5, size=(SHAPE[0], 1))
    weight = weight_factor * float(np.median(group_norm.norms(rhs, (0,))))
    return tuple(np.asarray(x, dtype) for x in (rhs, metric, weight))


@functools.partial(jax.jit, static_argnames=("solver", "regularizer"))
def jitted(rhs, metric, weight, solver, regularizer):
    model = QuadraticModel(-rhs, jnp.zeros_like(rhs), metric, weight)
    return solver.solve(model, regularizer, Context(jnp.zeros_like(rhs)))


def solve(problem, solver, regularizer=None):
    regularizer = GroupLasso((0,), group_weight=1.0) if regularizer is None else regularizer
    with jax.enable_x64(problem[0].dtype == np.float64):
        return jax.tree.map(np.asarray, jitted(*problem, solver, regularizer))


def released(rhs, metric, lam, atol=1e-7, rtol=1e-7, max_steps=100):
    """(radii of the nonzero groups, their indices, iterations) from the released loop, in float64."""
    norms = np.linalg.norm(rhs, axis=1)
    kept = np.flatnonzero(norms > lam)
    x, d = rhs[kept], metric[kept]
    r = (norms[kept] - lam) / np.max(d, axis=1)
    previous = np.zeros_like(r)
    for num_steps in itertools.count(1):
        t = d * r[:, None] + lam
        h = np.sum((x / t) ** 2, axis=1) - 1
        r = r + h / (2 * np.sum(x**2 * d / t**3, axis=1))
        if np.all(np.abs(h) < atol) or np.all(np.abs(h - previous) < rtol) or num_steps == max_steps:
            return r, kept, num_steps
        previous = h


@pytest.mark.parametrize("decades", [0, 1, 4])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("atol", "rtol", "max_steps"), [(1e-7, 1e-7, 100), (1e-2, 0.0, 100), (0.0, 0.0, 3)])
def test_it_is_the_released_loop(seed, decades, atol, rtol, max_steps):
    problem = random_problem(seed, decades)
    solution = solve(problem, NewtonRaphson(max_steps, atol, rtol))
    radii, kept, num_steps = released(*problem, atol, rtol, max_steps)
    assert 0 < len(kept) < SHAPE[0]
    assert solution.num_steps == num_steps
    np.testing.assert_allclose(solution.radii[kept, 0], radii, rtol=1e-12)
    np.testing.assert_array_equal(np.delete(solution.radii[:, 0], kept), 0)
    np.testing.assert_array_equal(np.delete(solution.value, kept, axis=0), 0)
    rhs, metric, lam = problem
    expected = rhs[kept] / (metric[kept] + lam / radii[:, None])
    np.testing.assert_allclose(solution.value[kept], expected, rtol=1e-12)


@pytest.mark.parametrize("regularizer", [GroupLasso((0,)), SparseGroupLasso((0,), l1_ratio=0.5)], ids=lambda r: repr(r))
@pytest.mark.parametrize("decades", [0, 2, 6])
def test_it_agrees_with_secular_newton_when_run_to_rounding(decades, regularizer):
    for seed in range(4):
        rhs, metric, weight = random_problem(seed, decades)
        problem = (rhs, metric, weight / np.sqrt(SHAPE[1]))
        exact = solve(problem, SecularNewton(), regularizer)
        found = solve(problem, NewtonRaphson(1000, atol=1e-14, rtol=0.0), regularizer)
        assert found.converged
        assert 0 < np.count_nonzero(exact.radii) < SHAPE[0]
        np.testing.assert_array_equal(found.radii == 0, exact.radii == 0)
        # Next to the border the root moves more than the norms.
        np.testing.assert_allclose(found.value, exact.value, rtol=1e-10, atol=0)


@every_dtype
@pytest.mark.parametrize("decades", [0, 2])
def test_its_residual_is_no_less_than_the_true_one(decades, dtype):
    eps = np.finfo(dtype).eps
    for seed in range(4):
        problem = random_problem(seed, decades, dtype)
        for max_steps in (1, 2, 4, 100):
            # The default, 1e-7, is the rounding of a sum in float32, so h may oscillate by this much forever.
            atol = 1e-7 if dtype == np.float64 else 1e-6
            solution = solve(problem, NewtonRaphson(max_steps, atol))
            rhs, metric, weight = problem
            residuals = group_norm.kkt_residuals(solution.value, rhs, metric, group_norm.wide(weight), (0,))
            norms = group_norm.norms(rhs, (0,))
            assert np.sqrt(np.sum(residuals**2)) <= solution.residual + 4 * eps * np.sqrt(np.sum(norms**2))
        assert solution.converged
        assert np.max(residuals / norms) <= atol + 4 * eps


def test_radii_climb_to_the_root_and_take_more_steps_the_more_the_metric_is_spread(x64):
    counts = {}
    for decades in (0, 2, 6):
        problem = random_problem(0, decades)
        root = solve(problem, SecularNewton()).radii
        before = np.zeros_like(root)
        for max_steps in (1, 2, 3, 5, 10):
            radii = solve(problem, NewtonRaphson(max_steps, atol=0.0, rtol=0.0)).radii
            assert np.all(radii >= before * (1 - 1e-14))
            assert np.all(radii <= root * (1 + 1e-13))
            before = radii
        solver = NewtonRaphson(1000, atol=1e-12, rtol=0.0)
        counts[decades] = int(solve(problem, solver).num_steps), int(solve(problem, SecularNewton()).num_steps)
    assert counts[0][0] < counts[2][0] < counts[6][0]


def test_few_large_entries_of_the_metric_cost_it_many_more_steps_than_secular_newton(x64):
    # The start comes from the largest entry of the metric and is decades too small. If the weight is small too, each
    # step multiplies it by only 1.5.
    rhs, metric, weight = random_problem(0, 6, tail=0.05, weight_factor=1e-4)
    metric[:, 0] = 1
    rhs[:, 0] *= 1e-3
    steps = [solve((rhs, metric, weight), s).num_steps for s in (NewtonRaphson(1000, 1e-12, 0.0), SecularNewton())]
    assert steps[0] > 20
    assert steps[1] <= 8


def test_what_a_step_limit_leaves_undone_is_reported():
    problem = random_problem(0, 6)
    short = solve(problem, NewtonRaphson(max_steps=3))
    assert short.num_steps == 3
    assert not short.converged
    full = solve(problem, NewtonRaphson())
    assert full.converged
    assert short.residual > 1e3 * full.residual


@every_dtype
def test_all_groups_zero_no_weight_and_no_entries(dtype):
    rhs, metric, weight = random_problem(0, 2, dtype)
    solution = solve((rhs, metric, np.asarray(1e6, dtype)), NewtonRaphson())
    np.testing.assert_array_equal(solution.value, 0)
    assert solution.converged and solution.num_steps == 1
    solution = solve((rhs, metric, 0 * weight), NewtonRaphson())
    np.testing.assert_allclose(solution.value, rhs / metric, rtol=4 * np.finfo(dtype).eps)
    solution = solve((0 * rhs, metric, 0 * weight), NewtonRaphson())
    np.testing.assert_array_equal(solution.value, 0)
    for shape in ((0, 3), (3, 0)):
        empty = np.zeros(shape, dtype)
        solution = solve((empty, empty, weight), NewtonRaphson())
        assert solution.value.shape == shape and solution.converged


def test_no_nan_on_the_way_for_zero_groups():
    rhs, metric, _ = random_problem(0, 2, np.float32)
    rhs[0] = 0
    with jax.debug_nans(True), jax.disable_jit():
        for weight in (0.0, 1.0, 1e6):
            problem = (jnp.asarray(rhs), jnp.asarray(metric), jnp.float32(weight))
            solution = jitted(*problem, NewtonRaphson(max_steps=5), GroupLasso((0,)))
            assert np.all(np.isfinite(solution.value)) and np.isfinite(solution.residual)


def test_a_nan_goes_through_and_leaves_other_groups_alone():
    problem = random_problem(1, 2, np.float32)
    clean = solve(problem, NewtonRaphson(50, atol=0.0, rtol=0.0))
    bad = problem[0].copy()
    bad[int(np.argmin(np.linalg.norm(bad, axis=1))), 3] = np.nan
    solution = solve((bad, *problem[1:]), NewtonRaphson(50, atol=0.0, rtol=0.0))
    is_bad = np.isnan(bad).any(axis=1)
    assert np.all(np.isnan(solution.value[is_bad]))
    np.testing.assert_array_equal(solution.value[~is_bad], clean.value[~is_bad])
    assert not solution.converged


def test_it_serves_the_pipeline_and_its_radii_restore_the_solution():
    rhs, metric, weight = random_problem(2, 2, np.float32)
    params = {"kernel": jnp.zeros(SHAPE)}
    model = QuadraticModel({"kernel": jnp.asarray(-rhs)}, params, {"kernel": jnp.asarray(metric)}, jnp.asarray(weight))
    regularizer = GroupLasso("input", group_weight=1.0)
    optimizer = proximal_point(regularizer, 1.0, NewtonRaphson())
    value, state = jax.jit(optimizer.update)(model, optimizer.init(params), params)
    radii = np.asarray(state.radii["kernel"])
    assert 0 < np.count_nonzero(radii) < radii.size
    np.testing.assert_array_equal(radii[:, 0] != 0, np.any(np.asarray(value["kernel"]) != 0, axis=1))
    assert bool(solver_info(state).converged)
    resolved = regularizer.resolve("kernel", SHAPE)
    restored = NewtonRaphson().restore(model.leaves()[0], resolved, Context(params["kernel"]), state.radii["kernel"])
    np.testing.assert_allclose(restored, value["kernel"], rtol=1e-6)


def test_it_refuses_what_has_no_monotone_start():
    assert NewtonRaphson().why_not(GroupLasso(), "diagonal") is None
    assert "convex" in str(NewtonRaphson().why_not(GroupMCP(omega=1.0), "diagonal"))
    # It is never the default.
    assert not isinstance(default_solver(GroupLasso(), "diagonal"), NewtonRaphson)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_steps": 0}, ValueError, "`max_steps` must be at least 1, got 0"),
        ({"max_steps": 1.5}, TypeError, "`max_steps` must be a whole number, got 1.5"),
        ({"atol": -1.0}, ValueError, "`atol` must be finite and at least 0, got -1.0"),
        ({"rtol": float("nan")}, ValueError, "`rtol` must be finite and at least 0, got nan"),
        ({"rtol": "small"}, TypeError, "`rtol` must be a real number or a schedule, got 'small'"),
    ],
)
def test_newton_raphson_refuses_bad_settings_by_name(settings, error, message):
    with pytest.raises(error, match=message):
        NewtonRaphson(**settings)
