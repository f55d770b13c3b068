"""ProximalGradient(accelerate=True): the same minimiser after many fewer iterations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import L1, GroupLasso, NuclearNorm, ProximalGradient, QuadraticModel, SecularNewton
from ramda_jax.solvers import Context
from tests import problems
from tests.reference import regularizers as reference

SHAPE = (12, 8)


@functools.partial(jax.jit, static_argnames=("solver", "regularizer"))
def jitted(linear, anchor, metric, weight, start, solver, regularizer):
    return solver.solve(QuadraticModel(linear, anchor, metric, weight), regularizer, Context(start))


def random_problem(seed, decades=3, share=0.4):
    """A problem whose metric spans `decades`; with the default share about half of the singular values are zero."""
    rng = np.random.default_rng(seed)
    metric = problems.random_metric(rng, SHAPE, decades, 1)
    rhs = np.sqrt(metric) * rng.normal(size=SHAPE)
    anchor = rng.normal(size=SHAPE)
    weight = share * np.linalg.norm(rhs, 2)
    return metric * anchor - rhs, anchor, metric, weight, anchor + 0.1 * rng.normal(size=SHAPE)


def solve(problem, regularizer=None, **settings):
    solver = ProximalGradient(**{"max_steps": 100_000, "tolerance": 1e-8} | settings)
    regularizer = NuclearNorm(split=1) if regularizer is None else regularizer
    return jax.tree.map(np.asarray, jitted(*problem, solver, regularizer))


def residual_of(problem, psi, w):
    linear, anchor, metric, weight, _ = problem
    return reference.norm(reference.kkt_distances(psi, w, metric * anchor - linear, metric, weight))


def objective_of(problem, psi, w):
    linear, anchor, metric, weight, _ = problem
    return reference.objective(psi, w, metric * anchor - linear, metric, weight)


@pytest.mark.slow
def test_nuclear_norm_takes_many_fewer_iterations_to_the_same_solution(x64):
    psi = reference.NuclearNorm(SHAPE[0])
    ratios, ranks = [], []
    for seed in range(5):
        problem = random_problem(seed, decades=4, share=0.03)
        plain, fast = solve(problem), solve(problem, accelerate=True)
        assert plain.converged and fast.converged
        # Both are within tolerance / smallest metric of the minimiser.
        assert np.linalg.norm(plain.value - fast.value) <= 2e-8 / np.min(problem[2])
        for solution in (plain, fast):
            assert residual_of(problem, psi, psi.near(solution.value, 1e-16)) <= 1e-8 + 1e-12
        rank = [np.sum(np.linalg.svd(solution.value, compute_uv=False) > 1e-12) for solution in (plain, fast)]
        assert rank[0] == rank[1]
        ranks.append(rank[0])
        ratios.append(plain.num_steps / fast.num_steps)
    assert 0 < min(ranks) < SHAPE[1]
    assert np.median(ratios) > 20
    assert min(ratios) > 15


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.4, 0.1, 0.03])
def test_gain_grows_with_the_metrics_spread(x64, share):
    gains = []
    for decades in (0.5, 2, 4):
        pairs = [[solve(p, accelerate=a).num_steps for a in (False, True)] for p in spread(decades, share)]
        gains.append(np.median([plain / fast for plain, fast in pairs]))
    assert gains[0] < gains[1] < gains[2]
    assert gains[2] > {0.4: 3, 0.1: 7, 0.03: 20}[share]


def spread(decades, share):
    return [random_problem(seed, decades, share) for seed in range(3)]


def test_restart_keeps_an_easy_problem_easy(x64):
    # Without restarts the momentum would overshoot repeatedly if the metric is nearly constant.
    problem = random_problem(2, decades=0.1)
    plain, fast = solve(problem), solve(problem, accelerate=True)
    assert fast.num_steps <= 2 * plain.num_steps


@pytest.mark.parametrize("stepsize", ["block", "leaf"])
def test_group_norm_ends_at_the_exact_solution(x64, stepsize):
    regularizer = GroupLasso((0,), group_weight=1.0)
    linear, anchor, metric, weight, start = random_problem(3)
    exact = np.asarray(jitted(linear, anchor, metric, weight, start, SecularNewton(), regularizer).value)
    problem = (linear, anchor, metric, weight, start)
    fast = solve(problem, regularizer, accelerate=True, stepsize=stepsize, tolerance=1e-10)
    plain = solve(problem, regularizer, stepsize=stepsize, tolerance=1e-10)
    assert fast.converged
    np.testing.assert_allclose(fast.value, exact, rtol=0, atol=1e-10 / np.min(metric))
    np.testing.assert_array_equal(fast.value == 0, exact == 0)
    assert 0 < np.sum(exact == 0) < exact.size
    assert fast.num_steps < plain.num_steps / 2.5


def test_condition_7_holds_in_both_halves_although_it_does_not_descend_monotonically(x64):
    psi = reference.NuclearNorm(SHAPE[0])
    for seed in range(4):
        problem = random_problem(seed)
        there = objective_of(problem, psi, problem[-1])
        solution = solve(problem, accelerate=True, tolerance=1e-4)
        assert solution.converged
        assert residual_of(problem, psi, psi.near(solution.value, 1e-16)) <= 1e-4 * (1 + 1e-9)
        assert objective_of(problem, psi, solution.value) <= there
        values = [solve(problem, accelerate=True, tolerance=None, rtol=0.0, max_steps=n).value for n in (5, 10, 20, 40)]
        objectives = [objective_of(problem, psi, w) for w in values]
        # After 40 iterations the objective is not above that of plain proximal gradient.
        plain = solve(problem, tolerance=None, rtol=0.0, max_steps=40).value
        assert objectives[-1] <= objective_of(problem, psi, plain)


def test_the_released_rule_looks_at_the_size_of_the_change(x64):
    # Q may increase for some iterations, which alone must not end the solve.
    psi = reference.NuclearNorm(SHAPE[0])
    for seed in range(4):
        problem = random_problem(seed)
        solution = solve(problem, accelerate=True, tolerance=None, rtol=1e-12)
        assert solution.converged
        lowest = objective_of(problem, psi, solve(problem, accelerate=True, tolerance=1e-10).value)
        here = objective_of(problem, psi, solution.value)
        assert here <= lowest + 1e-8 * (abs(lowest) + 1)
        plain = solve(problem, tolerance=None, rtol=1e-12)
        assert solution.num_steps < plain.num_steps


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_first_iterations_are_fista(dtype):
    # Compare four iterations with the formulas of FISTA with gradient restarts.
    with jax.enable_x64(dtype == np.float64):
        problem = tuple(np.asarray(x, dtype) for x in random_problem(5))
        linear, anchor, metric, weight, start = problem
        found = solve(problem, L1(), accelerate=True, tolerance=None, rtol=0.0, max_steps=4, stepsize="leaf").value
        rhs, curvature = metric * anchor - linear, np.max(metric)
        zero = np.abs(rhs) <= weight
        z = y = np.where(zero, 0, start)
        momentum = 1.0
        for _ in range(4):
            x = y - (metric * y - rhs) / curvature
            new = np.where(zero, 0, np.sign(x) * np.maximum(np.abs(x) - weight / curvature, 0))
            is_uphill = np.sum((y - new) * (new - z)) > 0
            after = 1.0 if is_uphill else (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            y = new + (0.0 if is_uphill else (momentum - 1) / after) * (new - z)
            z, momentum = new, after
        np.testing.assert_allclose(found, z, rtol=0, atol=20 * np.finfo(dtype).eps * np.max(np.abs(z)))


def test_blocks_proven_zero_stay_zero():
    problem = tuple(np.asarray(x, np.float32) for x in random_problem(0))
    big = (*problem[:3], np.float32(1e6), problem[4])
    for regularizer in (NuclearNorm(split=1), GroupLasso((0,))):
        solution = solve(big, regularizer, accelerate=True, max_steps=5, tolerance=None, rtol=0.0)
        np.testing.assert_array_equal(solution.value, jnp.zeros(SHAPE))
