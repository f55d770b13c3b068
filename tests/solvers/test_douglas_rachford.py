"""DouglasRachford: the exact minimiser, in far fewer decompositions than proximal gradient takes."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import (
    DouglasRachford,
    GroupLasso,
    GroupMCP,
    NuclearNorm,
    ProximalGradient,
    QuadraticModel,
    Regularizer,
    SecularNewton,
    TopGroups,
    default_solver,
)
from ramda_jax.solvers import Context, choose_solver
from tests import problems
from tests.reference import regularizers as reference

SHAPE = (12, 8)
NUCLEAR, ROWS = NuclearNorm(split=1), GroupLasso((0,), group_weight=1.0)
EXACT = DouglasRachford(max_steps=1000, rtol=0.0)


@functools.partial(jax.jit, static_argnames=("solver", "regularizer"))
def jitted(linear, anchor, metric, weight, start, solver, regularizer, step):
    return solver.solve(QuadraticModel(linear, anchor, metric, weight), regularizer, Context(start, step))


def random_problem(seed, decades=4, share=0.1, scale=1.0):
    """(linear, anchor, metric, weight, start); at the solution some singular values are zero."""
    rng = np.random.default_rng(seed)
    metric = scale * problems.random_metric(rng, SHAPE, decades, 1)
    rhs = np.sqrt(scale) * np.sqrt(metric) * rng.normal(size=SHAPE)
    anchor = rng.normal(size=SHAPE)
    return metric * anchor - rhs, anchor, metric, share * np.linalg.norm(rhs, 2), rng.normal(size=SHAPE)


def solve(problem, solver=EXACT, regularizer=NUCLEAR, step=0):
    return jax.tree.map(np.asarray, jitted(*problem, solver, regularizer, step))


def residual_of(problem, psi, w):
    linear, anchor, metric, weight, _ = problem
    return reference.norm(reference.kkt_distances(psi, w, metric * anchor - linear, metric, weight))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_nuclear_norm_is_solved_to_rounding_at_every_scale(scale, x64):
    psi = reference.NuclearNorm(SHAPE[0])
    for seed, decades, share in ((0, 0.5, 0.5), (1, 2, 0.4), (2, 4, 0.3)):
        problem = random_problem(seed, decades, share, scale)
        size = np.linalg.norm(problem[2] * problem[1] - problem[0])
        solution = solve(problem)
        assert solution.converged and solution.residual <= 1e-14 * size
        assert residual_of(problem, psi, psi.near(solution.value, 1e-14)) <= 1e-13 * size
        assert 0 < np.sum(np.linalg.svd(solution.value, compute_uv=False) > 1e-10) < SHAPE[1]


def test_groups_end_at_the_exact_solution_each_with_its_own_step(x64):
    problem = random_problem(3, share=0.3)
    exact, found = solve(problem, SecularNewton(), ROWS), solve(problem, EXACT, ROWS)
    assert found.converged
    np.testing.assert_allclose(found.value, exact.value, rtol=0, atol=1e-12 * np.max(np.abs(exact.value)))
    np.testing.assert_array_equal(found.value == 0, exact.value == 0)
    assert 0 < np.sum(exact.value == 0) < exact.value.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_five_decompositions_come_closer_than_five_of_proximal_gradient(dtype):
    five = {"max_steps": 5, "rtol": 0.0}
    ratios = []
    with jax.enable_x64(dtype == np.float64):
        for seed in range(4):
            problem = tuple(np.asarray(x, dtype) for x in random_problem(seed, decades=2))
            exact = solve(problem).value
            solutions = [solve(problem, solver(**five)) for solver in (DouglasRachford, ProximalGradient)]
            assert all(solution.num_steps == 5 for solution in solutions)
            here, there = (np.linalg.norm(solution.value - exact) for solution in solutions)
            ratios.append(there / here)
    assert min(ratios) > 2.5


def test_a_solution_stays_one(x64):
    """Otherwise a method that converges would end beside its limit, because a step has few iterations."""
    problem = random_problem(5)
    exact = solve(problem).value
    again = solve((*problem[:-1], exact), DouglasRachford(max_steps=2, rtol=0.0)).value
    np.testing.assert_allclose(again, exact, rtol=0, atol=1e-11 * np.max(np.abs(exact)))
    # The test would see another start.
    assert np.max(np.abs(solve(problem, DouglasRachford(max_steps=2, rtol=0.0)).value - exact)) > 1e-3


def test_an_iteration_is_one_decomposition():
    leaf = jnp.ones((5, 4))

    def solution(rhs, metric, start):
        model = QuadraticModel(-rhs, jnp.zeros_like(rhs), metric, jnp.float32(1.0))
        return DouglasRachford().solve(model, NUCLEAR, Context(start)).value

    assert len(re.findall(r"= svd\[", str(jax.make_jaxpr(solution)(leaf, leaf, leaf)))) == 1


@pytest.mark.parametrize("rtol", [1e-2, 1e-5])
def test_it_stops_by_the_reported_subgradient_which_bounds_the_distance_of_zero(rtol, x64):
    psi, problem = reference.NuclearNorm(SHAPE[0]), random_problem(4)
    target = rtol * np.linalg.norm(problem[2] * problem[1] - problem[0])
    solution = solve(problem, DouglasRachford(rtol=rtol))
    assert solution.converged
    assert residual_of(problem, psi, psi.near(solution.value, 1e-16)) <= solution.residual * (1 + 1e-9) <= target * 1.1
    before = solve(problem, DouglasRachford(max_steps=int(solution.num_steps) - 1, rtol=rtol))
    assert not before.converged and before.residual > target


def test_rtol_may_be_a_schedule_of_the_step(x64):
    problem, solver = random_problem(5), DouglasRachford(rtol=schedule)
    early, late = (solve(problem, solver, step=step) for step in (0, 99))
    assert early.num_steps == solve(problem, DouglasRachford(rtol=1e-1)).num_steps
    assert late.num_steps == solve(problem, DouglasRachford(rtol=1e-3)).num_steps > early.num_steps


def schedule(step):
    return 1e-1 / (step + 1.0)


@pytest.mark.parametrize("regularizer", [NUCLEAR, ROWS])
def test_blocks_proven_zero_stay_zero(regularizer):
    problem = tuple(np.asarray(x, np.float32) for x in random_problem(0))
    solution = solve((*problem[:3], np.float32(1e6), problem[4]), DouglasRachford(max_steps=5), regularizer)
    np.testing.assert_array_equal(solution.value, np.zeros(SHAPE))
    assert solution.converged and solution.num_steps == 1


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_it_is_not_done_with_what_is_not_finite(entry):
    linear, *rest = (np.array(x, np.float32) for x in random_problem(0))
    linear[0, 0] = entry
    solution = solve((linear, *rest), DouglasRachford(max_steps=3))
    assert not solution.converged
    assert not np.isfinite(solution.residual)


@dataclasses.dataclass(frozen=True)
class Expensive(Regularizer):
    """psi of a user, with a prox that takes long."""

    convex: bool = True

    expensive_prox = True

    def value(self, w):
        return jnp.sum(jnp.square(w)) / 2

    def prox(self, x, weight):
        return x / (1 + weight)


def test_it_is_the_default_where_the_prox_is_expensive_and_psi_convex():
    five = {"max_steps": 5, "rtol": 1e-3}
    assert default_solver(NUCLEAR) == default_solver(2.0 * NUCLEAR) == DouglasRachford(**five)
    assert default_solver(Expensive()) == default_solver(2.0 * Expensive()) == DouglasRachford(**five)
    assert choose_solver(Expensive(convex=False), "diagonal").solver == ProximalGradient(**five)
    assert choose_solver(NUCLEAR, "diagonal").reason == choose_solver(Expensive(convex=False), "diagonal").reason


@pytest.mark.parametrize(
    ("regularizer", "reason"),
    [(GroupMCP(omega=1.0), "its psi is not convex"), (TopGroups(0.5, over="all"), "one of all leaves together")],
)
def test_what_it_cannot_solve_is_refused(regularizer, reason):
    assert reason in DouglasRachford().why_not(regularizer, "diagonal")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_steps": 1}, ValueError, "`max_steps` must be at least 2, got 1"),
        ({"rtol": -1.0}, ValueError, "`rtol` must be finite and at least 0, got -1.0"),
        ({"rtol": jnp.ones([])}, TypeError, "`rtol` must be a Python number or a function"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, error, message):
    with pytest.raises(error, match=re.escape(message)):
        DouglasRachford(**settings)
