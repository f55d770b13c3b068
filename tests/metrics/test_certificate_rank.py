"""The certificate of the nuclear norm against float64, and against matrices that move as far as it allows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import DouglasRachford, GroupLasso, NuclearNorm, metrics
from tests import tiny

STRENGTH, RATE, STEPS = 0.5, 0.3, 200
SHAPE = (2, 3, 4)  # a matrix of 6 x 4
FACTOR = 0.8
LAM = STRENGTH * FACTOR
REGULARIZER = NuclearNorm(factor=FACTOR)
EXACT = DouglasRachford(max_steps=300, rtol=1e-6)
PARAMS = {"kernel": 0.1 * tiny.normal_tree(SHAPE)}
METHODS = ["ramda", "rmda"]


@functools.cache
def gradients(move=0.0):
    """Gradients whose mean has the singular values 1, 0.5, 0.2 and 0, plus noise; the third moves by `move` halfway."""
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.normal(size=(6, 4)))[0], np.linalg.qr(rng.normal(size=(4, 4)))[0]
    values = np.array([1.0, 0.5, 0.2, 0.0]) + move * np.outer(np.arange(STEPS) >= STEPS // 2, [0, 0, 1, 0])
    means = (left * values[:, None, :]) @ right.T
    return (means + 0.02 * rng.normal(size=means.shape)).reshape(STEPS, *SHAPE)


@functools.cache
def optimizer_of(method, solver=EXACT, regularizer=REGULARIZER):
    make = ramda_jax.ramda if method == "ramda" else ramda_jax.rmda
    return optax.chain(metrics.second_moments(regularizer), make(RATE, regularizer, STRENGTH, solver=solver))


@functools.partial(jax.jit, static_argnums=0)
def advance(optimizer, params, state, grads):
    def body(carry, grad):
        params, state = carry
        return tiny.apply_step(optimizer, {"kernel": grad}, state, params), None

    return jax.lax.scan(body, (params, state), grads)[0]


@functools.cache
def trained(method, move=0.0, solver=EXACT, regularizer=REGULARIZER, scale=1.0, dtype="float32"):
    """(params, state, the state in the middle)."""
    optimizer = optimizer_of(method, solver, regularizer)
    grads = jnp.asarray(scale * gradients(move), jnp.float32)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    params, middle = advance(optimizer, params, optimizer.init(params), grads[: STEPS // 2])
    params, state = advance(optimizer, params, middle, grads[STEPS // 2 :])
    return params, state, middle


@jax.jit
def certify(state, params, earlier=None):
    return metrics.certificate(state, params, earlier)


def by_iterations(rhs, metric, threshold):
    """The minimiser of 1/2 ||W||^2_metric - <rhs, W> + threshold ||W||_*, by accelerated proximal gradient."""
    step = 1 / np.max(metric)
    w = z = np.zeros_like(rhs)
    for number in range(20_000):
        u, s, vt = np.linalg.svd(z - step * (metric * z - rhs), full_matrices=False)
        new = (u * np.maximum(s - step * threshold, 0)) @ vt
        z = new + number / (number + 3) * (new - w)
        if np.abs(new - w).max() < 1e-14 and number > 100:
            break
        w = new
    return w


def reference(method, grads, earlier_step):
    """The certificate's fields from the gradients of one stage, in float64."""
    t, grads = len(grads), grads.reshape(-1, 6, 4)
    s = RATE * np.sqrt(np.arange(1, t + 1))
    alpha = s.sum()
    mean, square = np.tensordot(s, grads, 1) / alpha, np.tensordot(s, grads**2, 1) / alpha
    metric = np.cbrt(square * alpha) + 1e-6 if method == "ramda" else np.full((6, 4), np.sqrt(t))
    anchor = np.asarray(PARAMS["kernel"], np.float64).reshape(6, 4)
    rhs = metric * anchor / alpha - mean
    w = by_iterations(rhs, metric / alpha, LAM)
    u, values, vt = np.linalg.svd(w)
    rank = int(np.sum(values > 1e-6))
    slope = rhs - metric * w / alpha
    # In the bases of W's singular vectors its own block is lambda times the identity; the last block is outside.
    outside = np.linalg.svd((u.T @ slope @ vt.T)[rank:, rank:], compute_uv=False)
    weights = metric.max() / metric

    def length(x):
        return np.sqrt(np.sum(weights * x**2))

    parts = [metric * matrix / alpha for matrix in (anchor, w)]
    shares = np.linspace(0, 1, 10_001)
    fade = min(length(parts[0] - share * parts[1]) for share in shares)
    margin = np.append(-metric.max() * values[:rank] / alpha, LAM - outside)
    worst = np.append(margin[:rank], np.sqrt(np.cumsum((LAM - outside) ** 2)) - fade)
    noise = np.sum(weights * (square - mean**2)) / (1 - 9 / (8 * t))
    halves = slice(None, earlier_step), slice(earlier_step, None)
    first, second = (np.average(grads[half], axis=0, weights=s[half]) for half in halves)
    share = 9 / (8 * earlier_step) + (s[halves[1]] ** 2).sum() / s[halves[1]].sum() ** 2
    drift = np.sqrt(max(length(first - second) ** 2 - noise * share, 0))
    bounds = []
    for d in (0, drift):
        left = worst - d
        bound = np.where(left > 0, np.minimum(1, 13.5 * noise / (t * np.where(left > 0, left, 1) ** 2)), 1)
        bounds.append(np.where(np.arange(4) >= rank, bound, 1))
    return rank, values, margin, worst, noise, drift, *bounds


@pytest.mark.parametrize("method", METHODS)
def test_the_certificate_of_a_rank_is_that_of_the_gradients(method):
    params, state, middle = trained(method)
    found, watched = certify(state, params), certify(state, params, middle)
    rank, values, margin, worst, noise, drift, bound, watched_bound = reference(method, gradients(), STEPS // 2)
    assert rank == 2 and found.spectral == ("kernel",)
    np.testing.assert_array_equal(found.zero["kernel"], [False, False, True, True])
    np.testing.assert_allclose(found.norms["kernel"], np.where(np.arange(4) < rank, values, 0), rtol=1e-3)
    np.testing.assert_allclose(found.margin["kernel"], margin, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(found.worst_margin["kernel"], worst, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(found.noise["kernel"], np.full(4, noise), rtol=2e-3)
    np.testing.assert_allclose(found.bound["kernel"], bound, rtol=5e-3)
    np.testing.assert_allclose(watched.drift["kernel"], np.full(4, drift), rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(watched.bound["kernel"], watched_bound, rtol=3e-2)
    assert np.all(bound[rank:] < 1)
    np.testing.assert_allclose(found.rank_growth["kernel"], bound[rank], rtol=5e-3)
    np.testing.assert_allclose(found.expected_revivals, bound[rank:].sum(), rtol=5e-3)


def model_of(state, fade=1.0):
    """(rhs / alpha, metric / alpha) as matrices in float64, with a part of the anchor."""
    builder = state[1][0]
    model, alpha = builder.quadratic_model(), float(builder.step_size_sum)
    linear, anchor = (np.asarray(tree["kernel"], np.float64).reshape(6, 4) for tree in (model.linear, model.anchor))
    metric = np.broadcast_to(np.asarray(model.metric["kernel"], np.float64), SHAPE).reshape(6, 4)
    return fade * metric * anchor / alpha - linear / alpha, metric / alpha


@pytest.mark.parametrize("method", METHODS)
def test_the_rank_stays_while_the_average_moves_less_than_the_worst_margin(method):
    params, state, _ = trained(method)
    worst = np.asarray(certify(state, params).worst_margin["kernel"])
    rng = np.random.default_rng(1)
    ranks = []
    for fade in (0.0, 0.5, 1.0):
        rhs, metric = model_of(state, fade)
        w = by_iterations(rhs, metric, LAM)
        u, _, vt = np.linalg.svd(w)
        outside = np.linalg.svd((u.T @ (rhs - metric * w) @ vt.T)[2:, 2:])
        towards = u[:, 2:] @ outside[0][:, :1] @ outside[2][:1] @ vt[2:]  # the direction that makes the rank grow
        for move in (towards, *rng.normal(size=(3, 6, 4))):
            length = np.sqrt(np.sum(metric.max() / metric * move**2))
            moved = by_iterations(rhs + 0.999 * worst[2] / length * move, metric, LAM)
            ranks.append(int(np.linalg.matrix_rank(moved, tol=1e-7)))
    assert worst[2] > 0.1 and max(ranks) == 2


def test_the_margin_of_rmda_is_the_distance_at_which_the_rank_grows():
    params, state, _ = trained("rmda")
    margin = np.asarray(certify(state, params).margin["kernel"])
    rhs, metric = model_of(state)
    u, _, vt = np.linalg.svd(rhs, full_matrices=False)
    for size, rank in ((0.999, 2), (1.001, 3)):
        moved = by_iterations(rhs + size * margin[2] * np.outer(u[:, 2], vt[2]), metric, LAM)
        assert np.linalg.matrix_rank(moved, tol=1e-9) == rank


def test_a_mean_gradient_that_moves_the_rank_is_flagged():
    params, state, middle = trained("ramda", move=0.1)
    plain, found = certify(state, params), certify(state, params, middle)
    np.testing.assert_array_equal(found.drifting["kernel"], [False, False, True, False])
    assert plain.bound["kernel"][2] < 0.5 < found.bound["kernel"][2]
    assert not np.any(np.asarray(certify(*reversed(trained("ramda")[:2])).bound["kernel"][2:]) > 0.5)


def test_the_worst_margin_of_an_inexact_solve_lacks_twice_its_error():
    params, state, _ = trained("ramda", solver=DouglasRachford(max_steps=2))
    found = certify(state, params)
    rhs, metric = model_of(state)
    w = np.asarray(jax.jit(ramda_jax.eval_params)(state, params)["kernel"], np.float64).reshape(6, 4)
    slope, weights = rhs - metric * w, metric.max() / metric
    u, _, vt = np.linalg.svd(w)
    # In these bases: lambda times the identity, nothing beside it, and at most lambda in the last block.
    nearest = np.zeros((6, 4))
    nearest[:2, :2] = LAM * np.eye(2)
    left, sizes, right = np.linalg.svd((u.T @ slope @ vt.T)[2:, 2:], full_matrices=False)
    nearest[2:, 2:] = left * np.minimum(sizes, LAM) @ right
    error = np.sqrt(np.sum(weights * (slope - u @ nearest @ vt) ** 2))
    assert error > 1e-3
    parts = [metric * np.asarray(leaf, np.float64).reshape(6, 4) for leaf in (PARAMS["kernel"], w)]
    fade = min(np.sqrt(np.sum(weights * (parts[0] - share * parts[1]) ** 2)) for share in np.linspace(0, 1, 1001))
    distance = np.sqrt(np.cumsum(np.maximum(LAM - sizes, 0) ** 2))
    np.testing.assert_allclose(found.worst_margin["kernel"][2:], distance - fade - 2 * error, rtol=1e-3, atol=2e-4)
    np.testing.assert_array_equal(found.margin["kernel"] >= 0, found.zero["kernel"])


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_leaf_that_is_zero_and_one_of_full_rank(method):
    params, state, _ = trained(method, scale=0.1)
    found = certify(state, params)
    np.testing.assert_array_equal(found.norms["kernel"], 0)
    rhs, _ = model_of(state)
    np.testing.assert_allclose(found.margin["kernel"], LAM - np.linalg.svd(rhs, compute_uv=False), rtol=1e-4)
    assert np.all(np.diff(found.bound["kernel"]) < 0) and found.bound["kernel"][0] < 0.5

    params, state, _ = trained(method, regularizer=NuclearNorm(factor=1e-6))
    full = certify(state, params)
    assert not np.any(full.zero["kernel"])
    np.testing.assert_array_equal(full.bound["kernel"], 1)
    assert float(full.rank_growth["kernel"]) == float(full.expected_revivals) == 0
    assert "its rank is 4, which is the largest possible." in str(full)


def test_the_rank_is_printed_and_drawn(tmp_path):
    params, state, middle = trained("rmda")
    found = metrics.certificate(state, params, middle)
    assert str(found).splitlines()[1].split()[:3] == ["kernel", "4", "2"]
    assert f"its rank is 2, and grows with a probability of at most {found.rank_growth['kernel']:.3g}." in str(found)
    found.draw(tmp_path / "certificate.png")
    assert (tmp_path / "certificate.png").read_bytes().startswith(b"\x89PNG")


def test_without_second_moments_the_rank_of_rmda_has_margins_and_no_bound():
    params, state, _ = trained("rmda")
    found = certify(state[1], params)
    np.testing.assert_array_equal(found.margin["kernel"], certify(state, params).margin["kernel"])
    np.testing.assert_array_equal(found.bound["kernel"], 1)


def test_the_rank_of_bfloat16_parameters_is_that_of_the_float32_solution():
    params, state, _ = trained("rmda", dtype="bfloat16")
    found = certify(state, params)
    np.testing.assert_array_equal(found.zero["kernel"], [False, False, True, True])
    assert found.margin["kernel"].dtype == jnp.float32
    expected = certify(*reversed(trained("rmda")[:2]))
    np.testing.assert_allclose(found.margin["kernel"], expected.margin["kernel"], atol=2e-3)


def test_a_batch_of_states_has_a_batch_of_certificates():
    pairs = [trained("ramda", move=move)[:2] for move in (0.0, 0.1)]
    params, states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)
    found = jax.jit(jax.vmap(metrics.certificate))(states, params)
    for i, (params, state) in enumerate(pairs):
        single = certify(state, params)
        for name in ("zero", "margin", "worst_margin", "bound"):
            np.testing.assert_allclose(
                getattr(found, name)["kernel"][i], getattr(single, name)["kernel"], rtol=1e-3, atol=1e-4
            )


def test_ranks_and_groups_share_a_certificate_inside_partition():
    regularizer = {"low": REGULARIZER, "rows": GroupLasso("input")}
    optimizer = optax.partition(
        {"ours": ramda_jax.ramda(RATE, regularizer, STRENGTH), "other": optax.sgd(0.1)},
        {"low": {"kernel": "ours"}, "rows": {"kernel": "ours"}, "bias": "other"},
    )
    params = {"low": PARAMS, "rows": {"kernel": jnp.ones((3, 2))}, "bias": jnp.ones(2)}
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    for grad in jnp.asarray(gradients()[:5], jnp.float32):
        grads = {"low": {"kernel": grad}, "rows": {"kernel": 0.1 * grad[0, :, :2]}, "bias": jnp.ones(2)}
        updates, state = step(grads, state, params)
        params = optax.apply_updates(params, updates)
    found = certify(state, params)
    assert found.spectral == ("low/kernel",) and set(found.bound) == {"low/kernel", "rows/kernel"}
    alive = metrics.support(REGULARIZER, ramda_jax.eval_params(state, params)["low"])["kernel"]
    np.testing.assert_array_equal(found.zero["low/kernel"], ~alive)


def test_an_empty_matrix_has_no_singular_values():
    optimizer = ramda_jax.rmda(RATE, REGULARIZER, STRENGTH)
    params = {"kernel": jnp.zeros((0, 3))}
    state = optimizer.init(params)
    found = metrics.certificate(state, params, state)
    assert found.bound["kernel"].shape == (0,) and float(found.expected_revivals) == 0
    assert "'kernel' has singular values for groups" in str(found)


def test_a_nan_is_not_a_certificate_of_a_rank():
    params, state, _ = trained("rmda")
    _, state = optimizer_of("rmda").update({"kernel": jnp.full(SHAPE, jnp.nan)}, state, params)
    np.testing.assert_array_equal(certify(state, params).bound["kernel"], 1)
