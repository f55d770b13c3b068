"""The certificate against sums over recorded gradients in NumPy's float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import L1, GroupLasso, GroupMCP, SparseGroupLasso, metrics
from tests import tiny

pytestmark = pytest.mark.covering

STRENGTH, RATE = 0.4, 0.05
SHAPE = (6, 3)
REGULARIZERS = {
    "group": GroupLasso("input", group_weight=1.5),
    "sparse": SparseGroupLasso("input", l1_ratio=0.3),
    "l1": L1(factor=0.7),
}


@functools.cache
def gradients(num_steps, move=0.0):
    """Gradients with means from 0 to 1 by row, plus noise. The first row's mean moves by `move` in the second half."""
    rng = np.random.default_rng(0)
    means = np.linspace(0, 1, SHAPE[0])[:, None] * np.ones(SHAPE)
    noise = 0.3 * rng.normal(size=(num_steps, *SHAPE))
    moved = move * (np.arange(num_steps) >= num_steps // 2)
    return means + noise + moved[:, None, None] * (np.arange(SHAPE[0]) == 0)[:, None]


def optimizer_of(method, regularizer, restarts=()):
    if method == "ramda":
        return ramda_jax.ramda(RATE, regularizer, STRENGTH, restarts=restarts)
    return optax.chain(
        metrics.second_moments(regularizer, restarts), ramda_jax.rmda(RATE, regularizer, STRENGTH, restarts=restarts)
    )


PARAMS = {"kernel": 0.2 * tiny.normal_tree(SHAPE)}


@functools.cache
def trained(optimizer, num_steps, move=0.0):
    """(params, state, the state in the middle) after `num_steps` of the recorded gradients."""

    def body(carry, grad):
        params, state = carry
        return tiny.apply_step(optimizer, {"kernel": grad}, state, params), None

    run = jax.jit(lambda carry, grads: jax.lax.scan(body, carry, grads)[0])
    grads = jnp.asarray(gradients(num_steps, move), jnp.float32)
    params, middle = run((PARAMS, optimizer.init(PARAMS)), grads[: num_steps // 2])
    params, state = run((params, middle), grads[num_steps // 2 :])
    return params, state, middle


def reference(method, name, grads, earlier_step=None):
    """(margin, worst margin, noise, bound, drift) from the gradients of one stage."""
    t = len(grads)
    s = RATE * np.sqrt(np.arange(1, t + 1))
    alpha = s.sum()
    mean = np.tensordot(s, grads, 1) / alpha
    square = np.tensordot(s, grads**2, 1) / alpha
    metric = np.cbrt(square * alpha) + 1e-6 if method == "ramda" else np.sqrt(t)
    rhs = metric * np.asarray(PARAMS["kernel"], np.float64) / alpha - mean

    def total(x):
        return x if name == "l1" else x.sum(axis=1, keepdims=True)

    def margin(x):
        if name == "l1":
            return STRENGTH * 0.7 - np.abs(x)
        share, omega = (0.3, np.sqrt(3)) if name == "sparse" else (0.0, 1.5)
        x = np.maximum(np.abs(x) - STRENGTH * share, 0)
        return STRENGTH * (1 - share) * omega - np.sqrt((x**2).sum(axis=1, keepdims=True))

    worst = margin(np.maximum(np.abs(rhs), np.abs(mean)))
    noise = total(square - mean**2) / (1 - 9 / (8 * t))
    drift = 0.0
    if earlier_step:
        parts = slice(None, earlier_step), slice(earlier_step, None)
        first, second = (np.average(grads[part], axis=0, weights=s[part]) for part in parts)
        later = s[parts[1]]
        weights = 9 / (8 * earlier_step) + (later**2).sum() / later.sum() ** 2
        drift = np.sqrt(np.maximum(total((first - second) ** 2) - noise * weights, 0))
    left = worst - drift
    with np.errstate(divide="ignore"):
        bound = np.where(left > 0, np.minimum(1, 13.5 * noise / (t * left**2)), 1)
    return margin(rhs), worst, noise, np.where(margin(rhs) >= 0, bound, 1), drift


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("method", ["ramda", "rmda"])
def test_certificate_is_that_of_the_gradients(method, name):
    optimizer = optimizer_of(method, REGULARIZERS[name])
    params, state, middle = trained(optimizer, 60)
    found = jax.jit(metrics.certificate)(state, params)
    margin, worst, noise, bound, _ = reference(method, name, gradients(60))
    np.testing.assert_allclose(found.margin["kernel"], margin, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(found.worst_margin["kernel"], worst, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(found.noise["kernel"], noise, rtol=2e-4)
    np.testing.assert_allclose(found.bound["kernel"], bound, rtol=1e-3)
    np.testing.assert_array_equal(found.zero["kernel"], margin >= 0)
    assert 0 < np.sum(margin >= 0) < margin.size and np.any(bound < 1)
    np.testing.assert_allclose(found.expected_revivals, bound[margin >= 0].sum(), rtol=1e-3)
    watched = metrics.certificate(state, params, middle)
    *_, bound, drift = reference(method, name, gradients(60), earlier_step=30)
    np.testing.assert_allclose(watched.drift["kernel"], drift, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(watched.bound["kernel"], bound, rtol=2e-2)


@pytest.mark.parametrize(
    "regularizer",
    [
        2.0 * SparseGroupLasso("input", l1_ratio=0.3),
        GroupLasso("input", group_weight=1.5, non_negative=True),
        L1(non_negative=True),
    ],
    ids=["scaled", "non-negative", "non-negative l1"],
)
def test_a_margin_is_not_negative_exactly_where_the_group_is_zero(regularizer):
    optimizer = ramda_jax.ramda(RATE, regularizer, STRENGTH)
    state = optimizer.init(PARAMS)
    step = jax.jit(optimizer.update)
    for sign in (1, -1):  # mostly negative weights, then mostly positive ones
        for grad in sign * gradients(60)[:4]:
            _, state = step({"kernel": jnp.asarray(grad, jnp.float32)}, state, PARAMS)
        found = metrics.certificate(state, PARAMS)
        alive = metrics.support(regularizer, ramda_jax.eval_params(state, PARAMS))["kernel"]
        np.testing.assert_array_equal(found.margin["kernel"] < 0, alive)
        assert np.any(found.margin["kernel"] >= 0)
        assert np.all(found.worst_margin["kernel"] <= found.margin["kernel"])


def test_certificate_is_of_the_last_stage():
    optimizer = optimizer_of("rmda", REGULARIZERS["group"], restarts=(20,))
    params, state, middle = trained(optimizer, 60)
    found = metrics.certificate(state, params, middle)
    assert int(found.stage_step) == 40
    noise = found.noise["kernel"]
    square, mean = (np.average(gradients(60)[20:] ** p, axis=0, weights=np.sqrt(np.arange(1, 41))) for p in (2, 1))
    np.testing.assert_allclose(noise[:, 0], (square - mean**2).sum(axis=1) / (1 - 9 / 320), rtol=2e-4)
    assert np.all(np.isfinite(found.drift["kernel"]))


def test_second_moments_of_other_stages_count_as_unknown():
    regularizer = REGULARIZERS["group"]
    optimizer = optax.chain(
        metrics.second_moments(regularizer), ramda_jax.rmda(RATE, regularizer, STRENGTH, restarts=(20,))
    )
    params, state, _ = trained(optimizer, 60)
    assert np.all(np.asarray(metrics.certificate(state, params).bound["kernel"]) == 1)


def test_an_earlier_state_of_another_stage_shows_nothing():
    optimizer = optimizer_of("ramda", REGULARIZERS["group"], restarts=(40,))
    params, state, middle = trained(optimizer, 60)
    for earlier in (middle, state, optimizer.init(PARAMS)):
        found = metrics.certificate(state, params, earlier)
        assert np.all(np.isinf(found.drift["kernel"]))
        np.testing.assert_array_equal(found.bound["kernel"], 1)
        np.testing.assert_array_equal(found.drifting["kernel"], found.zero["kernel"])


def test_a_mean_gradient_that_moves_is_flagged_and_one_that_stays_is_not():
    optimizer = optimizer_of("ramda", REGULARIZERS["group"])
    for move, flagged in ((0.0, False), (0.3, True)):
        params, state, middle = trained(optimizer, 400, move)
        found = metrics.certificate(state, params, middle)
        assert bool(found.zero["kernel"][0, 0])
        assert bool(found.drifting["kernel"][0, 0]) is flagged
        assert (float(found.bound["kernel"][0, 0]) > 0.5) is flagged
        assert float(metrics.certificate(state, params).bound["kernel"][0, 0]) < 0.5


def test_rmda_alone_has_no_noise_and_bounds_nothing():
    optimizer = ramda_jax.rmda(RATE, REGULARIZERS["group"], STRENGTH)
    params, state, _ = trained(optimizer, 60)
    found = metrics.certificate(state, params)
    assert np.all(np.isinf(found.noise["kernel"])) and np.all(np.asarray(found.bound["kernel"]) == 1)
    np.testing.assert_array_equal(found.margin["kernel"] >= 0, found.norms["kernel"] == 0)
    assert "`second_moments`" in str(found)


@pytest.mark.parametrize("num_steps", [0, 1])
def test_nothing_is_promised_before_the_second_step(num_steps):
    optimizer = optimizer_of("ramda", REGULARIZERS["group"])
    state = optimizer.init(PARAMS)
    for grad in gradients(60)[:num_steps]:
        _, state = optimizer.update({"kernel": jnp.asarray(grad, jnp.float32)}, state, PARAMS)
    np.testing.assert_array_equal(metrics.certificate(state, PARAMS).bound["kernel"], 1)


def test_a_nan_is_no_certificate():
    optimizer = optimizer_of("ramda", REGULARIZERS["group"])
    params, state, _ = trained(optimizer, 60)
    bad = jnp.zeros(SHAPE).at[0, 0].set(jnp.nan)
    _, state = optimizer.update({"kernel": bad}, state, params)
    assert metrics.certificate(state, params).bound["kernel"][0, 0] == 1


def test_certificate_is_the_same_through_wrappers():
    regularizer = REGULARIZERS["group"]
    optimizer = optax.chain(
        optax.identity(),
        optax.partition(
            {
                "ours": optax.inject_hyperparams(ramda_jax.ramda, static_args=("regularizer", "restarts"))(
                    learning_rate=RATE, regularizer=regularizer, strength=STRENGTH
                ),
                "other": optax.sgd(0.1),
            },
            {"kernel": "ours", "bias": "other"},
        ),
    )
    plain = optimizer_of("ramda", regularizer)
    params, state, inner = PARAMS | {"bias": jnp.ones(2)}, None, plain.init(PARAMS)
    state = optimizer.init(params)
    for grad in jnp.asarray(gradients(60)[:5], jnp.float32):
        _, state = optimizer.update({"kernel": grad, "bias": jnp.ones(2)}, state, params)
        _, inner = plain.update({"kernel": grad}, inner, PARAMS)
    found, expected = metrics.certificate(state, params), metrics.certificate(inner, PARAMS)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), found, expected)


def test_what_is_not_known_is_left_out_or_refused():
    params = {"a": {"kernel": jnp.ones((3, 2))}, "b": {"kernel": jnp.ones((3, 2))}}
    optimizer = ramda_jax.ramda(0.1, {"a": GroupLasso(), "b": GroupMCP(omega=1.0)}, strength=0.1)
    found = metrics.certificate(optimizer.init(params), params)
    assert list(found.bound) == ["a/kernel"] and found.left_out == ("b/kernel",)
    only = ramda_jax.ramda(0.1, GroupMCP(omega=1.0), strength=0.1)
    with pytest.raises(ValueError, match="needs a leaf with a convex group norm, `L1` or `NuclearNorm`"):
        metrics.certificate(only.init(params), params)
    with pytest.raises(ValueError, match=r"must be of `ramda` or `rmda`, got .*; use"):
        metrics.certificate(ramda_jax.prox_sgd(0.1, GroupLasso(), strength=0.1).init(params), params)
    with pytest.raises(ValueError, match="must be a state of the same optimizer"):
        both = (optimizer.init(params), optimizer.init(params))
        metrics.certificate(optimizer.init(params), params, both)


def test_the_border_has_zero_groups_by_their_bound_and_living_ones_by_their_movement():
    def of(*numbers):
        return {"k": jnp.asarray(numbers)[:, None]}

    found = metrics.Certificate(
        jnp.asarray(9), of(0.1, 0.1, -1.0, -1.0), of(0.1, 0.1, -1.0, -1.0), of(1.0, 1.0, 1.0, 1.0),
        of(0.04, 0.06, 1.0, 1.0), of(0.0, 0.0, 0.5, 2.0), of(0.06, 0.04, 0.0, 0.0), of(0.0, 0.0, 1.0, 1.0), ("m",),
    )  # fmt: skip
    assert found.border()["k"].ravel().tolist() == [False, True, True, False]
    assert found.border(0.01)["k"].ravel().tolist() == [True, True, True, False]
    assert found.drifting["k"].ravel().tolist() == [True, False, False, False]
    assert float(found.expected_revivals) == pytest.approx(0.1)
    assert str(found).splitlines()[1].split() == ["k", "4", "2", "1", "1", "0.1", "1"]
    assert "It has not for 1 zero groups" in str(found) and "['m']" in str(found)


def test_a_certificate_is_drawn(tmp_path):
    optimizer = optimizer_of("ramda", REGULARIZERS["group"])
    params, state, middle = trained(optimizer, 60)
    metrics.certificate(state, params, middle).draw(tmp_path / "certificate.png")
    assert (tmp_path / "certificate.png").read_bytes().startswith(b"\x89PNG")


def test_the_sums_of_the_bound_hold_at_every_step():
    """The two sums of docs/certificate.md: at most 9 / (8 t) and 9 / (4 t)."""
    k = np.arange(1, 200_001, dtype=np.float64)
    alpha = np.cumsum(np.sqrt(k))
    first, terms = np.cumsum(k) / alpha**2, k / alpha**2
    # The terms after the last one sum to at most 9 / (4 (last + 1)), by the same inequality.
    later = np.cumsum(terms[::-1])[::-1] - terms + 9 / (4 * (len(k) + 1))
    t = k[:1000]
    assert np.all(first[:1000] <= 9 / (8 * t)) and np.all(later[:1000] <= 9 / (4 * t))
    np.testing.assert_allclose((first + later)[999], 27 / 8 / 1000, rtol=3e-3)
