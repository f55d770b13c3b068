"""Precision: bfloat16 parameters and gradients, float64, and an average that stalls in bfloat16."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import GroupLasso, iterate_averaging
from tests.factories import FACTORIES, factory_id
from tests.tiny import array

pytestmark = pytest.mark.covering

every_factory = pytest.mark.parametrize("factory", FACTORIES, ids=factory_id)
averaging_factory = pytest.mark.parametrize("factory", [f for f in FACTORIES if f.averages], ids=factory_id)


def make_params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {"kernel": array(rng.normal(size=(6, 4)), dtype), "bias": jnp.ones(4, dtype)}


def grads_of(params, dtype=None):
    """Gradients that pull the first two input groups to 1 and the others to 0."""
    target = {"kernel": jnp.zeros((6, 4)).at[:2].set(1.0), "bias": jnp.zeros(4)}
    return jax.tree.map(lambda p, t: (p.astype(jnp.float32) - t).astype(dtype or p.dtype), params, target)


def train(optimizer, params, steps=60, grads_dtype=None):
    def body(carry, _):
        params, state = carry
        updates, state = optimizer.update(grads_of(params, grads_dtype), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.jit(lambda p, s: jax.lax.scan(body, (p, s), length=steps))(params, optimizer.init(params))
    return params, state


def average_towards(point, start, averaging, steps, **settings):
    """Averages from `start` towards a fixed point, in bfloat16."""
    optimizer = iterate_averaging(averaging, **settings)
    params = jnp.asarray(start, jnp.bfloat16)
    state = optimizer.init(params)

    def body(carry, _):
        params, state = carry
        updates, state = optimizer.update(jnp.full_like(params, point, dtype=jnp.float32), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(body, (params, state), length=steps)
    return np.asarray(params, np.float64)


# A step from 1 towards a point at distance d has length c d. bfloat16 loses it if it is below half of the spacing. Half
# of the spacing is 2^-9 below 1, so the average stops at d = 2^-9 / c; above 1 it stops at twice this distance.
@pytest.mark.parametrize("averaging", [0.1, 0.03, 0.01, 0.003])
def test_bfloat16_average_stalls_at_a_distance_that_grows_as_c_falls(averaging):
    steps = int(20 / averaging)
    point = 0.25
    start = 1.0
    stalled = average_towards(point, start, averaging, steps)
    # At a value v in [2^k, 2^(k+1)) the spacing is 2^(k-7), so the average stops where v - 0.25 <= 2^(k-8) / c.
    spacing = 2.0 ** (np.floor(np.log2(stalled)) - 7)
    assert stalled - point <= 1.01 * spacing / (2 * averaging) + spacing
    assert stalled - point >= min(0.99 * spacing / (4 * averaging), 0.7)
    kept = average_towards(point, start, averaging, steps, iterate_dtype=jnp.float32)
    np.testing.assert_allclose(kept, point, rtol=2**-8)


def test_bfloat16_average_with_small_c_does_not_move_at_all_without_a_float32_iterate():
    assert average_towards(0.0, 1.0, 0.001, 3000) == 1.0
    assert abs(average_towards(0.0, 1.0, 0.001, 3000, iterate_dtype=jnp.float32) - 0.999**3000) < 1e-3


def test_an_update_of_half_precision_is_rounded_once():
    # If the point were rounded to bfloat16 first, its first entry would equal the parameter and the update would be 0.
    params, point = jnp.ones(3, jnp.bfloat16), jnp.asarray([1.001, 0.7, 3.3], jnp.float32)
    optimizer = iterate_averaging(0.3)
    updates, _ = optimizer.update(point, optimizer.init(params), params)
    np.testing.assert_array_equal(updates, (jnp.float32(0.3) * (point - 1)).astype(jnp.bfloat16))


@averaging_factory
def test_iterate_dtype_brings_bfloat16_training_to_the_float32_iterates(factory):
    settings = {"averaging": 0.003, "learning_rate": 0.02}
    reference, _ = train(factory(GroupLasso(), 0.05, **settings), make_params(), 600)
    stalled, _ = train(factory(GroupLasso(), 0.05, **settings), make_params(jnp.bfloat16), 600)
    kept, _ = train(factory(GroupLasso(), 0.05, **settings, iterate_dtype="float32"), make_params(jnp.bfloat16), 600)

    def distance(params):
        return max(float(jnp.max(jnp.abs(params[key].astype(jnp.float32) - reference[key]))) for key in reference)

    assert distance(kept) < 0.01 < 0.2 < distance(stalled)  # measured: 0.003 beside 0.43 (RAMDA) and 0.28 (RMDA)


@averaging_factory
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_zeros_are_exact_with_an_iterate_dtype_once_c_is_one(factory, dtype):
    averaging = ramda_jax.sqrt_growth(0.2)
    params, state = train(
        factory(GroupLasso(), 0.1, averaging=averaging, iterate_dtype=jnp.float32), make_params(dtype)
    )
    alive = np.asarray(optax.tree.get(state, "radii")["kernel"]).ravel() != 0
    assert alive[:2].all() and not alive[2:].any()
    zeros = np.asarray(params["kernel"][2:], np.float32)
    assert (zeros == 0).all() and not np.signbit(zeros).any()
    chex.assert_trees_all_equal_dtypes(params, make_params(dtype))


@averaging_factory
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_parameters_stay_within_rounding_of_the_kept_iterate(factory, dtype):
    params, state = train(factory(GroupLasso(), 0.1, averaging=0.05, iterate_dtype=jnp.float32), make_params(dtype))
    iterate = state[-1].iterate
    assert {leaf.dtype for leaf in jax.tree.leaves(iterate)} == {jnp.dtype("float32")}
    eps = float(jnp.finfo(dtype).eps)
    chex.assert_trees_all_close(jax.tree.map(lambda p: p.astype(jnp.float32), params), iterate, rtol=eps, atol=eps / 2)


def test_an_iterate_is_never_kept_in_less_than_the_parameters_dtype(x64):
    state = iterate_averaging(0.1, jnp.float32).init(make_params(jnp.float64))
    assert state.iterate["kernel"].dtype == jnp.float64
    half = iterate_averaging(0.1, jnp.bfloat16).init(make_params(jnp.float16))
    assert half.iterate["kernel"].dtype == jnp.float32


def test_without_iterate_dtype_the_state_is_one_number():
    optimizer = iterate_averaging(0.1)
    state = optimizer.init(make_params())
    assert state.iterate is None
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state)] == [".averaging_step"]
    _, state = optimizer.update(make_params(), state, make_params())
    assert state.iterate is None


@averaging_factory
def test_kept_iterate_works_with_map_params_injection_donation_and_eval_params(factory):
    settings = {"averaging": 0.1, "restarts": (5,), "iterate_dtype": "float32"}
    plain = factory(GroupLasso(), 0.1, **settings)
    injected = optax.inject_hyperparams(factory.make)(factory.learning_rate, GroupLasso(), 0.1, **settings)
    static = optax.inject_hyperparams(factory.make, static_args=("iterate_dtype",))(
        factory.learning_rate, GroupLasso(), 0.1, **settings | {"iterate_dtype": jnp.float32}
    )
    params = make_params(jnp.float32)
    state = plain.init(params)
    mapped = optax.tree.map_params(plain, lambda leaf: leaf + 1, state)
    chex.assert_trees_all_equal(mapped[-1].iterate, jax.tree.map(lambda p: p + 1, params))
    chex.assert_trees_all_equal(mapped[-1].averaging_step, state[-1].averaging_step)

    expected, expected_state = train(plain, params, 12)
    for optimizer in (injected, static):
        chex.assert_trees_all_close(train(optimizer, params, 12)[0], expected, atol=1e-4)
    structured = ramda_jax.eval_params(expected_state, expected)
    alive = np.asarray(optax.tree.get(expected_state, "radii")["kernel"]).ravel() != 0
    np.testing.assert_array_equal(structured["kernel"].any(axis=1), alive)

    def step(params, state):
        updates, state = plain.update(grads_of(params), state, params)
        return optax.apply_updates(params, updates), state

    donating = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(12):
        params, state = donating(params, state)
    chex.assert_trees_all_close(params, expected, rtol=1e-6, atol=1e-7)


def test_restart_anchors_are_the_parameters():
    optimizer = ramda_jax.ramda(0.1, GroupLasso(), 0.1, averaging=0.3, restarts=(4,), iterate_dtype=jnp.float32)
    params, state = train(optimizer, make_params(jnp.bfloat16), 4)
    _, state = optimizer.update(grads_of(params), state, params)
    chex.assert_trees_all_equal(state[0].anchor, params)


@pytest.mark.parametrize("dtype", [jnp.int32, "int8", jnp.complex64, "float", "words", 3, jnp.ones([])])
def test_iterate_dtype_that_is_none_is_refused_by_name(dtype):
    if dtype == "float":  # NumPy's name for float64
        with jax.enable_x64(True):
            assert iterate_averaging(0.1, dtype).init(make_params()).iterate["kernel"].dtype == jnp.float64
        return
    with pytest.raises(TypeError, match=r"`iterate_dtype` must be a floating-point dtype or None, got .*; use `jnp"):
        iterate_averaging(0.1, iterate_dtype=dtype)


def test_iterate_dtype_taken_for_a_schedule_is_refused_by_name():
    injected = optax.inject_hyperparams(ramda_jax.rmda)(0.1, averaging=0.1, iterate_dtype=jnp.float32)
    with pytest.raises(TypeError, match=r"or its name where `optax.inject_hyperparams` would take it for a schedule"):
        injected.init(make_params())


# Sums and updates in every combination of dtypes.


@every_factory
@pytest.mark.parametrize(
    ("dtype", "grads_dtype", "sums"),
    [
        ("bfloat16", "bfloat16", "float32"),
        ("bfloat16", "float32", "float32"),
        ("float32", "bfloat16", "float32"),
        ("float64", "float32", "float64"),
        ("float64", "float64", "float64"),
    ],
)
def test_sums_are_at_least_float32_and_updates_in_the_parameters_dtype(factory, dtype, grads_dtype, sums):
    with jax.enable_x64(dtype == "float64"):
        optimizer = factory(GroupLasso(), 0.1)
        params = make_params(dtype)

        def first_step(params):
            return optimizer.update(grads_of(params, grads_dtype), optimizer.init(params), params)

        updates, state = jax.eval_shape(first_step, params)
        chex.assert_trees_all_equal_dtypes(updates, params)
        kinds = {
            jax.tree_util.keystr(path[:-1]): leaf.dtype
            for path, leaf in jax.tree.leaves_with_path(state)
            if leaf.shape == (6, 4) and "anchor" not in jax.tree_util.keystr(path)
        }
        assert kinds and set(kinds.values()) == {jnp.dtype(sums)}, kinds


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bfloat16_gradients_train_to_the_same_support(dtype):
    optimizer = ramda_jax.ramda(0.1, GroupLasso(), 0.1, averaging=1.0)
    expected, _ = train(optimizer, make_params())
    params, _ = train(optimizer, make_params(dtype), grads_dtype=jnp.bfloat16)
    in_float32 = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    chex.assert_trees_all_close(in_float32, expected, atol=0.05, rtol=0.05)
    np.testing.assert_array_equal(params["kernel"] == 0, expected["kernel"] == 0)
