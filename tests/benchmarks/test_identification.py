import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from benchmarks.identification import main
from benchmarks.logistic import Problem, certify, newton, solve
from benchmarks.noise_ball import Linear


def small_problem(ridge=0.0):
    """A logistic regression whose logits depend on six of twelve inputs."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((300, 12))
    logits = inputs[:, :6] @ rng.standard_normal((6, 3)) * 0.5
    labels = np.eye(3)[np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)]
    return Problem(inputs, labels, 0.05, ridge)


def test_logistic_solver_reaches_the_minimiser_and_the_gap_certifies_its_zeros():
    problem = small_problem()
    kernel, bias = solve(problem, 200)
    norms = np.linalg.norm(kernel, axis=1)
    assert 0 < np.sum(norms == 0) < len(norms)
    assert problem.residual(kernel, bias) <= 1e-10
    certificate = certify(problem, kernel, bias)
    assert -1e-13 <= certificate.gap <= 1e-9
    np.testing.assert_array_equal(certificate.zero, norms == 0)
    # An independent check: no moved kernel has an objective as low.
    rng, lowest = np.random.default_rng(1), problem.gradient(kernel, bias)[2]
    for scale in (1e-3, 1e-1, 1.0):
        moved = kernel + scale * rng.standard_normal(kernel.shape)
        assert problem.gradient(moved, bias)[2] > lowest


def test_certificate_says_nothing_away_from_the_minimiser_and_is_never_wrong():
    problem = small_problem()
    kernel, bias = solve(problem, 200)
    zero = np.linalg.norm(kernel, axis=1) == 0
    for scale in (1.0, 0.1, 0.01, 1e-3, 1e-4):
        near = certify(problem, kernel * (1 + scale), bias)
        assert not np.any(near.zero & ~zero)
    assert not np.any(certify(problem, np.zeros_like(kernel), bias).zero)


def test_newton_finds_groups_that_the_start_has_lost_or_added():
    problem = small_problem(ridge=0.01)
    kernel, bias = solve(problem, 200)
    wrong = np.roll(kernel, 3, axis=0)
    again, _ = newton(problem, wrong, bias, 1e-10)
    np.testing.assert_allclose(again, kernel, atol=1e-8)


@pytest.mark.parametrize("averaging", [1.0, 0.2])
def test_linear_model_has_the_deviations_of_its_recursion(averaging):
    curvature, noise = np.array([[1.0, 0.3], [0.3, 0.5]]), np.array([[1.0, -0.2], [-0.2, 2.0]])
    model = Linear(2, curvature, noise, np.array([1.0, 2.0]))
    rng, runs, c = np.random.default_rng(0), 20_000, averaging
    kicks = np.linalg.cholesky(noise)
    rates = model.rates("ramda", 0.1)
    hat, w = np.zeros((2, runs)), np.zeros((2, runs))
    for _ in range(300):
        hat = hat - rates[:, None] * (curvature @ w + kicks @ rng.standard_normal((2, runs)))
        w = (1 - c) * w + c * hat
    predicted = model.deviations("ramda", 0.1, averaging)
    np.testing.assert_allclose((hat.std(axis=1), w.std(axis=1)), predicted, rtol=0.03)


def test_averaging_widens_the_ball_of_the_structured_point_alone():
    model = Linear(1, np.array([[1.0]]), np.array([[1.0]]), np.array([1.0]))
    rate = 1e-3
    for averaging in (0.1, 0.01, 0.001):
        (hat,), (w,) = model.deviations("rmda", rate, averaging)
        np.testing.assert_allclose(w**2, rate / 2, rtol=0.01)
        np.testing.assert_allclose(hat**2, rate / 2 * (1 + rate / averaging), rtol=0.01)


@pytest.mark.slow
def test_regret_of_rmda_is_within_the_bound_of_theorem_3_on_every_path(x64):
    # The sum over the path of s (<g, W - w> + lambda psi(W) - lambda psi(w)), where g is the gradient at W, is at most
    # sqrt(t) / 2 ||w - W_0||^2 + sum of s^2 ||g + lambda u||^2 / (2 sqrt(t - 1)), for any gradients.
    strength, steps = 0.3, 60
    lasso = ramda_jax.GroupLasso(0, group_weight=1.0)
    optimizer = ramda_jax.rmda(0.5, lasso, strength=strength, averaging=1.0)
    start = jnp.array([[1.0, -1.0], [0.2, 0.1], [0.0, 0.0]])

    @jax.jit
    def path(grads):
        def step(carry, g):
            params, state = carry
            updates, state = optimizer.update(g, state, params)
            new = params + updates
            sums = state[0]
            u = -(sums.grad_sum + jnp.sqrt(sums.stage_step) * (new - start)) / (strength * sums.step_size_sum)
            return (new, state), (new, u, lasso.value(new))

        return jax.lax.scan(step, (start, optimizer.init(start)), grads)[1]

    rng = np.random.default_rng(0)
    tightest = np.inf
    for _ in range(20):
        grads = rng.standard_normal((steps, 3, 2)) * rng.choice([0.1, 1.0, 10.0])
        points, subgradients, values = map(np.asarray, path(grads))
        w = rng.standard_normal((3, 2))
        s = 0.5 * np.sqrt(np.arange(1, steps + 1))
        # The bound starts at T = 1, so the terms of the first step enter as they are.
        first = np.sum(s[0] * grads[0] * (w - points[0])) + strength * s[0] * (float(lasso.value(w)) - values[0])
        left, right = 0.0, first
        right -= 0.5 * np.sum((points[0] - np.asarray(start)) ** 2)
        for k in range(1, steps):
            gained = np.sum(grads[k] * (points[k - 1] - w)) + strength * (values[k - 1] - float(lasso.value(w)))
            left += s[k] * gained
            square = np.sum((grads[k] + strength * subgradients[k - 1]) ** 2)
            right += s[k] ** 2 * square / (2 * np.sqrt(k))
        right += 0.5 * np.sqrt(steps) * np.sum((w - np.asarray(start)) ** 2)
        assert left <= right
        tightest = min(tightest, (right - left) / abs(right))
    assert tightest < 1  # the bound is not so loose that every path meets it


def test_radius_of_rmda_goes_as_theorem_5_says_on_every_path(x64):
    # One group: W_t = y^+ u. The next y is y - kappa (y - <u, W_0>) - eta_t (<u, g> + lambda omega) + rho', where 0 <=
    # rho' <= (s^2 ||g||^2 + ||W_0||^2 / t) / (sqrt(t) ||h||).
    strength, steps, power = 0.3, 80, 0.6
    lasso = ramda_jax.GroupLasso(0, group_weight=1.0)
    optimizer = ramda_jax.rmda(lambda step: 0.5 * (step + 1.0) ** -power, lasso, strength=strength, averaging=1.0)
    start = jnp.array([[1.0, -1.0, 0.5]])

    @jax.jit
    def path(grads):
        def step(carry, g):
            params, state = carry
            updates, state = optimizer.update(g, state, params)
            new = params + updates
            return (new, state), (new, state[0].grad_sum, state[0].step_size_sum)

        return jax.lax.scan(step, (start, optimizer.init(start)), grads)[1]

    rng, t = np.random.default_rng(0), np.arange(1, steps + 1)
    zero = 0
    for _ in range(20):
        grads = rng.standard_normal((steps, 1, 3)) + rng.standard_normal((1, 1, 3)) * rng.choice([0.0, 0.2, 1.0])
        points, sums, alphas = map(np.asarray, path(grads))
        anchor = np.asarray(start)[0]
        h = np.sqrt(t)[:, None] * anchor - sums[:, 0]
        lengths = np.linalg.norm(h, axis=1)
        u, y = h / lengths[:, None], (lengths - strength * alphas) / np.sqrt(t)
        np.testing.assert_allclose(points[:, 0], np.maximum(y, 0)[:, None] * u, atol=1e-12)
        zero += np.sum(y < 0)
        eta, kappa, g = 0.5 * t[1:] ** -power, 1 - np.sqrt(1 - 1 / t[1:]), grads[1:, 0]
        along = np.sum(u[:-1] * g, axis=1)
        rest = y[1:] - (y[:-1] - kappa * (y[:-1] - u[:-1] @ anchor) - eta * (along + strength))
        size = eta**2 * t[1:] * np.sum(g**2, axis=1) + anchor @ anchor / t[1:]
        assert np.all(rest >= -1e-12) and np.all(rest <= size / (np.sqrt(t[1:]) * lengths[:-1]) + 1e-12)
    assert zero > 50  # both signs of y occur


@pytest.mark.slow
def test_the_command_runs_and_writes_what_it_prints(tmp_path, capsys):
    main(["--small", "--json", str(tmp_path / "rows.json")])
    tables = json.loads((tmp_path / "rows.json").read_text())
    printed = capsys.readouterr().out
    assert all(f"\n{name}\n" in printed for name in tables)
    (row,) = tables["constant"]
    assert row["come_and_go_zero"] == 0 and row["come_and_go_living"] == row["predicted"]
    np.testing.assert_allclose(row["radius"], row["radius_predicted"], rtol=0.3)
    errors = {
        kind: [row["average_error"] for row in tables["reshuffled"] if row["shuffled"] == kind] for kind in (0, 1)
    }
    assert all(shuffled < drawn for shuffled, drawn in zip(errors[1], errors[0], strict=True))
    assert errors[1][-1] < errors[1][0] / 100
