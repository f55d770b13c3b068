"""SecularNewton with a fixed number of passes, as on accelerators, against the exact solver and NumPy's widest float.

These tests run on CPUs the code that is otherwise compiled for accelerators only."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ramda_jax
from ramda_jax import GroupLasso, GroupMCP, QuadraticModel, SecularNewton, SparseGroupLasso, SparseGroupMCP
from ramda_jax.solvers import Context, Solution
from ramda_jax.solvers.secular_passes import PASSES
from ramda_jax.subproblem.running import batches
from ramda_jax.xla import execution, reductions
from ramda_jax.xla.execution import AtOnce
from tests import problems
from tests.reference import group_norm
from tests.solvers.test_secular_newton import check_optimal, every_dtype, rounded
from tests.test_golden import GOLDEN, golden_optimizer, largest_deviation
from tests.tiny import array

pytestmark = pytest.mark.covering

LAYOUTS = [((40,), ()), ((9, 33), (0,)), ((3, 3, 5, 4), (2,)), ((0, 5), (0,))]
GROUP_REGULARIZERS = {
    "group_lasso": GroupLasso(),
    "sparse_group_lasso": SparseGroupLasso(),
    "non_negative": GroupLasso(non_negative=True),
    "group_mcp": GroupMCP(omega=0.3),
    "sparse_group_mcp": SparseGroupMCP(gamma=0.3),
}


def at_once(regularizer, rhs, metric, weight, radii):
    """The solution for one leaf."""
    model = QuadraticModel(-rhs, jnp.zeros_like(rhs), metric, weight)
    context = Context(jnp.zeros_like(rhs), radii=radii, run=AtOnce())
    solution = SecularNewton().solve_at_once([(model, regularizer, context)], to_rounding=False)
    return Solution(solution.values[0], solution.radii[0], *solution[2:])


def exact(regularizer, rhs, metric, weight, radii=None):
    model = QuadraticModel(-rhs, jnp.zeros_like(rhs), metric, weight)
    return SecularNewton().solve(model, regularizer, Context(jnp.zeros_like(rhs), radii=radii))


@functools.partial(jax.jit, static_argnames="group_axes")
def of_groups(rhs, metric, weight, radii, group_axes):
    return at_once(GroupLasso(group_axes, group_weight=1.0), rhs, metric, weight, radii)


compiled_at_once = jax.jit(at_once, static_argnums=0)
compiled_exact = jax.jit(exact, static_argnums=0)


def until_converged(problem, radii, solves=12):
    """The solutions of consecutive solves, each of which starts from the radii of the one before it."""
    rhs, metric, weight, group_axes = problem
    found = []
    for _ in range(solves):
        found.append(jax.tree.map(np.asarray, of_groups(rhs, metric, weight, radii, group_axes)))
        radii = found[-1].radii
        if found[-1].converged:
            break
    return found


@pytest.mark.slow
@every_dtype
@settings(max_examples=150)
@given(
    problem=problems.group_subproblems(LAYOUTS),
    off=st.sampled_from([0.0, 1e-4, 0.3, 3.0, np.inf]),
    seed=st.integers(0, 9),
)
def test_from_whatever_radii_the_zeros_are_exact_at_once_and_the_solution_is_after_some_solves(
    dtype, problem, off, seed
):
    problem = rounded(problem, dtype)
    rhs, _, weight, group_axes = problem
    rng = np.random.default_rng(seed)
    norms = group_norm.norms(rhs, group_axes)
    kept = [axis % max(rhs.ndim, 1) for axis in group_axes]
    shape = tuple(size if axis in kept else 1 for axis, size in enumerate(rhs.shape))
    start = np.where(rng.uniform(size=shape) < 0.5, 0, np.exp(off * rng.normal(size=shape)))
    if off == np.inf:
        start = 10.0 ** rng.uniform(-30, 30, shape)
    with jax.enable_x64(dtype == np.float64):
        found = until_converged(problem, start.astype(dtype))
    border = 4 * np.finfo(dtype).eps * norms
    for solution in found:
        radii = solution.radii.reshape(-1)
        assert np.all(np.isfinite(solution.value))
        assert not np.any((radii != 0) & (norms < weight - border))
        assert not np.any((radii == 0) & (norms > weight + border))
    check_optimal(*problem, solution=found[-1])


@pytest.mark.parametrize("name", GROUP_REGULARIZERS)
def test_every_group_regularizer_gets_its_exact_solution(name):
    regularizer = GROUP_REGULARIZERS[name].resolve("layer/kernel", (60, 20))
    rng = np.random.default_rng(0)
    rhs = rng.normal(size=(60, 20)) * np.exp(rng.normal(size=(60, 1)))
    metric = np.exp(0.5 * rng.normal(size=(60, 20)))
    outcomes = set()
    with jax.enable_x64(True):
        for weight in (0.05, 0.3, 1.0):
            wanted = compiled_exact(regularizer, rhs, metric, weight)
            radii = jnp.zeros_like(wanted.radii)
            for _ in range(4):
                found = compiled_at_once(regularizer, rhs, metric, weight, radii)
                np.testing.assert_array_equal(found.radii == 0, wanted.radii == 0)
                radii = found.radii
            assert found.converged
            np.testing.assert_allclose(found.value, wanted.value, rtol=1e-9, atol=1e-12)
            outcomes |= {bool(x) for x in np.asarray(wanted.radii == 0).ravel()}
    assert outcomes == {True, False}


def test_a_concave_penalty_gets_the_lower_of_both_minima_below_and_beyond_its_knee():
    """The metrics are below and above the concavity, and the radii on both sides of the knee."""
    regularizer = GroupMCP((0,), group_weight=1.0, omega=2.0)
    rng = np.random.default_rng(1)
    rhs = rng.normal(size=(400, 6)) * np.exp(0.5 * rng.normal(size=(400, 1)))
    metric = np.exp(rng.normal(size=(400, 6)) - 0.3)
    with jax.enable_x64(True):
        wanted = compiled_exact(regularizer, rhs, metric, 1.0)
        radii = array(np.where(rng.uniform(size=(400, 1)) < 0.5, 0, wanted.radii))
        for factor in (0.1, 0.99, 1.01, 5.0):
            found = compiled_exact(regularizer, rhs, metric, 1.0, factor * radii)
            assert found.converged
            np.testing.assert_allclose(found.radii, wanted.radii, rtol=1e-9)
        for _ in range(4):
            radii = compiled_at_once(regularizer, rhs, metric, 1.0, radii).radii
        kinds = np.digitize(np.asarray(wanted.radii).ravel(), [1e-300, 2.0])
        assert np.all(np.bincount(kinds, minlength=3) > 20)
        np.testing.assert_allclose(radii, wanted.radii, rtol=1e-9)


@every_dtype
@pytest.mark.parametrize(
    ("rhs_scale", "metric_scale"), [(1e-20, 1), (1e18, 1), (1, 1e-20), (1, 1e15), (1e-28, 1e-28), (1e15, 1e15)]
)
def test_no_square_leaves_the_range(dtype, rhs_scale, metric_scale):
    rng = np.random.default_rng(0)
    rhs, metric = rng.normal(size=(9, 33)), problems.random_metric(rng, (9, 33), 1, 1)
    problem = rounded((rhs * rhs_scale, metric * metric_scale, 4.0 * rhs_scale, (0,)), dtype)
    with jax.enable_x64(dtype == np.float64):
        found = until_converged(problem, np.zeros((9, 1), dtype))
    check_optimal(*problem, solution=found[-1])


@settings(max_examples=100)
@given(problem=problems.group_subproblems(LAYOUTS[:3]), seed=st.integers(0, 9))
def test_the_reported_residual_bounds_what_is_left_undone(problem, seed):
    problem = rounded(problem, np.float64)
    rhs, metric, weight, group_axes = problem
    kept = [axis % max(rhs.ndim, 1) for axis in group_axes]
    shape = tuple(size if axis in kept else 1 for axis, size in enumerate(rhs.shape))
    with jax.enable_x64(True):
        found = until_converged(problem, np.exp(np.random.default_rng(seed).normal(size=shape)))
    for solution in found:
        residuals = group_norm.kkt_residuals(solution.value, rhs, metric, group_norm.wide(weight), group_axes)
        rounding = 16 * np.finfo(float).eps * group_norm.norms(rhs, group_axes)
        assert np.sqrt(np.sum(np.maximum(residuals - rounding, 0) ** 2)) <= solution.residual


def test_a_nan_is_not_zero_and_is_not_converged():
    rhs, metric = jnp.ones((3, 4)), jnp.ones((3, 4))
    for found in (
        of_groups(rhs.at[1, 2].set(jnp.nan), metric, jnp.float32(1), jnp.ones((3, 1)), (0,)),
        of_groups(rhs, metric.at[1, 2].set(jnp.nan), jnp.float32(1), jnp.zeros((3, 1)), (0,)),
    ):
        np.testing.assert_array_equal(np.isnan(found.radii).ravel(), [False, True, False])
        assert not found.converged


def test_without_a_weight_the_solution_is_the_centre_and_without_a_right_hand_side_it_is_zero():
    rhs, metric = jnp.asarray([[1.0, 2.0], [0.0, 0.0]]), jnp.asarray([[2.0, 4.0], [1.0, 1.0]])
    found = of_groups(rhs, metric, jnp.float32(0), jnp.zeros((2, 1)), (0,))
    np.testing.assert_array_equal(found.value, rhs / metric)
    np.testing.assert_array_equal(found.radii == 0, [[False], [True]])
    assert found.converged


METHODS = {
    "ramda": lambda regularizer, solver=None: ramda_jax.ramda(0.1, regularizer, 1e-2, averaging=1.0, solver=solver),
    "prox_adamw": lambda regularizer, solver=None: ramda_jax.prox_adamw(0.1, regularizer, 1e-2, solver=solver),
    "prox_ssi": lambda regularizer, solver=None: ramda_jax.prox_ssi(0.1, regularizer, 1e-2, solver=solver),
    "rmda": lambda regularizer, solver=None: ramda_jax.rmda(0.1, regularizer, 1e-2, averaging=1.0, solver=solver),
}


def net(leaves=3):
    rng = np.random.default_rng(0)
    params = {f"layer{i}": {"kernel": array(rng.normal(size=(8, 5)), jnp.float32)} for i in range(leaves)}
    return params | {"conv": {"kernel": array(rng.normal(size=(3, 3, 4, 6)), jnp.float32)}}


def lowered(optimizer, params, platform):
    state = optimizer.init(params)
    return jax.jit(optimizer.update).trace(params, state, params).lower(lowering_platforms=(platform,)).as_text()


def waits(text):
    """The number of loops and branches, without the branch by platform: a case of equal numbers, which XLA folds."""
    of_platforms = text.count("}) : (tensor<i32>) -> tensor<i32>")
    return text.count("stablehlo.while") + text.count("}, {") - of_platforms


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", GROUP_REGULARIZERS)
def test_no_method_has_a_branch_or_a_loop_on_an_accelerator(method, name):
    optimizer = METHODS[method](GROUP_REGULARIZERS[name])
    assert all(waits(lowered(optimizer, net(), platform)) == 0 for platform in ("cuda", "tpu"))


def test_a_strict_solver_has_one_loop_for_all_leaves_on_an_accelerator():
    optimizer = METHODS["ramda"](GroupLasso(), SecularNewton(strict=True))
    assert [waits(lowered(optimizer, net(leaves), "cuda")) for leaves in (3, 9)] == [1, 1]


def test_what_is_one_number_per_group_is_done_once_for_all_leaves():
    """More leaves of a known shape add only the arithmetic of their passes, and none of the solver's own."""

    def square_roots(leaves):
        return lowered(METHODS["ramda"](GroupLasso()), net(leaves), "cuda").count("stablehlo.sqrt")

    assert square_roots(3) == square_roots(9)


@pytest.fixture
def on_an_accelerator(monkeypatch):
    """Uses the program for accelerators on this machine."""
    monkeypatch.setattr(batches, "by_platform", lambda cpu, other, like: other())


@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("method", ["ramda", "prox_adamw"])
def test_a_training_takes_the_path_of_the_exact_solver(on_an_accelerator, method, is_compiled):
    """The first steps start from zero radii, and one leaf has no groups."""
    params = net() | {"bias": jnp.ones(3)}

    def train(solver):
        optimizer = METHODS[method]({".*kernel": GroupLasso()}, solver)
        step = jax.jit(optimizer.update) if is_compiled else optimizer.update
        state, found = optimizer.init(params), params
        for _ in range(12 if is_compiled else 3):
            updates, state = step(jax.tree.map(jnp.sin, found), state, found)
            found = optax.apply_updates(found, updates)
        return found, ramda_jax.solver_info(state)

    (found, info), (wanted, _) = train(None), train(SecularNewton(strict=True))
    assert info.num_steps == PASSES[32]
    assert info.converged
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x == 0, y == 0), found, wanted)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), found, wanted)


def test_strength_zero_is_the_centre_bit_by_bit(on_an_accelerator):
    params = net()
    ran = []
    for settings_ in ((), (GroupLasso(), 0.0)):
        optimizer = ramda_jax.ramda(0.1, *settings_, averaging=1.0)
        state = optimizer.init(params)
        updates, _ = optimizer.update(jax.tree.map(jnp.sin, params), state, params)
        ran.append(updates)
    jax.tree.map(np.testing.assert_array_equal, *ran)


@pytest.mark.parametrize("factory", [ramda_jax.ramda, ramda_jax.prox_adamw], ids=lambda factory: factory.__name__)
def test_the_golden_trajectories_are_followed(x64, on_an_accelerator, factory):
    golden = np.load(GOLDEN / f"{factory.__name__.replace('_', '')}_glasso.npz")
    assert largest_deviation(golden, golden_optimizer(golden, factory, "glasso", None)) <= 1e-10


def test_sums_in_pairs_follow_them_too(x64, on_an_accelerator, monkeypatch):
    """The sums as GPUs of NVIDIA take them."""
    monkeypatch.setattr(execution, "one_kernel_sums", reductions._sums_in_pairs)
    golden = np.load(GOLDEN / "ramda_glasso.npz")
    assert largest_deviation(golden, golden_optimizer(golden, ramda_jax.ramda, "glasso", None)) <= 1e-10
