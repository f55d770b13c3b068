"""Long runs and large trees: sums over millions of steps, counters at their end, and counts beyond int32."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from ramda_jax import metrics
from ramda_jax.numerics import add_evenly, counts, weight_of_average
from ramda_jax.solvers import Context
from ramda_jax.subproblem.leaf_problems import LeafProblem, RegularizedLeaf
from ramda_jax.subproblem.running.batches import Solved
from ramda_jax.subproblem.strengths.law import zero_share
from tests.tiny import apply_step

LAST = 2**31 - 1


@functools.partial(jax.jit, static_argnums=0)
def stage_after(builder, params, num_steps):
    grads = jax.tree.map(jnp.ones_like, params)
    return jax.lax.fori_loop(0, num_steps, lambda _, s: builder.update(grads, s, params)[1], builder.init(params))


@pytest.mark.parametrize("make", [ramda_jax.dual_averaging, ramda_jax.adaptive_dual_averaging])
def test_alpha_is_exact_to_rounding_over_a_million_steps(make):
    builder = make(0.1)
    state = stage_after(builder, jnp.ones(1), 10**6)
    exact = 0.1 * np.sum(np.sqrt(np.arange(1, 10**6 + 1)))
    # A plain float32 sum is off by 1e-4.
    np.testing.assert_allclose(state.step_size_sum, exact, rtol=1e-6)


@jax.jit
def sums_evenly(start, term, first, num_terms):
    return jax.lax.fori_loop(0, num_terms, lambda i, total: add_evenly(total, term, first + i), start)


@pytest.mark.parametrize("first", [1, 10**6, LAST - 20_000])
def test_add_evenly_adds_terms_below_rounding(first):
    # A plain sum would stay at 1 or add too much at each step, because eps is 1.2e-7.
    for term in (1e-9, 3e-8, 5.9e-8, 1e-7, 1.7e-7):
        total = sums_evenly(jnp.float32(1), jnp.float32(term), jnp.int32(first), 10_000)
        np.testing.assert_allclose(float(total) - 1, 10_000 * float(np.float32(term)), atol=10 * 1.2e-7)


def test_add_evenly_moves_no_bit_without_need(x64):
    for start, term in ((0.3, 0.0), (0.0, 0.1), (1.0, 0.5), (3.0, 2.0**-20)):
        for count in (1, 2, 3, 1000):
            a, b = np.float32(start), np.float32(term)
            assert float(add_evenly(jnp.asarray(a), jnp.asarray(b), jnp.int32(count))) == float(a + b)
    # In float64 it is the plain sum. NaN and infinity stay.
    assert float(add_evenly(jnp.float64(0.1), jnp.float64(0.2), jnp.int32(7))) == 0.1 + 0.2
    for bad in (np.inf, np.nan):
        assert not np.isfinite(add_evenly(jnp.float32(bad), jnp.float32(1), jnp.int32(7)))
        assert not np.isfinite(add_evenly(jnp.float32(1), jnp.float32(bad), jnp.int32(7)))


# Counters at their end.


def at_the_end(state):
    """The state with all its step counters just before the end of their range."""
    return jax.tree.map(lambda x: x.at[...].set(LAST - 2) if x.dtype == jnp.int32 and x.ndim == 0 else x, state)


@pytest.mark.parametrize("method", ["ramda", "rmda", "prox_adamw", "prox_ssi"])
def test_steps_at_the_end_of_the_counter_are_finite(method):
    settings: dict = dict(ramda_jax.stages(0.1, 0.1, ends=(10, LAST - 3), eps=1e-6))
    if method == "rmda":
        del settings["eps"]
    elif method != "ramda":
        settings = {"learning_rate": settings["learning_rate"]}
    tolerance = ramda_jax.summable_tolerance(1e-3, power=3.0)
    optimizer = getattr(ramda_jax, method)(
        regularizer=ramda_jax.GroupLasso(0), strength=1e-3, solver=ramda_jax.ProximalGradient(tolerance=tolerance),
        **settings,
    )  # fmt: skip
    params = {"kernel": jnp.ones((2, 3))}
    step = jax.jit(lambda state, w: apply_step(optimizer, params, state, w))
    w, state = step(optimizer.init(params), params)
    state = at_the_end(state)
    for _ in range(4):
        w, state = step(state, w)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((w, state)))
    steps = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.int32 and leaf.ndim == 0]
    assert sum(int(leaf) == LAST for leaf in steps) >= 2


@pytest.mark.parametrize(("scale", "power"), [(1e-3, 0.75), (1e-3, 4.0), (1e30, 5.0), (1e38, 8.0)])
def test_summable_tolerance_is_right_up_to_the_end_of_the_counter(scale, power):
    schedule = ramda_jax.summable_tolerance(scale, power)
    for step in (0, 10**6, LAST - 1, LAST):
        expected = scale / (np.float64(step) + 1) ** power
        np.testing.assert_allclose(schedule(jnp.int32(step)), expected, rtol=1e-5, atol=1e-38)


def test_stage_schedules_are_right_up_to_the_end_of_the_counter():
    ends = (10, LAST - 1)
    settings: dict = dict(ramda_jax.stages(learning_rate=1.0, averaging=0.1, ends=ends, eps=1.0))
    growth: Any = ramda_jax.stage_growth(0.01, ends)
    for step, stage in ((9, 0), (10, 1), (LAST - 2, 1), (LAST - 1, 2), (LAST, 2)):
        count = jnp.int32(step)
        assert float(growth(count)) == np.float32(0.01 * 10**stage)
        for name in ("learning_rate", "eps"):
            np.testing.assert_allclose(settings[name](count), 0.1 ** sum(step >= end for end in ends), rtol=1e-6)


def test_stage_growth_takes_powers_beyond_all_floats():
    for averaging, growth, expected in (
        (1e-300, 1e200, [1e-300, 1e-100, 1.0, 1.0]),
        (0.5, 1e308, [0.5, 1.0, 1.0, 1.0]),
        (5e-324, 1e155, [0.0, 0.0, 4.94e-14, 1.0]),
    ):
        schedule: Any = ramda_jax.stage_growth(averaging, (1, 2, 3), growth)
        np.testing.assert_allclose([float(schedule(step)) for step in range(4)], expected, rtol=1e-2, atol=1e-45)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 1 - 1e-6, 1 - 1e-8, 1 - 1e-12])
def test_the_weight_of_an_average_is_above_0_and_right_at_every_count(decay):
    for count in (1, 2, 1000, 10**6, LAST):
        weight = weight_of_average(decay, jnp.int32(count), jnp.float32)
        exact = -np.expm1(count * np.log(decay)) if decay else 1.0
        # If float32 does not round the decay to 1, 1 - decay has the error of the rounded decay.
        rounding = 0 if np.float32(decay) == 1 else 2.0**-25 / (1 - decay)
        assert 0 < float(weight) <= 1
        np.testing.assert_allclose(weight, exact, rtol=1e-6 + rounding)


@pytest.mark.parametrize("method", [ramda_jax.prox_adamw, ramda_jax.prox_ssi])
def test_a_decay_that_float32_rounds_to_1_gives_finite_steps(method):
    optimizer = method(0.1, b2=1 - 1e-9)
    params = jnp.ones(3)
    w, state = jax.jit(lambda state: apply_step(optimizer, params, state, params))(optimizer.init(params))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((w, state)))
    if method is ramda_jax.prox_adamw:
        np.testing.assert_allclose(w, 0.9, rtol=1e-3)


# Counts beyond int32.

SHARES = ("group_sparsity", "weighted_group_sparsity", "kernel_sparsity", "unstructured_sparsity")
PARAMS = {
    "a": {"kernel": jnp.ones((7, 5)).at[:3].set(0).at[5, 2].set(0)},
    "b": {"kernel": jnp.zeros((2, 3, 5, 4)).at[..., 1, :2].set(1)},
    "c": {"bias": jnp.zeros(6)},
}


@pytest.mark.parametrize("most", [5, 36])
def test_metrics_of_trees_beyond_the_counts_are_those_within(monkeypatch, most):
    regularizer = {"^a/": ramda_jax.L1(), "^b/": ramda_jax.GroupLasso()}
    shares = {name: float(getattr(metrics, name)(regularizer, PARAMS)) for name in SHARES}
    table = metrics.layer_table(regularizer, PARAMS)
    before = metrics.support(regularizer, PARAMS)
    after = {path: ~alive for path, alive in before.items()}
    changed = int(metrics.changed_groups(before, after))
    assert all(0 < share < 1 for share in shares.values())
    # Pretend that counters end at `most`.
    monkeypatch.setattr(counts, "MOST", most)
    monkeypatch.setattr("ramda_jax.metrics.sparsity.MOST", most)
    for name, share in shares.items():
        value = jax.jit(lambda p, name=name: getattr(metrics, name)(regularizer, p))(PARAMS)
        np.testing.assert_allclose(value, share, rtol=1e-6, err_msg=name)
    assert metrics.layer_table(regularizer, PARAMS) == table
    assert float(metrics.changed_groups(before, after)) == changed == 40
    assert all(part.size <= most for part in counts.pieces(before["a/kernel"]))


def test_metrics_of_three_thousand_million_entries_have_a_program():
    params: Any = {"kernel": jax.ShapeDtypeStruct((2**16, 3 * 2**14 + 1), jnp.bfloat16)}
    for regularizer in (ramda_jax.L1(), ramda_jax.GroupLasso("input")):
        for name in SHARES:
            made = jax.eval_shape(functools.partial(getattr(metrics, name), regularizer), params)
            assert (made.shape, made.dtype) == ((), jnp.float32)
        described = ramda_jax.describe(regularizer, params)
        assert f"{2**16 * (3 * 2**14 + 1)} entries" in described
    support = {"kernel": jax.ShapeDtypeStruct(params["kernel"].shape, bool)}
    assert jax.eval_shape(metrics.changed_groups, support, support).dtype == jnp.float32


@pytest.mark.slow
def test_a_target_counts_more_entries_than_a_float32_adds_up():
    # There are 2^25 groups, and two thirds are zero. A float32 sum of ones may stop at 2^24.
    radii = jnp.tile(jnp.array([0.0, 1.0, 0.0]), 2**25 // 3)
    regularized = RegularizedLeaf(ramda_jax.GroupLasso(0), ramda_jax.SecularNewton(), Context(radii), True)
    model = ramda_jax.QuadraticModel(radii, radii, radii, 1.0)
    problems = [LeafProblem("kernel", model, regularized)]
    solved = Solved({}, {"kernel": radii}, [])
    share = zero_share(problems, solved, ramda_jax.Target(0.5, of="groups"))
    np.testing.assert_allclose(share, 2 / 3, rtol=1e-6)
