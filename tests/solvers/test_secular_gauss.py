"""SecularNewton from the radii of the last solution: the pass, its bound, and more passes if one is not enough."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramda_jax import GroupLasso, QuadraticModel, SecularNewton, proximal_point
from ramda_jax.regularizers.groups import NormPenalty
from ramda_jax.solvers import Context
from ramda_jax.solvers.secular_pass import LeafEquations
from ramda_jax.solvers.secular_passes import roots_to_rounding
from ramda_jax.xla.execution import PLAIN
from tests import problems
from tests.reference import group_norm
from tests.solvers.test_secular_newton import check_optimal, every_dtype, rounded
from tests.tiny import array

LAYOUTS = [((40,), ()), ((9, 33), (0,)), ((3, 3, 5, 4), (2,)), ((0, 5), (0,))]


@functools.partial(jax.jit, static_argnames=("group_axes", "max_steps"))
def solve_from(radii, rhs, metric, weight, group_axes, max_steps=SecularNewton.max_steps):
    model = QuadraticModel(-rhs, jnp.zeros_like(rhs), metric, weight)
    context = Context(jnp.zeros_like(rhs), radii=radii)
    return SecularNewton(max_steps).solve(model, GroupLasso(group_axes, group_weight=1.0), context)


@functools.partial(jax.jit, static_argnums=(3, 5))
def passed(rhs, metric, weight, axes, radii, most=1):
    """The radii after at most `most` passes, and their error bounds."""
    roots = roots_to_rounding([LeafEquations(rhs, metric, NormPenalty(weight), axes, radii)], PLAIN, most)
    return roots.radii[0], roots.errors


def kept_shape(shape, group_axes):
    """The shape of the radii, with length 1 along the axes inside a group."""
    group_axes = [axis % len(shape) for axis in group_axes] if shape else []
    return tuple(size if axis in group_axes else 1 for axis, size in enumerate(shape))


def root_of_s(radii, rhs, metric, weight, group_axes):
    """The value of `||rhs_g / (metric r + weight)||` for each group, in NumPy's widest float."""
    r = group_norm.wide(np.reshape(radii, (-1, 1)))
    t = group_norm.rows(group_norm.wide(metric), group_axes) * r + group_norm.wide(weight)
    t = np.where(t == 0, 1, t)  # avoid 0 / 0 for a group of zeros without a weight
    return np.sqrt(np.sum((group_norm.rows(group_norm.wide(rhs), group_axes) / t) ** 2, axis=1))


@pytest.mark.slow
@every_dtype
@settings(max_examples=150)
@given(
    problem=problems.group_subproblems(LAYOUTS),
    off=st.sampled_from([0.0, 1e-4, 1e-2, 0.3, 3.0, np.inf]),
    seed=st.integers(0, 9),
)
def test_the_solution_is_optimal_to_rounding_from_whatever_radii(dtype, problem, off, seed):
    problem = rounded(problem, dtype)
    rng = np.random.default_rng(seed)
    shape = kept_shape(problem[0].shape, problem[3])
    with jax.enable_x64(dtype == np.float64):
        solution = solve_from(np.full(shape, np.nan, dtype), *problem)
        if off == np.inf:  # start from zeros and from numbers of any size
            start = np.where(rng.uniform(size=shape) < 0.5, 0, 10.0 ** rng.uniform(-30, 30, shape))
        else:
            start = np.asarray(solution.radii) * np.exp(off * rng.normal(size=shape))
        solution = jax.tree.map(np.asarray, solve_from(start.astype(dtype), *problem))
    check_optimal(*problem, solution=solution)


@every_dtype
def test_a_radius_of_any_size_leads_to_the_solution(dtype):
    """There is a group for each decade of the dtype. Far from the root the pass overflows, but must not return NaN."""
    info = np.finfo(dtype)
    radii = 10.0 ** np.arange(np.ceil(np.log10(float(info.tiny))), np.floor(np.log10(float(info.max))))
    rng = np.random.default_rng(0)
    shape = (len(radii), 7)
    problem = rounded((rng.normal(size=shape), 10.0 ** rng.uniform(-3, 8, size=shape), np.asarray(1e-5), (0,)), dtype)
    with jax.enable_x64(dtype == np.float64):
        solution = jax.tree.map(np.asarray, solve_from(radii.astype(dtype)[:, None], *problem))
    assert solution.converged
    check_optimal(*problem, solution=solution)


@settings(max_examples=100)
@given(
    problem=problems.group_subproblems(LAYOUTS[:3]),
    off=st.floats(-0.6, 3.0),
    seed=st.integers(0, 9),
)
def test_one_pass_ends_left_of_the_root_and_within_its_bound(problem, off, seed):
    problem = rounded(problem, np.float64)
    rhs, metric, weight, group_axes = problem
    shape = kept_shape(rhs.shape, group_axes)
    alive = group_norm.norms(rhs, group_axes) > weight
    with jax.enable_x64(True):
        roots = np.asarray(solve_from(np.full(shape, np.nan), *problem).radii)
        start = roots * (1 + off * np.random.default_rng(seed).uniform(size=shape))
        axes = tuple(axis for axis in range(rhs.ndim) if axis not in [a % rhs.ndim for a in group_axes])
        radii, bounds = jax.tree.map(np.asarray, passed(rhs, metric, weight, axes, start))
    # Without a weight any radius gives the solution.
    known = alive & (start.reshape(-1) > 0) & np.isfinite(bounds.reshape(-1)) & (weight > 0)
    error = root_of_s(radii, *problem) - 1
    rounding = 64 * np.finfo(float).eps
    assert np.all(error[known] >= -rounding)
    assert np.all(error[known] <= bounds.reshape(-1)[known] + rounding)


def test_the_error_is_of_fourth_order_where_newtons_is_of_second():
    rng = np.random.default_rng(0)
    rhs, metric = rng.normal(size=(1, 200)), problems.random_metric(rng, (1, 200), 1, 1)
    problem = (rhs, metric, 0.5 * float(np.linalg.norm(rhs)), (0,))
    with jax.enable_x64(True):
        root = np.asarray(solve_from(np.full((1, 1), np.nan), *problem).radii)
        errors = [
            float(root_of_s(passed(rhs, metric, problem[2], (1,), root * (1 + off))[0], *problem)[0] - 1)
            for off in (0.2, 0.1, 0.05)
        ]
    # Half the distance divides the error by 2^4, up to the next order.
    assert 12 < errors[0] / errors[1] < 24
    assert 12 < errors[1] / errors[2] < 24


def test_one_pass_is_exact_where_the_metric_takes_two_values():
    rng = np.random.default_rng(0)
    rhs, metric = rng.normal(size=(4, 50)), np.where(rng.uniform(size=(4, 50)) < 0.3, 0.1, 1.0)
    problem = (rhs, metric, 3.0, (0,))
    with jax.enable_x64(True):
        roots = np.asarray(solve_from(np.full((4, 1), np.nan), *problem).radii)
        radii, _ = passed(rhs, metric, 3.0, (1,), 0.95 * roots)
    np.testing.assert_allclose(root_of_s(radii, *problem), 1, rtol=1e-7)


@every_dtype
def test_what_a_pass_can_tell_at_radius_zero(dtype):
    rhs = np.array([[3.0, 4.0], [3.0, 4.0], [np.nan, 0.0], [0.0, 0.0]], dtype)
    lam = np.array([[5.0], [4.9], [1.0], [0.0]], dtype)
    with jax.enable_x64(dtype == np.float64):
        found = passed(jnp.asarray(rhs), jnp.ones_like(rhs), jnp.asarray(lam), (1,), jnp.zeros((4, 1), dtype))
        radii, errors = jax.tree.map(np.asarray, found)
    # The pass knows that the group at the border is zero, and that the one without a weight is. Of the group that is
    # alive it knows a radius left of the root, 5 - 4.9.
    np.testing.assert_array_equal(errors, [[0], [np.inf], [np.inf], [0]])
    np.testing.assert_array_equal(radii == 0, [[True], [False], [False], [True]])
    assert 0 < radii[1] <= 0.1 + 1e-6
    assert np.isnan(radii[2])


def test_one_step_per_leaf_when_little_has_changed_and_more_when_much_has():
    rng = np.random.default_rng(0)
    rhs, metric = (
        rng.normal(size=(6, 50)).astype(np.float32),
        problems.random_metric(rng, (6, 50), 2, 1).astype(np.float32),
    )
    cold = solve_from(np.full((6, 1), np.nan, np.float32), rhs, metric, np.float32(4), (0,))
    near = solve_from(cold.radii, rhs * np.float32(1.001), metric, np.float32(4), (0,))
    far = solve_from(cold.radii, rhs * np.float32(3), metric, np.float32(4), (0,))
    assert near.num_steps == 1
    assert 1 < far.num_steps <= 8


def test_the_result_of_a_group_does_not_depend_on_other_groups():
    rng = np.random.default_rng(0)
    rhs, metric = rng.normal(size=(500, 50)), problems.random_metric(rng, (500, 50), 4, 1)
    problem = (rhs.astype(np.float32), metric.astype(np.float32), np.float32(4), (0,))
    cold = solve_from(np.full((500, 1), np.nan, np.float32), *problem)
    # The first group takes more passes than the others.
    start = np.asarray(cold.radii) * np.float32(1.001)
    one_far = np.where(np.arange(500)[:, None] == 0, 100 * start, start)
    near, far = solve_from(start, *problem), solve_from(one_far, *problem)
    assert near.num_steps < far.num_steps
    np.testing.assert_array_equal(near.value[1:], far.value[1:])
    np.testing.assert_array_equal(near.radii[1:], far.radii[1:])


def test_a_root_in_a_flat_stretch_is_found_though_rounding_hides_its_side():
    """The norm of rhs is some machine eps above the weight, and S changes by less than that over decades of radii."""
    rng = np.random.default_rng(0)
    rhs = np.float32([7e-6, 2.5e-2]) * rng.uniform(0.5, 2, (20_000, 2)).astype(np.float32)
    metric = np.broadcast_to(np.float32([0.6, 7e-12]), rhs.shape)
    norms = np.linalg.norm(rhs.astype(float), axis=1, keepdims=True)
    weight = (norms * (1 - 2e-7 * rng.uniform(0, 4, norms.shape))).astype(np.float32)
    radii, errors = passed(rhs, metric, weight, (1,), np.zeros_like(norms, np.float32), most=16)
    assert np.all(errors <= np.finfo(np.float32).eps)
    size = root_of_s(radii, rhs, metric, weight, (0,))
    assert np.all((np.abs(size - 1) <= 1e-6) | (np.asarray(radii).ravel() == 0))


def test_small_leaves_of_equal_shape_are_solved_in_one_batch_to_the_same_solutions():
    rng = np.random.default_rng(0)
    params = {f"{i}": array(rng.normal(size=(5, 7)), jnp.float32) for i in range(3)}
    params["other"] = array(rng.normal(size=(6, 7)), jnp.float32)

    def solve(names):
        some = {name: params[name] for name in names}
        metric = {name: 1 + jnp.abs(leaf) for name, leaf in some.items()}
        anchor = {name: jnp.zeros_like(leaf) for name, leaf in some.items()}
        transform = proximal_point(GroupLasso("input", group_weight=1.0), strength=1.5)
        state = transform.init(some)
        update = jax.jit(transform.update)
        for _ in range(2):  # the second solve starts from exact radii
            value, state = update(QuadraticModel(some, anchor, metric, 1.0), state, some)
        return value, state

    together, state = solve(params)
    assert state.info.num_steps == 1
    for name in ("1", "other"):
        alone, alone_state = solve([name])
        np.testing.assert_array_equal(np.asarray(alone[name]) == 0, np.asarray(together[name]) == 0)
        np.testing.assert_allclose(alone[name], together[name], rtol=1e-6)
        np.testing.assert_allclose(alone_state.radii[name], state.radii[name], rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_leaves_of_a_batch_share_one_loop(batch):
    """If each leaf had its own condition, `vmap` would go on with all of them and select by leaf."""
    params = {f"{i}": jnp.ones((5, 7)) for i in range(batch)}
    transform = proximal_point(GroupLasso(), strength=1.0)
    model = QuadraticModel(params, params, jax.tree.map(lambda p: p + 1, params), 1.0)
    program = jax.jit(transform.update).trace(model, transform.init(params), params).lower().as_text()
    assert program.count("stablehlo.while") == 1
    # The condition is about one number of passes, and not about one for each leaf.
    condition = program[program.index("cond {") : program.index("} do {")]
    assert f"tensor<{batch}xi1>" not in condition
    assert "stablehlo.or" not in condition


@pytest.mark.parametrize("max_steps", [1, 2])
def test_a_step_limit_is_reported(max_steps):
    rng = np.random.default_rng(0)
    rhs, metric = rng.normal(size=(6, 50)), problems.random_metric(rng, (6, 50), 6, 1)
    problem = (np.full((6, 1), 1e-3), rhs, metric, 4.0, (0,))
    solution = solve_from(*problem, max_steps=max_steps)
    assert solution.num_steps == max_steps
    assert not solution.converged
    assert solve_from(*problem).converged
