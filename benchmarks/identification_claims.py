"""Small problems in which one claim of docs/identification.md can be seen, and fails where an assumption is dropped.

`python -m benchmarks.identification --claims` runs them in some seconds:

    no_limit      the Proposition: RMDA at a constant rate keeps moving; it stops if the rate or the noise falls
    ramda_convex  Theorem 3 for RAMDA: the regret is within its bound on every path, and all four means tend to 0
    compositions  Theorem 4 with batch normalisation: the limit is the mean over the compositions of a batch
    robust        Theorem 4 where nothing converges: the limit points of V_t / alpha_t, by their support function
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax

TARGET = np.array([3.0, -3.0, 2.5, -2.5, 0.3, -0.2, 0.1, 0.0])  # living entries, and entries that the strength zeroes
STRENGTH, EPSILON = 0.5, 1e-3


def power(rate, exponent):
    """The schedule rate t^-exponent, t = 1, 2, ..."""
    return lambda step: rate * (jnp.asarray(step, jnp.float32) + 1) ** -exponent


NO_LIMIT = {
    # name: (regularized, power of eta_t, averaging, noise)
    "l1, constant rate": (True, 0.0, 1.0, 1.0),
    "l1, constant rate, c = 0.1": (True, 0.0, 0.1, 1.0),
    "no regularizer, constant rate": (False, 0.0, 1.0, 1.0),
    "l1, falling rate": (True, 0.6, 1.0, 1.0),
    "l1, constant rate, c = 1 / t": (True, 0.0, power(1.0, 1.0), 1.0),
    "l1, constant rate, no noise": (True, 0.0, 1.0, 0.0),
}


def no_limit(steps, seeds, names=tuple(NO_LIMIT), rate=0.1):
    """How far the entries of W move within [t, 2t]. The loss is 1/2 ||w - b||^2, the noise normal.

    A sequence converges only if this tends to 0. `range` is the smallest over seeds and living entries, `deviation` the
    root mean square about W* in the second window; the linear model predicts sqrt(eta / 2).
    """
    rows = []
    for name in names:
        regularized, exponent, averaging, noise = NO_LIMIT[name]
        penalty = {"regularizer": ramda_jax.L1(), "strength": STRENGTH} if regularized else {}
        optimizer = ramda_jax.rmda(power(rate, exponent), averaging=averaging, **penalty)
        best = np.sign(TARGET) * np.maximum(np.abs(TARGET) - STRENGTH * regularized, 0)
        start = jnp.zeros(len(TARGET))

        def path(key, optimizer=optimizer, noise=noise, start=start):
            def step(carry, kick):
                params, state = carry
                updates, state = optimizer.update(params - jnp.asarray(TARGET) + noise * kick, state, params)
                params = optax.apply_updates(params, updates)
                return (params, state), params

            kicks = jax.random.normal(key, (steps, len(TARGET)))
            return jax.lax.scan(step, (start, optimizer.init(start)), kicks)[1]

        points = np.asarray(jax.jit(jax.vmap(path))(jax.random.split(jax.random.key(0), seeds)), np.float64)[..., :4]
        first, last = points[:, steps // 32 : steps // 16], points[:, steps // 2 :]
        ranges = [float(np.ptp(window, axis=1).min()) for window in (first, last)]
        row = {"case": name, "t": steps // 2, "range_at_t_over_16": ranges[0], "range": ranges[1]}
        row |= {"ratio": ranges[1] / ranges[0], "deviation": float(np.sqrt(np.mean((last - best[:4]) ** 2)))}
        is_covered = exponent == 0 and noise > 0 and not callable(averaging)
        rows.append(row | {"predicted": (rate / 2) ** 0.5 if is_covered else None})
    return rows


def convex_problem():
    """A positive definite matrix A, b, and the minimiser of 1/2 (w - b)^T A (w - b) + STRENGTH ||w||_1."""
    factor = np.random.default_rng(0).standard_normal((8, 8))
    matrix = np.eye(8) + 0.5 * factor @ factor.T / 8
    point, length = np.zeros(8), 1 / np.linalg.eigvalsh(matrix)[-1]
    for _ in range(2000):
        moved = point - length * matrix @ (point - TARGET)
        point = np.sign(moved) * np.maximum(np.abs(moved) - length * STRENGTH, 0)
    return matrix, point


def ramda_convex(steps, seeds, powers=(0.0, 0.3, 0.6, 0.9, 1.2), rate=0.03):
    """RAMDA with c = 1 at eta_t = rate t^-q: Theorem 3 asks for q > 0, and q = 0 is what it says nothing of.

    `gap` and `slope_error` are the weighted mean of F(W) - F* and ||V_t / alpha_t - grad f(W*)||, `zero_share` the
    weighted share of steps with a living entry at zero, `wrong` the number of zero entries that were not zero in the
    last half. `regret_over_bound` is the largest over seeds and t of the two sides of the inequality of the proof; the
    sums and the metric are computed here, from the gradients, and not taken from the optimizer.
    """
    matrix, best = convex_problem()
    slope, living, rows = matrix @ (best - TARGET), best != 0, []
    A, b, minimiser = (jnp.asarray(array, jnp.float32) for array in (matrix, TARGET, best))

    def objective(w):
        return 0.5 * (w - b) @ A @ (w - b) + STRENGTH * jnp.abs(w).sum()

    for q in powers:
        schedule = power(rate, q)
        optimizer = ramda_jax.ramda(schedule, ramda_jax.L1(), strength=STRENGTH, averaging=1.0, eps=EPSILON)
        start = jnp.zeros(8)

        def path(key, optimizer=optimizer, schedule=schedule, start=start):
            def step(carry, at):
                w, state, V, U, alpha, left, right, gaps, zeros = carry
                t, kick = at
                s, g = schedule(t - 1) * jnp.sqrt(t), A @ (w - b) + kick
                D, first = jnp.cbrt(U) + EPSILON, t == 1
                u = -(V + D * (w - start)) / (STRENGTH * jnp.where(first, 1, alpha))
                gained = s * (g @ (w - minimiser) + STRENGTH * (jnp.abs(w).sum() - jnp.abs(minimiser).sum()))
                cost = s**2 * jnp.sum((g + STRENGTH * u) ** 2 / (2 * D))
                gaps, zeros = gaps + s * (objective(w) - objective(minimiser)), zeros + s * jnp.any(w[living] == 0)
                updates, state = optimizer.update(g, state, w)
                new: Any = optax.apply_updates(w, updates)
                V, U, alpha = V + s * g, U + s * g * g, alpha + s
                D = jnp.cbrt(U) + EPSILON
                # The inequality starts at T = 1, so the terms of the first step enter as they are.
                at_first = s * (g @ (minimiser - new) + STRENGTH * (jnp.abs(minimiser).sum() - jnp.abs(new).sum()))
                at_first -= 0.5 * jnp.sum(D * (new - start) ** 2)
                left, right = left + jnp.where(first, 0, gained), right + jnp.where(first, at_first, cost)
                ratio = left / (right + 0.5 * jnp.sum(D * (minimiser - start) ** 2))
                seen = (ratio, gaps / alpha, jnp.linalg.norm(V / alpha - slope), zeros / alpha, new != 0)
                return (new, state, V, U, alpha, left, right, gaps, zeros), seen

            kicks = jax.random.normal(key, (steps, 8))
            none, each = jnp.zeros([]), jnp.zeros(8)
            carry = (start, optimizer.init(start), each, each, none, none, none, none, none)
            return jax.lax.scan(step, carry, (jnp.arange(1.0, steps + 1), kicks))[1]

        found = jax.jit(jax.vmap(path))(jax.random.split(jax.random.key(0), seeds))
        ratio, gap, error, zeros, alive = map(np.asarray, found)
        wrong = int(np.any(alive[:, steps // 2 :, ~living], axis=(0, 1)).sum())
        for t in (steps // 16, steps):
            row = {"power": q, "t": t, "gap": float(gap[:, t - 1].mean())}
            row |= {"slope_error": float(error[:, t - 1].mean()), "zero_share": float(zeros[:, t - 1].mean())}
            rows.append(row | {"wrong": wrong, "regret_over_bound": float(ratio.max())})
    return rows


def compositions(passes, seeds):
    """The average of a batch-normalised loss over passes of two batches of three of six samples, as W_t -> W*.

    `error` is from the mean over the 20 compositions, `error_of_whole` from the gradient of all samples as one batch.
    Predicted is the first, for independently drawn orders: the mean of a pass has variance v, the steps s = sqrt(t).
    """
    rng = np.random.default_rng(0)
    inputs, signs, limit = rng.standard_normal((6, 2)), rng.choice([-1.0, 1.0], 6), np.array([1.0, -0.5])
    inputs[0] *= 4  # one sample far from the others, which a batch's statistics depend on

    def loss(w, index):
        batch = jnp.asarray(inputs)[index]
        batch = (batch - batch.mean(axis=0)) / jnp.sqrt(batch.var(axis=0) + 1e-3)
        return jnp.mean(jax.nn.softplus(-jnp.asarray(signs)[index] * (batch @ w)))

    slopes = jax.jit(jax.vmap(jax.grad(loss)))
    every = np.array(list(itertools.combinations(range(6), 3)))
    table = np.asarray(slopes(np.broadcast_to(limit, (20, 2)), every))
    mean, whole = table.mean(axis=0), np.asarray(jax.grad(loss)(jnp.asarray(limit), np.arange(6)))
    variance = np.mean(np.sum(((table + table[::-1]) / 2 - mean) ** 2, axis=1))  # entry -1 - k is the complement of k
    s, rows = np.sqrt(np.arange(1, 2 * passes + 1)), []
    for drawn in (True, False):
        squares = {}
        for _ in range(seeds):
            orders = rng.permuted(np.tile(np.arange(6), (passes, 1)), axis=1)
            orders = orders if drawn else np.broadcast_to(orders[0], orders.shape)
            points = limit + rng.standard_normal((2 * passes, 2)) / np.arange(1, 2 * passes + 1)[:, None]
            grads = np.asarray(slopes(points, orders.reshape(-1, 3)), np.float64)
            averages = np.cumsum(s[:, None] * grads, axis=0) / np.cumsum(s)[:, None]
            for share in (64, 8, 1):
                found = averages[2 * passes // share - 1]
                squares.setdefault(share, []).append([np.sum((found - to) ** 2) for to in (mean, whole)])
        for share, found in squares.items():
            row = {"orders": "drawn" if drawn else "one", "t": 2 * passes // share}
            row |= dict(zip(("error", "error_of_whole"), np.sqrt(np.mean(found, axis=0)).tolist(), strict=True))
            rows.append(row | {"predicted": float(np.sqrt(9 * variance * share / (8 * passes))) if drawn else None})
    return rows


def robust(passes, seeds, radius=3.0):
    """The largest excess of <theta, V_t / alpha_t> over two sets' support functions, over 16 directions and `seeds`.

    Logistic losses of six samples, W anywhere in a ball B. `excess` is from the mean of conv grad f_i(B); predicted is
    at most of the order m / t. `excess_of_mean` is from conv grad f(B), which Theorem 2 has for independent samples.
    Points: those that are the worst for the sample that follows ("worst"), or drawn before it ("drawn"). "twice" is
    "worst" with one sample visited twice in each pass, which the theorem excludes.
    """
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((6, 2)), rng.integers(0, 2, 6)
    lengths = np.linalg.norm(inputs, axis=1)
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    inside = radius * np.sqrt(rng.random((4000, 1))) * circle(4000)
    grid = np.vstack([inside, radius * circle(720)])

    def factor(products, i):
        return 1 / (1 + np.exp(-products)) - labels[i]

    every = factor(grid @ inputs.T, np.arange(6))
    rows = []
    for points in ("worst", "drawn", "twice"):
        excess, excess_of_mean = {}, {}
        for angle, _ in itertools.product(angles, range(seeds)):
            theta = np.array([np.cos(angle), np.sin(angle)])
            along = inputs @ theta
            best = np.sign(along) * radius * lengths  # <w, x_i> where <theta, grad f_i> is largest on B
            support = np.mean(along * factor(best, np.arange(6)))
            support_of_mean = np.max(every @ along / 6)
            visits = np.arange(6)
            if points == "twice":
                visits = np.append(visits, np.argmax(along * factor(best, visits)))
            order = rng.permuted(np.tile(visits, (passes, 1)), axis=1).ravel()
            if points == "drawn":
                products = np.sum(grid[rng.integers(0, len(grid), len(order))] * inputs[order], axis=1)
            else:
                products = best[order]
            s = np.sqrt(np.arange(1, len(order) + 1))
            average = np.cumsum(s * along[order] * factor(products, order)) / np.cumsum(s)
            for share in (64, 8, 1):
                found = average[len(order) // share - 1]
                excess.setdefault(share, []).append(found - support)
                excess_of_mean.setdefault(share, []).append(found - support_of_mean)
        for share in excess:
            row = {"points": points, "passes": passes // share, "excess": float(max(excess[share]))}
            rows.append(row | {"excess_of_mean": float(max(excess_of_mean[share]))})
    return rows


def circle(count):
    """Points of the unit circle."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)
