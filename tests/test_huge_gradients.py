"""Finite gradients, up to the largest float, give finite steps. NaN and infinite gradients stay visible."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax.numerics import gradient_limit, limited, reachable, saturated
from ramda_jax.solvers import DouglasRachford, ProximalGradient
from tests.tiny import apply_step, array

pytestmark = pytest.mark.covering

REGULARIZERS = {
    "none": None,
    "l1": ramda_jax.L1(),
    "group_lasso": ramda_jax.GroupLasso(0),
    "sparse_group_lasso": ramda_jax.SparseGroupLasso(0),
    "group_mcp": ramda_jax.GroupMCP(0, omega=1.0),
    "nuclear_norm": ramda_jax.NuclearNorm(),
    "box": ramda_jax.Box(),
    "quantized": ramda_jax.Quantized((-1.0, 0.0, 1.0)),
}
# There is a leaf for each regularizer, so that one program covers them all. Group LASSO is also solved by proximal
# gradient, and the nuclear norm by its default solver.
RULES = {name: regularizer for name, regularizer in REGULARIZERS.items() if regularizer is not None} | {
    "inexact": ramda_jax.GroupLasso(0),
    "splitting": ramda_jax.NuclearNorm(),
}
# Sorted, because JAX sorts the keys of a dict.
LEAVES = tuple(sorted((*REGULARIZERS, "inexact", "splitting")))
SOLVERS = {
    "inexact": ProximalGradient(),
    "nuclear_norm": ProximalGradient(max_steps=3, tolerance=1e-3),
    "splitting": DouglasRachford(max_steps=3),
}
ADAGRAD = {
    "transform": optax.scale_by_rss(0.0, eps=1e-7),
    "metric": lambda state: jax.tree.map(lambda s: jnp.sqrt(s + 1e-7), state.sum_of_squares),
}
RESTART = 5
METHODS = {
    "ramda": functools.partial(ramda_jax.ramda, averaging=1.0, restarts=(RESTART,)),
    "rmda": functools.partial(ramda_jax.rmda, averaging=1.0, restarts=(RESTART,)),
    "prox_sgd": ramda_jax.prox_sgd,
    "prox_adamw": functools.partial(ramda_jax.prox_adamw, b1=0.5, b2=0.5),
    "amsgrad": functools.partial(ramda_jax.prox_adamw, amsgrad=True),
    "prox_ssi": functools.partial(ramda_jax.prox_ssi, b1=0.5, b2=0.5),
    "adagrad": functools.partial(ramda_jax.prox_gen, **ADAGRAD),
}


FEW = ("group_lasso", "none")


def params_of(dtype="float32", leaves=LEAVES):
    return {name: jnp.ones((2, 3), dtype) for name in leaves}


@functools.cache
def optimizer_of(method, leaves=LEAVES):
    rules = {f"^{name}$": RULES[name] for name in leaves if name in RULES}
    solvers = {f"^{name}$": solver for name, solver in SOLVERS.items() if name in leaves}
    return METHODS[method](0.5, rules, strength=0.1, solver=solvers)


@functools.partial(jax.jit, static_argnums=0)
def step_of(method, grads, state, params):
    return apply_step(optimizer_of(method, tuple(sorted(params))), grads, state, params)


def grads_like(params, value, ordinary=0.1):
    """Gradients with a huge entry in the first row and a row of huge entries below. Other entries are ordinary."""
    return jax.tree.map(lambda p: jnp.full_like(p, ordinary).at[0, 1].set(value).at[1].set(-value), params)


def not_finite(tree):
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [
        jax.tree_util.keystr(path)
        for path, leaf in flat
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.all(np.isfinite(np.asarray(leaf, np.float64)))
    ]


def sizes_of(dtype):
    largest = float(jnp.finfo(dtype).max)
    return [size for size in (1e18, 2e19, 1e30, largest) if size <= largest]


NARROW = ("bfloat16", "float16")


@pytest.mark.parametrize(
    ("method", "dtype", "leaves"),
    [
        *((method, "float32", LEAVES) for method in METHODS),
        *(("ramda", dtype, FEW) for dtype in NARROW),
        *(("prox_sgd", dtype, FEW) for dtype in NARROW),
        *(pytest.param(method, dtype, LEAVES, marks=pytest.mark.slow) for method in METHODS for dtype in NARROW),
    ],
    ids=lambda value: f"{len(value)} leaves" if isinstance(value, tuple) else value,
)
def test_finite_gradients_give_finite_parameters_and_states(method, dtype, leaves):
    params = params_of(dtype, leaves)
    ordinary = jax.tree.map(lambda p: jnp.full_like(p, 0.1), params)
    for size in sizes_of(dtype):
        huge = grads_like(params, jnp.asarray(size, dtype))
        w, state = params, optimizer_of(method, leaves).init(params)
        # Huge gradients come first, later and twice in a row. Ordinary gradients follow, beyond the restart.
        for number, grads in enumerate((huge, ordinary, huge, huge, *[ordinary] * 4)):
            w, state = step_of(method, grads, state, w)
            assert not not_finite((w, state)), (size, number)


def test_parameters_stay_finite_when_a_sum_of_squares_overflows():
    """Adagrad's sum is Optax's, and never falls."""
    params = params_of(leaves=FEW)
    w, state = params, optimizer_of("adagrad", FEW).init(params)
    for _ in range(6):
        w, state = step_of("adagrad", grads_like(params, jnp.finfo(jnp.float32).max), state, w)
        assert not not_finite(w)
    assert not_finite(state)


@pytest.mark.parametrize("method", [pytest.param("ramda", marks=pytest.mark.slow), "prox_adamw"])
def test_finite_gradients_give_finite_steps_without_jit(method):
    params = params_of(leaves=FEW)
    huge = grads_like(params, jnp.finfo(jnp.float32).max)
    optimizer = optimizer_of(method, FEW)
    w, state = params, optimizer.init(params)
    for _ in range(2):
        w, state = apply_step(optimizer, huge, state, w)
        assert not not_finite((w, state))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_not_finite_stays_visible(method, bad):
    params = params_of()
    state = optimizer_of(method).init(params)
    w, state = step_of(method, grads_like(params, bad), state, params)
    # It is visible in all leaves without a constraint, and in the state.
    for name in LEAVES:
        if name != "box" or np.isnan(bad):
            assert not_finite(w[name]), name
    assert not_finite(state)
    assert not bool(ramda_jax.solver_info(state).converged)


def test_apply_if_finite_skips_what_is_not_finite_and_takes_what_is_huge():
    optimizer = optax.apply_if_finite(optimizer_of("ramda", FEW), max_consecutive_errors=3)
    params = params_of(leaves=FEW)
    step = jax.jit(lambda grads, state, params: apply_step(optimizer, grads, state, params))
    for bad in (np.nan, np.inf):
        w, state = step(grads_like(params, bad), optimizer.init(params), params)
        assert int(state.total_notfinite) == 1
        for name in FEW:
            np.testing.assert_array_equal(w[name], params[name])
    _, state = step(grads_like(params, 3e38), optimizer.init(params), params)
    assert int(state.total_notfinite) == 0


def test_the_stage_after_a_huge_gradient_is_that_of_a_fresh_start():
    params = params_of()
    w, state = params, optimizer_of("ramda").init(params)
    for grads in [grads_like(params, 3e38)] * RESTART:
        w, state = step_of("ramda", grads, state, w)
    ordinary = jax.tree.map(lambda p: 0.1 * p, params)
    v, fresh = w, optimizer_of("ramda").init(w)
    # After two steps both have radii of the new stage, and sums of the new stage only.
    for _ in range(2):
        (w, state), (v, fresh) = step_of("ramda", ordinary, state, w), step_of("ramda", ordinary, fresh, w)
    for name in ("grad_sum", "grad_sq_sum", "step_size_sum"):
        jax.tree.map(np.testing.assert_array_equal, optax.tree.get(state, name), optax.tree.get(fresh, name))
    for name in LEAVES:
        assert np.max(np.abs(w[name])) < 1e8
    assert not not_finite(v)


def test_adam_goes_on_once_a_huge_gradient_is_forgotten():
    params = params_of()
    w, state = step_of("prox_adamw", grads_like(params, 3e38), optimizer_of("prox_adamw").init(params), params)
    # The step has the size of any step of Adam, independent of the gradient.
    assert np.max(np.abs(w["none"] - params["none"])) < 1
    # sqrt(b2)^n times 2^63 is below 1e-6 of an ordinary gradient for n = 180.
    for _ in range(180):
        w, state = step_of("prox_adamw", jax.tree.map(lambda p: jnp.full_like(p, 0.1), params), state, w)
    before = w
    w, state = step_of("prox_adamw", jax.tree.map(lambda p: jnp.full_like(p, 0.1), params), state, w)
    # mu / sqrt(nu) is 1 again, so the step is the learning rate.
    np.testing.assert_allclose(before["none"] - w["none"], 0.5, rtol=1e-4)


def test_limited_cuts_what_is_finite_and_huge_and_nothing_else():
    limit = 2.0**63
    assert gradient_limit(jnp.float32) == limit
    assert gradient_limit(jnp.float64) == 2.0**511
    entries = jnp.array([0.0, -1e-45, 1.0, limit, -2 * limit, 3e38, jnp.inf, -jnp.inf, jnp.nan])
    expected = np.array([0.0, -1e-45, 1.0, limit, -limit, limit, np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(limited(entries, jnp.float32), expected)
    half = jnp.array([65504.0, -jnp.inf], jnp.float16)
    np.testing.assert_array_equal(limited(half, jnp.float32), np.array([65504.0, -np.inf], np.float32))
    # The square leaves room for a bias correction.
    assert 4 * limit**2 <= float(jnp.finfo(jnp.float32).max) * 1.0000001


def test_limited_takes_a_wider_gradient_than_its_sum(x64):
    wide = jnp.array([1e300, -1e300, 1.0, jnp.inf], jnp.float64)
    np.testing.assert_array_equal(limited(wide, jnp.float32), np.array([2.0**63, -(2.0**63), 1.0, np.inf], np.float32))


def test_saturated_is_finite_where_its_terms_are():
    largest = float(jnp.finfo(jnp.float32).max)
    terms = jnp.array([1.0, jnp.inf, jnp.nan, 1.0, 1.0])
    totals = jnp.array([jnp.inf, jnp.inf, jnp.nan, -jnp.inf, 2.0])
    expected = np.array([largest, np.inf, np.nan, -largest, 2.0], np.float32)
    np.testing.assert_array_equal(saturated(totals, terms), expected)
    np.testing.assert_array_equal(saturated(totals, jnp.ones(5), terms), expected)


@pytest.mark.parametrize("kept", [None, "float32"])
def test_averaging_reaches_no_infinity_from_anywhere_in_float16(kept):
    averaging = ramda_jax.iterate_averaging(1.0, kept)
    # Parameters are all finite float16 numbers, and points lie beyond both ends of the range.
    params = array(np.arange(2**16, dtype=np.uint16).view(np.float16))
    params = params[jnp.isfinite(params)]
    state = averaging.init(params)
    step = jax.jit(lambda point: apply_step(averaging, point, state, params)[0])
    for point in (1e5, -1e5, 65504.0, 1e38):
        w = step(jnp.full(params.shape, point, jnp.float32))
        assert np.all(np.isfinite(w))
        # From the other end of the range a second step is needed.
        near = np.sign(params) == np.sign(point)
        np.testing.assert_allclose(np.asarray(w, np.float32)[near], np.sign(point) * 65504, rtol=0.01)
    assert np.all(np.isnan(step(jnp.full(params.shape, jnp.nan))))
    assert np.all(np.isinf(step(jnp.full(params.shape, jnp.inf))))


def test_reachable_moves_nothing_where_parameters_are_as_wide_as_the_point():
    entries = jnp.array([1.0, 3.4e38, jnp.inf, jnp.nan])
    assert reachable(entries, jnp.float32) is entries
    np.testing.assert_array_equal(reachable(entries, jnp.float16)[2:], entries[2:])


def test_models_of_huge_gradients_have_finite_numbers():
    params = {"kernel": jnp.ones((2, 3))}
    for builder in (ramda_jax.adaptive_dual_averaging(0.1), ramda_jax.dual_averaging(0.1)):
        state, model = builder.init(params), None
        for _ in range(3):
            model, state = builder.update(grads_like(params, 3e38), state, params)
        assert isinstance(model, ramda_jax.QuadraticModel)
        (leaf,) = model.leaves()
        regularizer = ramda_jax.GroupLasso(0)
        numbers = (leaf.rhs, leaf.center, regularizer.norms(leaf.rhs), leaf.objective(regularizer, leaf.center))
        assert not not_finite(numbers)
