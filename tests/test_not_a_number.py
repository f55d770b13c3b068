"""A NaN never counts as a success: not as zero, settled, converged, of low rank or equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from ramda_jax import compaction, metrics
from ramda_jax.compaction.proof.numbers import compare_outputs
from ramda_jax.regularizers import NormPenalty
from ramda_jax.solvers import Context, choose_solver
from ramda_jax.solvers.secular_pass import LeafEquations
from ramda_jax.solvers.secular_passes import left_over, roots_to_rounding
from ramda_jax.xla.execution import PLAIN

WEIGHT = 0.3
REGULARIZERS = [
    ramda_jax.L1(),
    ramda_jax.GroupLasso(0),
    ramda_jax.SparseGroupLasso(0),
    ramda_jax.MCP(1.0),
    ramda_jax.GroupMCP(0, omega=1.0),
    ramda_jax.SparseGroupMCP(0, omega=1.0),
    ramda_jax.NuclearNorm(),
    ramda_jax.Box(),
    ramda_jax.Quantized((-1.0, 0.0, 1.0)),
    ramda_jax.TopGroups(0.5, 0),
    ramda_jax.TopEntries(0.5),
]
BAD = [np.nan, np.inf, -np.inf]


def model(metric, linear=1.0, scale=1.0, weight=WEIGHT):
    linear = jnp.ones((2, 3)).at[0, 1].set(linear)
    if metric == "diagonal":
        metric = jnp.ones((2, 3)).at[1, 2].set(scale)
    else:
        metric = jnp.asarray(scale)
    return ramda_jax.QuadraticModel(linear, jnp.ones((2, 3)), metric, jnp.asarray(weight))


@jax.jit
def info_of(state):
    return ramda_jax.solver_info(state)


METHODS = {"ramda": ramda_jax.ramda, "prox_sgd": ramda_jax.prox_sgd}


@pytest.mark.covering
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=lambda regularizer: type(regularizer).__name__)
def test_solver_info_of_a_step_with_a_gradient_that_is_not_finite_has_not_converged(method, regularizer):
    optimizer = METHODS[method](0.1, regularizer, strength=0.1)
    params = {"kernel": jnp.ones((2, 3))}
    start = optimizer.init(params)
    step = jax.jit(optimizer.update)
    _, state = step({"kernel": jnp.ones((2, 3))}, start, params)
    fine = info_of(state)
    # 100 steps of proximal gradient may not be enough for a nuclear norm, but must end with a finite residual.
    assert np.isfinite(fine.residual)
    assert bool(fine.converged) or isinstance(regularizer, ramda_jax.NuclearNorm)
    for bad in BAD:
        _, state = step({"kernel": jnp.ones((2, 3)).at[0, 1].set(bad)}, start, params)
        info = info_of(state)
        assert not bool(info.converged)
        assert not np.isfinite(info.residual)


@pytest.mark.parametrize("regularizer", [ramda_jax.GroupLasso(0), ramda_jax.GroupMCP(0, omega=1.0)])
@pytest.mark.parametrize("metric", ["diagonal", "scalar"])
def test_a_solver_of_groups_says_no_to_what_is_not_a_number(regularizer, metric):
    solver = choose_solver(regularizer, metric).solver
    solve = jax.jit(lambda model: solver.solve(model, regularizer, Context(model.anchor)))
    assert bool(solve(model(metric)).converged)
    for bad in (
        {"linear": np.nan},
        {"linear": np.inf},
        {"scale": np.nan},
        {"weight": np.nan},
        {"linear": np.nan, "weight": 0.0},
    ):
        assert not bool(solve(model(metric, **bad)).converged), bad


def test_proximal_gradient_is_not_done_with_an_infinity_by_an_infinite_tolerance():
    regularizer = ramda_jax.L1()
    for settings in ({"tolerance": 1e-3}, {"rtol": 0.0}, {}, {"accelerate": True}):
        solver = ramda_jax.ProximalGradient(max_steps=3, **settings)
        solve = jax.jit(lambda model, solver=solver: solver.solve(model, regularizer, Context(model.anchor)))
        for bad in BAD:
            assert not bool(solve(model("diagonal", linear=bad, scale=2.0)).converged)


def test_summable_tolerance_must_be_finite():
    for scale, power in ((np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, np.inf)):
        with pytest.raises(ValueError, match=r"`(scale|power)` must be"):
            ramda_jax.summable_tolerance(scale, power)


@pytest.mark.parametrize("lam", [0.0, 1.0, np.nan])
def test_passes_have_not_converged_without_a_finite_root(lam):
    rhs, radii = jnp.array([[1.0, jnp.nan if lam == lam else 1.0]]), jnp.zeros((1, 1))
    (radii,), errors, passes = roots_to_rounding(
        [LeafEquations(rhs, jnp.ones((1, 2)), NormPenalty(jnp.asarray(lam)), (1,), radii)], PLAIN, 40
    )
    assert np.isnan(radii[0, 0])
    assert not bool(left_over(errors, jnp.asarray(lam))[1])
    assert passes <= 2


@pytest.mark.parametrize("bad", ["norms", "metric", "lam"])
def test_a_concave_penalty_makes_no_silent_zero_of_a_nan(bad):
    values = {"norms": jnp.array([2.0]), "metric": jnp.array(1.0), "lam": jnp.array(1.0), bad: jnp.array(jnp.nan)}
    penalty = NormPenalty(values["lam"], values["lam"] / 3.0, 3.0)
    assert np.all(np.isnan(penalty.radii(values["norms"], values["metric"])))


def test_sparsity_and_ranks_take_no_nan_for_zero():
    nans = {"kernel": jnp.full((3, 4), jnp.nan)}
    for regularizer in REGULARIZERS:
        assert float(metrics.group_sparsity(regularizer, nans)) == 0
        assert float(metrics.weighted_group_sparsity(regularizer, nans)) == 0
        assert float(metrics.kernel_sparsity(regularizer, nans)) == 0
    assert float(metrics.unstructured_sparsity(None, nans)) == 0
    for rtol in (None, 0.5, np.nan):
        assert int(metrics.numerical_rank(ramda_jax.NuclearNorm(), nans, rtol)["kernel"]) == 3
        assert float(metrics.low_rank_level(ramda_jax.NuclearNorm(), nans, rtol)) == 0
    infinite = {"kernel": jnp.ones((3, 4)).at[0, 0].set(jnp.inf)}
    assert float(metrics.low_rank_level(ramda_jax.NuclearNorm(), infinite)) == 0
    # A zero matrix still has rank 0.
    assert int(metrics.numerical_rank(ramda_jax.NuclearNorm(), {"kernel": jnp.zeros((3, 4))})["kernel"]) == 0


def test_a_box_has_no_nan_and_no_infinity_at_its_bounds():
    entries = jnp.array([0.0, 0.5, 1.0, jnp.nan, jnp.inf, -jnp.inf])
    assert ramda_jax.Box().support(entries).tolist() == [False, True, False, True, True, True]


def test_a_projection_has_nothing_infinite_inside():
    half = ramda_jax.Projection(lambda x: jnp.minimum(x, 0.0))
    for bad, expected in ((0.0, 0.0), (np.inf, np.inf), (np.nan, np.inf)):
        assert float(half.value(jnp.array([-1.0, bad]))) == expected


def test_low_rank_plan_leaves_out_what_is_not_finite():
    ones = jnp.ones((4, 5))
    assert compaction.low_rank_plan({"a": ones, "b": ones.at[0, 0].set(jnp.nan), "c": ones * jnp.inf}) == {"a": 1}
    with pytest.raises(ValueError, match="`rtol` must be finite"):
        compaction.low_rank_plan({"a": ones}, rtol=np.nan)


def test_the_numerical_proof_calls_nothing_equal_that_is_not_finite():
    ones = [[(jnp.ones(2),)]]
    for bad in BAD:
        for tolerance in (None, 1.0, 1e30):
            error, reason = compare_outputs(
                lambda v, x: x, None, lambda v, x, bad=bad: x.at[0].set(bad), None, ones, tolerance
            )
            assert error == np.inf
            assert "small model returns something that is not finite" in reason
        error, reason = compare_outputs(lambda v, x: x * bad, None, lambda v, x: x * bad, None, ones, 1.0)  # noqa: B023
        assert "the model itself returns something that is not finite" in reason


def test_no_tolerance_calls_everything_equal():
    weights, x = jnp.ones((6, 8)), jnp.ones((2, 6))
    for tolerance in (np.inf, np.nan, -1.0):
        for use in (compaction.compact_model, compaction.low_rank_model):
            with pytest.raises(ValueError, match="`tolerance` must be finite and at least 0"):
                use(lambda w, x: x @ w, x, variables=weights, tolerance=tolerance)
    with pytest.raises(compaction.CompactionError, match="without a batch"):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        compaction.low_rank_model(lambda w, x: x @ w, shape, variables=weights, num_random=0)
