"""ProximalGradient: condition (7) with an independent distance, and the released rule against a NumPy loop."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import (
    GroupLasso,
    NuclearNorm,
    ProximalGradient,
    QuadraticModel,
    SecularNewton,
    proximal_point,
    summable_tolerance,
)
from ramda_jax.solvers import Context
from tests import problems
from tests.reference import group_norm, proximal_gradient

pytestmark = pytest.mark.covering

# (shape, group axes of "input") of leaves. Their sizes differ, so that each leaf's share of a tolerance matters.
LEAVES = {"big": ((24, 40), (0,)), "conv": ((3, 3, 5, 6), (2,)), "small": ((4, 3), (0,))}
SCHEDULE = summable_tolerance(1e-2, power=1.0)
SHARES = 24 * 40 + 3 * 3 * 5 * 6 + 4 * 3


def tree_problem(seed, decades=1.5, spread_scales=True):
    """(model with weight 1, start), in float64; about half of the groups are zero in the solution."""
    rng = np.random.default_rng(seed)
    linear, anchor, metric, start = {}, {}, {}, {}
    for name, (shape, axes) in LEAVES.items():
        scale = 10.0 ** rng.uniform(-1, 1) if spread_scales else 1.0
        anchor[name] = scale * rng.normal(size=shape)
        metric[name] = problems.random_metric(rng, shape, decades, 1)
        # Half of the groups are weak.
        strength = 0.05 ** rng.integers(0, 2, size=[n if i in axes else 1 for i, n in enumerate(shape)])
        linear[name] = metric[name] * anchor[name] - scale * strength * rng.normal(size=shape)
        start[name] = scale * rng.normal(size=shape)
    return QuadraticModel(linear, anchor, metric, np.float64(1.0)), start


def lams(strength):
    return {
        name: strength * np.sqrt(np.prod(shape) / np.prod([shape[axis] for axis in axes]))
        for name, (shape, axes) in LEAVES.items()
    }


def distance(model, values, strength):
    """The distance of 0 to the subdifferential of the objective over the whole tree, computed independently."""
    lam = lams(strength)
    return group_norm.distance(
        [(values[name], rhs_of(model, name), model.metric[name], lam[name], axes) for name, (_, axes) in LEAVES.items()]
    )


def rhs_of(model, name):
    metric, anchor = group_norm.wide(model.metric[name]), group_norm.wide(model.anchor[name])
    return metric * anchor - group_norm.wide(model.linear[name])


def objective(model, values, strength):
    lam = lams(strength)
    return sum(
        group_norm.objective(values[name], rhs_of(model, name), model.metric[name], lam[name], axes)
        for name, (_, axes) in LEAVES.items()
    )


@functools.partial(jax.jit, static_argnames="solver")
def solve_tree(model, start, strength, solver, step=0):
    optimizer = proximal_point(GroupLasso(), strength, solver)
    state = optimizer.init(start)
    state = state._replace(proximal_step=jnp.int32(step))
    values, state = optimizer.update(model, state, start)
    return values, state.info


@functools.partial(jax.jit, static_argnames=("solver", "groups"))
def solve_leaf(linear, anchor, metric, weight, start, solver, groups=(0,)):
    model = QuadraticModel(linear, anchor, metric, weight)
    return solver.solve(model, GroupLasso(groups, group_weight=1.0), Context(start))


def to_numpy(tree):
    return jax.tree.map(np.asarray, tree)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("tolerance", "step", "epsilon"),
    [
        (1e-1, 0, 1e-1),
        (1e-9, 7, 1e-9),
        (SCHEDULE, 0, 1e-2),
        (SCHEDULE, 9, 1e-3),
        (SCHEDULE, 999, 1e-5),
    ],
    ids=["1e-1", "1e-9", "schedule at step 0", "schedule at step 9", "schedule at step 999"],
)
@pytest.mark.parametrize("stepsize", ["block", "leaf"])
def test_condition_7_holds_for_the_point_returned_as_converged(x64, stepsize, tolerance, step, epsilon, seed):
    model, start = tree_problem(seed)
    strength = 0.3
    solver = ProximalGradient(max_steps=100_000, tolerance=tolerance, stepsize=stepsize)
    values, info = to_numpy(solve_tree(model, start, strength, solver, step))
    assert info.converged
    assert info.num_steps < solver.max_steps
    found = distance(model, values, strength)
    assert found <= epsilon
    # The reported residual is at least the true distance, up to rounding.
    rounding = 10 * np.finfo(float).eps * np.sqrt(sum(np.sum(rhs_of(model, name) ** 2) for name in LEAVES))
    assert found <= float(info.residual) + rounding
    assert objective(model, values, strength) <= objective(model, start, strength)


def test_condition_7_does_not_hold_after_half_of_the_iterations(x64):
    # This test shows that the solver does not always go much further than asked.
    model, start = tree_problem(0)
    epsilon, strength = 1e-9, 0.3
    _, info = solve_tree(model, start, strength, ProximalGradient(max_steps=100_000, tolerance=epsilon))
    half = ProximalGradient(max_steps=int(info.num_steps) // 2, tolerance=epsilon)
    values, info = to_numpy(solve_tree(model, start, strength, half))
    assert info.num_steps == half.max_steps
    assert not info.converged
    assert distance(model, values, strength) > epsilon


def test_each_leaf_meets_its_share_of_the_tolerance(x64):
    model, start = tree_problem(1)
    epsilon, strength = 1e-9, 0.3
    values, _ = to_numpy(solve_tree(model, start, strength, ProximalGradient(100_000, tolerance=epsilon)))
    lam = lams(strength)
    used = 0
    for name, (shape, axes) in LEAVES.items():
        problem = (values[name], rhs_of(model, name), model.metric[name], lam[name], axes)
        share = epsilon * np.sqrt(np.prod(shape) / SHARES)
        assert group_norm.distance([problem]) <= share
        used = max(used, group_norm.distance([problem]) / share)
    assert used > 0.05  # some leaf uses a good part of its share


def test_the_squares_of_the_shares_add_up_to_one():
    shares = {}

    class Recorder(ProximalGradient):
        def solve(self, model, regularizer, context):
            shares[model.linear.shape] = context.share
            return super().solve(model, regularizer, context)

    leaves = {name: jnp.ones(shape) for name, (shape, _) in LEAVES.items()} | {"bias": jnp.ones(7)}
    model = QuadraticModel(leaves, leaves, leaves, jnp.float32(1.0))
    optimizer = proximal_point(GroupLasso(), 1.0, Recorder())
    jax.eval_shape(optimizer.update, model, optimizer.init(leaves), leaves)
    assert shares == {shape: pytest.approx(np.sqrt(np.prod(shape) / SHARES)) for shape, _ in LEAVES.values()}


@pytest.mark.parametrize(("dtype", "stepsize"), [(np.float32, "block"), (np.float64, "block"), (np.float64, "leaf")])
def test_tolerance_below_rounding_is_raised_and_the_solve_ends(dtype, stepsize):
    with jax.enable_x64(dtype == np.float64):
        model, start = jax.tree.map(lambda x: np.asarray(x, dtype), tree_problem(2))
        strength = 0.3
        solver = ProximalGradient(max_steps=100_000, tolerance=0.0, stepsize=stepsize)
        values, info = to_numpy(solve_tree(model, start, strength, solver))
        assert info.converged
        assert info.num_steps < 10_000
        rhs_norm = np.sqrt(sum(np.sum(rhs_of(model, name) ** 2) for name in LEAVES))
        # The tolerance is raised to 10 machine eps ||rhs||. The rest is the rounding of rhs and of the solution.
        assert distance(model, values, strength) <= 15 * np.finfo(dtype).eps * rhs_norm


def leaf_problem(seed, shape=(12, 30), decades=1.5):
    rng = np.random.default_rng(seed)
    metric = problems.random_metric(rng, shape, decades, 1)
    anchor, start = rng.normal(size=shape), rng.normal(size=shape)
    linear = metric * anchor - rng.normal(size=shape) * 10 ** rng.uniform(-1, 0.5, size=(shape[0], 1))
    lam = float(np.quantile(np.linalg.norm(metric * anchor - linear, axis=1), 0.4)) * 1.01
    return linear, anchor, metric, lam, start


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rtol", "max_steps"), [(1e-8, 100), (1e-3, 5), (1e-4, 1000), (1e-12, 3000)])
@pytest.mark.parametrize("stepsize", ["block", "leaf"])
def test_released_rule_is_the_released_codes_loop(x64, stepsize, rtol, max_steps, seed):
    problem = leaf_problem(seed)
    solver = ProximalGradient(max_steps=max_steps, rtol=rtol, stepsize=stepsize)
    linear, anchor, metric, lam, start = problem
    solution = to_numpy(solve_leaf(linear, anchor, metric, lam, start, solver))
    expected, num_steps, values = proximal_gradient.released(
        linear, anchor, metric, lam, start, rtol, max_steps, per_block=stepsize == "block"
    )
    assert solution.num_steps == num_steps
    np.testing.assert_allclose(solution.value, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(solution.value == 0, expected == 0)
    met = (values[-2] - values[-1]) / (abs(values[-1]) + 1) < rtol
    assert solution.converged == met


def test_released_rule_takes_at_least_two_iterations_and_at_most_max_steps(x64):
    linear, anchor, metric, lam, start = leaf_problem(0)
    easy = solve_leaf(linear, anchor, metric, lam, start, ProximalGradient(rtol=1e9))
    assert int(easy.num_steps) == 2
    assert easy.converged
    hard = solve_leaf(linear, anchor, metric, lam, start, ProximalGradient(max_steps=7, rtol=1e-15))
    assert int(hard.num_steps) == 7
    assert not hard.converged


@pytest.mark.parametrize(("tolerance", "number"), [(None, 1), (1e-3, 2)])
def test_nuclear_norm_costs_a_decomposition_per_iteration_and_condition_7_one_of_the_start(tolerance, number):
    leaf = jnp.ones((5, 4))

    def solve(rhs, metric, start):
        model = QuadraticModel(-rhs, jnp.zeros_like(rhs), metric, jnp.float32(1.0))
        return ProximalGradient(tolerance=tolerance).solve(model, NuclearNorm(split=1), Context(start)).value

    assert len(re.findall(r"= svd\[", str(jax.make_jaxpr(solve)(leaf, leaf, leaf)))) == number


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_rtol_zero_never_stops_early(dtype, seed):
    # The solve continues long after it has converged, when rounding makes Q oscillate.
    with jax.enable_x64(dtype == np.float64):
        problem = jax.tree.map(lambda x: np.asarray(x, dtype), leaf_problem(seed, decades=0.5))
        solution = solve_leaf(*problem, ProximalGradient(max_steps=500, rtol=0.0))
        assert int(solution.num_steps) == 500
        assert solution.converged
        assert not solve_leaf(*problem, ProximalGradient(max_steps=2, rtol=0.0)).converged


@pytest.mark.parametrize("stepsize", ["block", "leaf"])
def test_groups_proven_zero_are_exactly_zero_after_any_number_of_iterations(stepsize):
    problem = jax.tree.map(lambda x: np.asarray(x, np.float32), leaf_problem(5, decades=3))
    linear, anchor, metric, lam, start = problem
    proven = group_norm.norms(group_norm.wide(metric) * anchor - linear, (0,)) <= lam
    assert 0 < np.sum(proven) < len(proven)
    for max_steps in (2, 3, 50):
        value = solve_leaf(*problem, ProximalGradient(max_steps=max_steps, rtol=0.0, stepsize=stepsize)).value
        np.testing.assert_array_equal(np.asarray(value)[proven], 0)
        assert np.any(np.asarray(value) != 0)
    # Without the proof, two iterations would leave nonzero entries.
    z = np.asarray(start, float)
    largest = np.max(metric, axis=1, keepdims=True)
    for _ in range(2):
        gradient = linear + metric * (z - anchor)
        z = proximal_gradient.shrink(z - gradient / largest, lam / largest[:, 0])
    assert np.any(z[proven] != 0)


def test_all_groups_proven_zero_and_leaves_without_entries():
    linear, anchor, metric, _, start = jax.tree.map(lambda x: np.asarray(x, np.float32), leaf_problem(0))
    for solver in (ProximalGradient(), ProximalGradient(tolerance=1e-3)):
        solution = solve_leaf(linear, anchor, metric, np.float32(1e6), start, solver)
        np.testing.assert_array_equal(solution.value, 0)
        assert solution.converged
        assert int(solution.num_steps) <= 2
        for shape in ((0, 5), (5, 0)):
            empty = np.zeros(shape, np.float32)
            with jax.debug_nans(True):
                solution = solve_leaf(empty, empty, empty, np.float32(1.0), empty, solver)
            assert solution.value.shape == shape
            assert solution.converged


def test_step_per_leaf_needs_more_iterations_than_per_block_on_a_spread_metric(x64):
    linear, anchor, metric, lam, start = leaf_problem(3, decades=0.5)
    spread = metric * 10.0 ** np.linspace(-2, 0, len(metric))[:, None]
    linear = spread * anchor - (metric * anchor - linear)  # the same rhs
    counts = {}
    for stepsize in ("block", "leaf"):
        solver = ProximalGradient(max_steps=100_000, tolerance=1e-8, stepsize=stepsize)
        solution = solve_leaf(linear, anchor, spread, lam, start, solver)
        assert solution.converged
        counts[stepsize] = int(solution.num_steps)
    assert counts["leaf"] > 20 * counts["block"]


@pytest.mark.parametrize("stepsize", ["block", "leaf"])
@pytest.mark.parametrize("seed", range(3))
def test_proximal_gradient_run_to_the_end_agrees_with_secular_newton(x64, stepsize, seed):
    model, start = tree_problem(seed)
    strength = 0.3
    exact, _ = to_numpy(solve_tree(model, start, strength, SecularNewton()))
    iterated, info = to_numpy(
        solve_tree(model, start, strength, ProximalGradient(100_000, tolerance=0.0, stepsize=stepsize))
    )
    assert info.converged
    zeros = entries = 0
    for name in LEAVES:
        # The metric is at least 10^-1.5, so if the residual is at rounding, the error is too.
        scale = np.max(np.abs(exact[name]))
        np.testing.assert_allclose(iterated[name], exact[name], rtol=0, atol=1e-12 * scale)
        np.testing.assert_array_equal(iterated[name] == 0, exact[name] == 0)
        zeros, entries = zeros + np.sum(exact[name] == 0), entries + exact[name].size
    assert 0.2 < zeros / entries < 0.8


def test_objective_never_increases_over_the_iterations(x64):
    linear, anchor, metric, lam, start = leaf_problem(4)
    rhs = group_norm.wide(metric) * anchor - linear
    values = [group_norm.objective(start, rhs, metric, lam, (0,))]
    for max_steps in (2, 3, 4, 5, 10):
        solver = ProximalGradient(max_steps, rtol=0.0)
        w = np.asarray(solve_leaf(linear, anchor, metric, lam, start, solver).value)
        values.append(group_norm.objective(w, rhs, metric, lam, (0,)))
    assert all(after < before for before, after in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_steps": 1}, ValueError, "`max_steps` must be at least 2, got 1"),
        ({"max_steps": 5.0}, TypeError, "`max_steps` must be a whole number, got 5.0"),
        ({"rtol": -1e-8}, ValueError, "`rtol` must be finite and at least 0, got -1e-08"),
        ({"tolerance": -1.0}, ValueError, "`tolerance` must be finite and at least 0, got -1.0"),
        ({"stepsize": "group"}, ValueError, "`stepsize` must be 'block' or 'leaf', got 'group'"),
        ({"tolerance": np.array(1.0)}, TypeError, "`rtol` and `tolerance` must be Python numbers or functions"),
    ],
)
def test_proximal_gradient_refuses_bad_settings_by_name(settings, error, message):
    with pytest.raises(error, match=message):
        ProximalGradient(**settings)


@pytest.mark.parametrize("power", [0.75, 1.0, 2.0])
def test_summable_tolerance_is_the_power_of_the_step(x64, power):
    schedule = summable_tolerance(1e-3, power)
    for step in (0, 1, 99, 12_345):
        np.testing.assert_allclose(float(schedule(step)), 1e-3 / (step + 1) ** power, rtol=1e-14)


@pytest.mark.parametrize(
    ("scale", "power", "message"),
    [
        (0.0, 0.75, "`scale` must be finite and above 0, got 0.0"),
        (1e-3, 0.5, "`power` must be finite and above 0.5, got 0.5"),
        (float("nan"), 0.75, "`scale` must be finite and above 0, got nan"),
    ],
)
def test_summable_tolerance_refuses_bad_settings_by_name(scale, power, message):
    with pytest.raises(ValueError, match=message):
        summable_tolerance(scale, power)
