"""SecularNewton against root finding and the optimality conditions in NumPy's widest float."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ramda_jax import GroupLasso, QuadraticModel, SecularNewton, proximal_point
from ramda_jax.solvers import Context
from tests import problems
from tests.reference import group_norm
from tests.tiny import array

pytestmark = pytest.mark.covering

DTYPES = [np.float32, np.float64]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


@functools.partial(jax.jit, static_argnames=("group_axes", "max_steps"))
def jitted(rhs, metric, weight, group_axes, max_steps=SecularNewton.max_steps):
    # The anchor is 0, so the model's rhs is exactly the given one.
    model = QuadraticModel(-rhs, jnp.zeros_like(rhs), metric, weight)
    solver = SecularNewton(max_steps)
    return solver.solve(model, GroupLasso(group_axes, group_weight=1.0), Context(jnp.zeros_like(rhs)))


def rounded(problem, dtype):
    """The problem in `dtype` as NumPy arrays, which both the solver and the reference get."""
    rhs, metric, weight, group_axes = problem
    return np.asarray(rhs, dtype), np.asarray(metric, dtype), np.asarray(weight, dtype), group_axes


def solve(rhs, metric, weight, group_axes):
    with jax.enable_x64(rhs.dtype == np.float64):
        return jax.tree.map(np.asarray, jitted(rhs, metric, weight, group_axes))


def random_problem(shape, group_axes, seed=0, decades=4, weight_factor=0.7):
    rng = np.random.default_rng(seed)
    rhs, metric = rng.normal(size=shape), problems.random_metric(rng, shape, decades, 1)
    weight = weight_factor * float(np.median(group_norm.norms(rhs, group_axes)))
    return rhs, metric, weight, group_axes


def underflow(solution, metric, weight, group_axes):
    """A bound for each group's residual due to entries below the smallest normal number, which are flushed to 0."""
    tiny = np.finfo(solution.value.dtype).tiny
    radii = group_norm.wide(solution.radii.reshape(-1, 1))
    slope = group_norm.rows(metric, group_axes) + group_norm.wide(weight) / np.where(radii == 0, 1, radii)
    is_flushed = np.abs(group_norm.rows(solution.value, group_axes)) < tiny
    return tiny * (1 + np.sqrt(np.sum(np.where(is_flushed & (radii > 0), slope, 0) ** 2, axis=1)))


def check_optimal(rhs, metric, weight, group_axes, solution=None):
    """Checks that the KKT residual is at rounding, that the right groups are zero, and that the steps are few."""
    eps = np.finfo(rhs.dtype).eps
    solution = solve(rhs, metric, weight, group_axes) if solution is None else solution
    assert solution.value.shape == rhs.shape
    assert solution.value.dtype == rhs.dtype
    norms = group_norm.norms(rhs, group_axes)
    residuals = group_norm.kkt_residuals(solution.value, rhs, metric, group_norm.wide(weight), group_axes)
    # The limit is 4 machine eps times ||rhs|| for each group.
    np.testing.assert_array_less(residuals, 4 * eps * norms + underflow(solution, metric, weight, group_axes))
    alive = np.any(group_norm.rows(solution.value, group_axes) != 0, axis=1)
    radii = solution.radii.reshape(-1)
    border = 4 * eps * norms
    assert not np.any(alive & (norms < weight - border))
    assert not np.any(~alive & (norms > weight + border))
    np.testing.assert_array_equal(alive[norms > 0], (radii != 0)[norms > 0])
    assert np.isfinite(solution.residual)
    assert solution.converged
    assert solution.num_steps <= 12
    return solution


@every_dtype
@settings(max_examples=150)
@given(problem=problems.group_subproblems(problems.SMALL_LAYOUTS + problems.EMPTY_LAYOUTS))
def test_secular_newton_is_optimal_to_rounding(dtype, problem):
    check_optimal(*rounded(problem, dtype))


@every_dtype
@settings(max_examples=30)
@given(problem=problems.group_subproblems(problems.LARGE_LAYOUTS))
def test_secular_newton_is_optimal_to_rounding_when_groups_are_large_or_many(dtype, problem):
    check_optimal(*rounded(problem, dtype))


@every_dtype
@settings(max_examples=60)
@given(problem=problems.group_subproblems([((40,), ()), ((9, 33), (0,)), ((3, 3, 5, 4), (2,))]))
def test_secular_newton_finds_the_root_that_root_finding_finds(dtype, problem):
    problem = rounded(problem, dtype)
    solution = solve(*problem)
    w, radii, slopes = group_norm.solve(*problem)
    weight, group_axes = problem[2:]
    norms = group_norm.norms(problem[0], group_axes)
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    sure = (np.abs(norms - weight) > 4 * eps * norms) & (norms > weight)
    # An error of eps in the norms moves the root by eps / |slope|, which is large next to the border.
    limit = 8 * eps / -slopes
    if weight > 0:  # without a weight any radius gives the same solution
        error = np.abs(solution.radii.reshape(-1) - radii)
        assert np.all(error[sure] <= limit[sure] * radii[sure] + tiny)
    error = np.abs(group_norm.rows(solution.value, group_axes) - w)
    assert np.all(error[sure] <= limit[sure, None] * np.abs(w[sure]) + tiny)


@pytest.mark.parametrize("size", [1, 2, 30, 10_000])
@pytest.mark.parametrize("relative", [-16, -4, 0, 4, 16])
@every_dtype
def test_secular_newton_is_zero_exactly_where_the_norm_is_at_most_the_weight(dtype, size, relative):
    # The weight differs from the norm by some machine eps, at any scale.
    eps = np.finfo(dtype).eps
    rng = np.random.default_rng(size)
    rhs = np.asarray(rng.normal(size=size) * 10.0 ** rng.uniform(-15, 15), dtype)
    norm = group_norm.norms(rhs, ())[0]
    weight = np.asarray(norm * (1 + relative * group_norm.wide(eps)), dtype)
    metric = np.asarray(problems.random_metric(rng, size, 2, 1), dtype)
    solution = solve(rhs, metric, weight, ())
    if relative > 0:
        assert np.all(solution.value == 0)
    elif relative < 0:
        assert np.any(solution.value != 0)
    # Within rounding both answers are right and optimal.
    residual = group_norm.kkt_residuals(solution.value, rhs, metric, group_norm.wide(weight), ())
    assert residual <= 4 * eps * norm


@pytest.mark.slow
@settings(max_examples=60)
@given(problem=problems.group_subproblems([((), ()), ((4, 6), (0,)), ((2, 0), (0,)), ((3, 2, 3), (2,))]))
@example(problem=(np.zeros((4, 6)), np.ones((4, 6)), 0.0, (0,)))
@example(problem=(np.zeros((4, 6)), np.ones((4, 6)), 1e30, (0,)))
@example(problem=(np.full((4, 6), 1e30), np.full((4, 6), 1e-4), 1e-30, (0,)))
@example(problem=(np.full((4, 6), 1e-30), np.full((4, 6), 1e-4), 1e30, (0,)))
def test_secular_newton_makes_no_nan_on_the_way_in_float32(problem):
    rhs, metric, weight, group_axes = rounded(problem, np.float32)
    # Without jit every operation is checked, not only the results.
    with jax.debug_nans(True), jax.disable_jit():
        solution = jitted(jnp.asarray(rhs), jnp.asarray(metric), jnp.asarray(weight), group_axes)
    assert np.all(np.isfinite(solution.value))
    assert np.isfinite(solution.residual)


def test_debug_nans_without_jit_would_see_a_nan_that_does_not_come_out():
    with jax.debug_nans(True), jax.disable_jit(), pytest.raises(FloatingPointError):
        jax.jit(lambda x: jnp.where(x == 0, 0, x / x))(jnp.zeros(2))


def climb(dtype, size, seed, population=256, generations=300):
    """The largest number of passes that hill climbing finds, for one group and 12 decades of metric."""

    @jax.jit
    @jax.vmap
    def counts(rhs, metric, weight):
        model = QuadraticModel(-rhs, jnp.zeros_like(rhs), metric, weight)
        context = Context(jnp.zeros_like(rhs))
        return SecularNewton(max_steps=200).solve(model, GroupLasso((), group_weight=1.0), context).num_steps

    rng = np.random.default_rng(seed)
    log_metric = -12 * rng.uniform(size=(population, size)) ** rng.uniform(0.1, 6, size=(population, 1))
    log_metric[:, 0], log_metric[:, -1] = 0, -12
    log_rhs = -12 * rng.uniform(size=(population, size)) ** rng.uniform(0.1, 6, size=(population, 1))
    closeness = -rng.exponential(2, size=population)
    best = np.zeros(population, int)
    for generation in range(generations + 1):
        changed = rng.uniform(size=(population, size)) < rng.uniform(0.05, 1, size=(population, 1))
        step = changed * 10.0 ** rng.uniform(-2, 0.5, size=(population, 1)) if generation else 0.0
        new_metric = np.clip(log_metric + step * rng.normal(size=(population, size)), -12, 0)
        new_rhs = np.clip(log_rhs + step * rng.normal(size=(population, size)), -14, 0)
        moved = (rng.uniform(size=population) < 0.5) * rng.normal(size=population)
        new_closeness = closeness + (moved if generation else 0.0)
        rhs, metric = (10.0**new_rhs).astype(dtype), (10.0**new_metric).astype(dtype)
        norm = np.sqrt(np.sum(rhs.astype(float) ** 2, axis=1))
        lam = (norm * (1 - 10.0 ** -np.abs(new_closeness))).astype(dtype)
        found = np.asarray(counts(rhs, metric, lam))
        better = found >= best
        log_metric[better], log_rhs[better], closeness[better] = (
            new_metric[better],
            new_rhs[better],
            new_closeness[better],
        )
        best = np.maximum(best, found)
        if generation % 20 == 19:  # replace the worst quarter by copies of the best
            order = np.argsort(-best, kind="stable")
            worst, copies = order[-(population // 4) :], order[: population // 4]
            for array in (log_metric, log_rhs, closeness, best):
                array[worst] = array[copies]
    return int(best.max())


@pytest.mark.parametrize("size", [2, 4, 16])
@every_dtype
def test_secular_newton_takes_at_most_12_passes_when_problems_are_made_to_be_hard(dtype, size):
    with jax.enable_x64(dtype == np.float64):
        worst = climb(dtype, size, seed=0)
    # The lower bound shows that hill climbing finds hard problems, because most random problems take 2.
    assert 7 <= worst <= 12


@pytest.mark.slow
@pytest.mark.parametrize("strength", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("network", list(problems.NETWORKS))
def test_secular_newton_takes_at_most_5_steps_on_recorded_subproblems(network, strength):
    records = problems.recorded_subproblems(network, strength)
    assert max(int(info.num_steps) for *_, info in records) <= 5
    assert all(info.converged for *_, info in records)
    eps = np.finfo(np.float32).eps
    alive = groups = 0
    for model, _, _ in records[::13]:
        for layer in model.linear:
            kernel = model.linear[layer]["kernel"]
            axes = (0,) if kernel.ndim == 2 else (2,)
            size = kernel.size // kernel.shape[axes[0]]
            metric = model.metric[layer]["kernel"]
            # Compute the weight as the solver does: in float32, strength first.
            rhs = metric * model.anchor[layer]["kernel"] - kernel
            weight = np.float32(model.weight * np.float32(strength)) * np.float32(np.sqrt(size))
            solution = check_optimal(rhs, metric, np.asarray(weight), axes)
            assert solution.num_steps <= 5
            norms = group_norm.norms(rhs, axes)
            assert float(solution.residual) <= 4 * eps * np.sqrt(np.sum(norms**2))
            alive, groups = alive + np.sum(solution.radii != 0), groups + norms.size
    if strength < 1e-2:
        assert 0 < alive < groups  # some groups are zero and some are not


@every_dtype
def test_without_a_weight_only_what_underflows_is_zero(dtype):
    rhs = np.array([[0, 0], [0, 1], [1e-30, 1e-34], [1e30, -1e30]], dtype)
    metric = np.array([[1, 1], [2, 4], [1, 2], [1e-3, 1e3]], dtype)
    solution = solve(rhs, metric, np.asarray(0, dtype), (0,))
    np.testing.assert_array_equal(solution.value, rhs / metric)
    np.testing.assert_array_equal(solution.radii.ravel() == 0, [True, False, False, False])
    assert solution.converged


@every_dtype
def test_secular_newton_lets_a_nan_through_and_leaves_other_groups_alone(dtype):
    rhs, metric, weight, group_axes = rounded(random_problem((6, 5), (0,)), dtype)
    clean = solve(rhs, metric, weight, group_axes)
    small = int(np.argmin(group_norm.norms(rhs, group_axes)))
    assert np.all(clean.value[small] == 0)  # a NaN must also show in a group that would be zero
    for group in (small, int(np.argmax(group_norm.norms(rhs, group_axes)))):
        bad = rhs.copy()
        bad[group, 2] = np.nan
        solution = solve(bad, metric, weight, group_axes)
        assert np.all(np.isnan(solution.value[group]))
        others = np.arange(len(rhs)) != group
        np.testing.assert_array_equal(solution.value[others], clean.value[others])


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@every_dtype
def test_secular_newton_is_the_euclidean_prox_when_the_metric_is_a_multiple_of_the_identity(dtype, scale):
    rhs, _, weight, group_axes = rounded(random_problem((9, 33), (0,), weight_factor=1.01), dtype)
    solution = solve(rhs, np.full_like(rhs, scale), weight, group_axes)
    norms = group_norm.norms(rhs, group_axes)[:, None]
    expected = group_norm.wide(rhs) / np.asarray(scale, dtype) * np.maximum(1 - weight / norms, 0)
    assert 0 < np.sum(expected == 0) < expected.size
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(solution.value, expected.astype(float), rtol=100 * eps, atol=0)


@every_dtype
def test_secular_newton_is_the_soft_threshold_when_groups_have_one_entry(dtype):
    rhs, metric, weight, group_axes = rounded(random_problem((64, 1), (0,), weight_factor=1.01), dtype)
    solution = solve(rhs, metric, weight, group_axes)
    expected = np.sign(rhs) * np.maximum(np.abs(group_norm.wide(rhs)) - weight, 0) / metric
    assert 0 < np.sum(expected == 0) < expected.size
    # The limit is relative to rhs, which the weight is subtracted from.
    limit = 8 * np.finfo(dtype).eps * np.abs(group_norm.wide(rhs)) / metric
    assert np.all(np.abs(solution.value - expected) <= limit)
    np.testing.assert_array_equal(solution.value == 0, expected == 0)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@every_dtype
def test_strength_zero_gives_the_center_bit_by_bit(dtype, jit):
    rng = np.random.default_rng(3)
    with jax.enable_x64(dtype == np.float64):
        model = QuadraticModel(
            linear={"kernel": array(rng.normal(size=(7, 5)), dtype).at[0].set(0)},
            anchor={"kernel": array(rng.normal(size=(7, 5)), dtype)},
            metric={"kernel": jnp.asarray(problems.random_metric(rng, (7, 5), 6, 1), dtype)},
            weight=jnp.asarray(2.0, dtype),
        )
        optimizer = proximal_point(GroupLasso(), 0.0, SecularNewton())
        update = jax.jit(optimizer.update) if jit else optimizer.update
        center = jax.jit(lambda m: m.center) if jit else lambda m: m.center
        value, _ = update(model, optimizer.init(model.anchor), model.anchor)
        np.testing.assert_array_equal(value["kernel"], center(model.leaves()[0]))
        # Entries without a gradient keep their bits.
        np.testing.assert_array_equal(value["kernel"][0], model.anchor["kernel"][0])


@every_dtype
def test_weight_just_above_the_largest_norm_gives_zero_and_just_below_does_not(dtype):
    rhs, metric, _, group_axes = rounded(random_problem((3, 3, 5, 4), (2,)), dtype)
    largest = np.max(group_norm.norms(rhs, group_axes))
    eps = np.finfo(dtype).eps
    above = solve(rhs, metric, np.asarray(largest * (1 + 8 * eps), dtype), group_axes)
    below = solve(rhs, metric, np.asarray(largest * (1 - 8 * eps), dtype), group_axes)
    np.testing.assert_array_equal(above.value, 0)
    np.testing.assert_array_equal(above.radii, 0)
    assert above.num_steps == 1
    assert np.count_nonzero(below.radii) == 1
    assert np.any(below.value != 0)


@settings(max_examples=60)
@given(
    problem=problems.group_subproblems([((40,), ()), ((9, 33), (0,)), ((3, 3, 5, 4), (2,))]),
    seed=st.integers(0, 2**32 - 1),
)
def test_secular_newton_satisfies_the_three_point_inequality(problem, seed):
    rhs, metric, weight, group_axes = rounded(problem, np.float64)
    value = group_norm.wide(solve(rhs, metric, weight, group_axes).value)
    lowest = group_norm.objective(value, rhs, metric, weight, group_axes)
    rng = np.random.default_rng(seed)
    center = group_norm.wide(rhs) / metric
    competitors = [np.zeros_like(value), center, value + 0.1 * (center - value)]
    for size in (1e-3, 1e-1, 1, 10):
        competitors += [value * (1 + size * rng.normal(size=value.shape)), size * rng.normal(size=value.shape) * center]
    for z in competitors:
        growth = np.sum(metric * (z - value) ** 2) / 2
        there = group_norm.objective(z, rhs, metric, weight, group_axes)
        # Allow for a KKT residual at rounding, and for the rounding of the reference's sums.
        slack = 4 * np.finfo(np.float64).eps * np.sqrt(np.sum(group_norm.wide(rhs) ** 2) * np.sum((z - value) ** 2))
        slack += 100 * np.finfo(np.longdouble).eps * (abs(lowest) + growth + abs(there))
        assert lowest + growth <= there + slack


def test_secular_newton_reports_what_a_step_limit_leaves_undone(x64):
    problem = rounded(random_problem((9, 33), (0,), decades=8), np.float64)
    full = solve(*problem)
    assert full.num_steps > 3
    short = jitted(*problem, max_steps=2)
    assert int(short.num_steps) == 2
    assert not short.converged
    assert float(short.residual) > 1e6 * float(full.residual)


def test_restore_gives_the_same_solution_from_its_radii():
    rhs, metric, weight, group_axes = rounded(random_problem((9, 33), (0,)), np.float32)
    model = QuadraticModel(jnp.asarray(-rhs), jnp.zeros_like(rhs), jnp.asarray(metric), jnp.asarray(weight))
    regularizer = GroupLasso(group_axes, group_weight=1.0)
    context = Context(jnp.zeros_like(rhs))
    solution = SecularNewton().solve(model, regularizer, context)
    restored = SecularNewton().restore(model, regularizer, context, solution.radii)
    np.testing.assert_array_equal(restored, solution.value)
    none = SecularNewton().restore(model, regularizer, context, jnp.zeros_like(solution.radii))
    np.testing.assert_array_equal(none, 0)


@pytest.mark.parametrize(
    ("max_steps", "error", "message"),
    [(0, ValueError, "`max_steps` must be at least 1, got 0"), (2.0, TypeError, "`max_steps` must be a whole number")],
)
def test_secular_newton_refuses_a_bad_step_limit(max_steps, error, message):
    with pytest.raises(error, match=message):
        SecularNewton(max_steps=max_steps)
