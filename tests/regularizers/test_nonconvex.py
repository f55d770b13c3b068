"""Nonconvex psi: the exact solvers against an exhaustive search in one to three dimensions.

The shifted metric of a group, `metric - weight / omega`, is positive, negative, or has both signs.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax as rj
from tests.reference import regularizers as reference
from tests.regularizers.cases import Case, Problems, fixed, solve
from tests.tiny import array

pytestmark = pytest.mark.covering

NUM = 250
OMEGA, GROUP_WEIGHT, RATIO = 0.8, 1.3, 0.3
LEVELS = (-1.0, 0.0, 0.3, 2.0)


def group(omega, l1_ratio=0.0):
    return fixed(reference.Groups((0,), GROUP_WEIGHT, omega, l1_ratio))


# Each problem is a group of one to three entries, or as many separate entries.
CASES = {
    "MCP": Case(rj.MCP(omega=OMEGA), fixed(reference.MCP(OMEGA))),
    "GroupMCP omega": Case(rj.GroupMCP((), GROUP_WEIGHT, omega=OMEGA), group(OMEGA)),
    "GroupMCP gamma": Case(rj.GroupMCP((), GROUP_WEIGHT, gamma=OMEGA), group(OMEGA * GROUP_WEIGHT)),
    "SparseGroupMCP": Case(rj.SparseGroupMCP((), GROUP_WEIGHT, omega=OMEGA, l1_ratio=RATIO), group(OMEGA, RATIO)),
    "Binary": Case(rj.Binary(), fixed(reference.Levels([-1, 1]))),
    "Quantized": Case(rj.Quantized(LEVELS), lambda dtype: reference.Levels(LEVELS, dtype)),
}
SEARCHES = [(name, size) for name in CASES for size in (1, 2, 3) if name not in ("Binary", "Quantized") or size == 1]
SIGNS = ("convex", "mixed", "concave")


@functools.cache
def random_problems(size, signs, dtype, metric_is_scalar=False):
    """Problems near the borders between 0 and both sides of the knee; `signs` is of metric - weight / omega."""
    rng = np.random.default_rng([size, SIGNS.index(signs)])
    metric = 10.0 ** rng.uniform(-1, 1, size=[NUM, 1]) * 10.0 ** rng.uniform(-1.5, 0, size=[NUM, size])
    if metric_is_scalar or size == 1:
        metric = np.broadcast_to(metric[:, :1], metric.shape)
    low, high = np.min(metric, axis=1), np.max(metric, axis=1)
    factor = rng.uniform(0.05, 0.95, size=NUM)
    concavity = {
        "convex": low * factor,
        "mixed": low * (high / low) ** factor,
        "concave": high / factor,
    }[signs]
    weight = OMEGA * concavity
    # rhs has a random direction, sometimes with a much weaker entry. Its length is around the weight or the knee.
    rhs = rng.normal(size=[NUM, size]) * 10.0 ** (-2 * (rng.uniform(size=[NUM, size]) < 0.2))
    rhs /= np.linalg.norm(rhs, axis=1, keepdims=True)
    lengths = np.stack([weight * GROUP_WEIGHT, OMEGA * GROUP_WEIGHT / np.linalg.norm(rhs / metric, axis=1)])
    lengths = lengths[0] * (lengths[1] / lengths[0]) ** rng.uniform(size=NUM)
    rhs *= (lengths * rng.choice([0.7, 0.9, 0.97, 1.03, 1.1, 1.3, 2], size=NUM))[:, None]
    start = rng.normal(size=[NUM, size]) * rng.choice([0.1, 1, 3], size=[NUM, 1])
    diagonal = metric[:, 0] if metric_is_scalar else metric
    return Problems(*(np.asarray(x, dtype) for x in (rhs, diagonal, weight, start)))


def over_entries(terms):
    """The sum over the last axis, of length at most three. Adding term by term is many times faster than `np.sum`."""
    return functools.reduce(np.add, np.moveaxis(terms, -1, 0))


def objectives(name, problems, w):
    """The objectives of many points per problem, in float64; w has the shape [problem, point, entry]."""
    psi = CASES[name].definition(problems.rhs.dtype)
    rhs, metric, weight, _ = (np.asarray(x, float) for x in problems)
    metric = metric.reshape(len(metric), 1, -1)
    smooth = over_entries(w * (metric * w / 2 - rhs[:, None]))
    if isinstance(psi, reference.Groups):
        value = (1 - psi.l1_ratio) * psi.penalty(np.sqrt(over_entries(w**2)))
        if psi.l1_ratio:
            value = value + psi.l1_ratio * over_entries(np.abs(w))
    elif isinstance(psi, reference.MCP):
        below = np.minimum(np.abs(w), psi.omega)
        value = over_entries(below - below**2 / (2 * psi.omega))
    else:
        levels = psi.levels.astype(float)
        value = over_entries(functools.reduce(np.minimum, [np.abs(w - level) for level in levels]))
    return smooth + weight[:, None] * value


def search(name, problems):
    """The lowest objective of each problem on a dense grid that is refined around its three best separate points."""
    size = problems.rhs.shape[1]
    center = np.asarray(problems.rhs, float) / np.asarray(problems.metric, float).reshape(NUM, -1)
    if name in ("Binary", "Quantized"):
        # The grid covers the interval from the center to the farthest level, and contains all levels.
        low, high = np.minimum(center, -1.0) - 0.1, np.maximum(center, 2.0) + 0.1
        grid = low[:, None] + np.linspace(0, 1, 4001)[:, None] * (high - low)[:, None]
        levels = np.asarray(CASES[name].definition(problems.rhs.dtype).levels, float)
        grid = np.concatenate([grid, np.broadcast_to(levels[:, None], (NUM, len(levels), 1))], axis=1)
        width = (high - low) / 4000
    else:
        # psi increases with every |w_i|, so each entry of the minimiser lies between 0 and the center.
        num = {1: 2001, 2: 61, 3: 17}[size]
        points = np.array(list(itertools.product(np.linspace(0, 1, num), repeat=size)))
        grid = points * center[:, None]
        width = np.abs(center) / (num - 1)
    values = objectives(name, problems, grid)
    lowest = np.min(values, axis=1)
    # Start at three points that are not neighbours. In each round move to the best neighbour, at a smaller distance.
    cells = np.array(list(itertools.product((-1, 0, 1), repeat=size)))
    for _ in range(3):
        best = np.take_along_axis(grid, np.argmin(values, axis=1)[:, None, None], axis=1)
        near = over_entries(np.abs(grid - best) > 3 * width[:, None] + 1e-12) == 0
        values = np.where(near, np.inf, values)
        scale = width.copy()
        for _ in range(35):
            around = best + cells * scale[:, None]
            found = objectives(name, problems, around)
            lowest = np.minimum(lowest, np.min(found, axis=1))
            best = np.take_along_axis(around, np.argmin(found, axis=1)[:, None, None], axis=1)
            scale *= 0.7
    return lowest


def solver_of(name, metric):
    return rj.default_solver(CASES[name].regularizer, metric)


def solved(name, solver, problems):
    case = CASES[name]._replace(shape=problems.rhs.shape[1:])
    return solve(case, solver, problems)


def sizes_of_terms(problems, w):
    """The size of the objective's terms, to which its rounding is relative."""
    rhs, metric, weight, _ = (np.asarray(x, float) for x in problems)
    metric = metric.reshape(NUM, -1)
    psi_scale = weight * (GROUP_WEIGHT * OMEGA * GROUP_WEIGHT + np.sum(np.abs(w), axis=1) + 2)
    return np.sum(np.abs(rhs) * np.abs(w) + metric * w**2, axis=1) + psi_scale


# The search takes as long in both dtypes, and float64 is the stricter test.
@pytest.mark.parametrize(
    "dtype", [pytest.param(np.float32, marks=pytest.mark.slow), np.float64], ids=["float32", "float64"]
)
@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize(("name", "size"), SEARCHES)
def test_exact_solver_is_never_above_what_a_search_of_everything_finds(name, size, signs, dtype):
    if size == 1 and signs == "mixed":
        signs = "concave"
    problems = random_problems(size, signs, dtype)
    value = np.asarray(solved(name, solver_of(name, "diagonal"), problems).value, float)
    here = objectives(name, problems, value[:, None])[:, 0]
    lowest = search(name, problems)
    # Allow for the objective's rounding, because the solver chooses between two minima in the problem's dtype.
    slack = 4 * np.finfo(dtype).eps * sizes_of_terms(problems, value)
    assert np.all(here <= lowest + slack)
    # The search really finds the minimum: it comes as low as the solver, up to its last refinements.
    gap = (lowest - here) / sizes_of_terms(problems, value)
    assert np.max(gap) < 1e-3
    assert np.mean(gap > 1e-5) < 0.02
    if name not in ("Binary", "Quantized"):
        # All kinds of solutions occur.
        radii = np.linalg.norm(value, axis=1) if name != "MCP" else np.abs(value[:, 0])
        knee = {"MCP": OMEGA, "GroupMCP gamma": OMEGA * GROUP_WEIGHT**2}.get(name, OMEGA * GROUP_WEIGHT)
        assert np.mean(radii == 0) > 0.02
        assert np.mean(radii >= knee * (1 - 1e-6)) > 0.02
        if signs == "convex":
            assert np.mean((radii > 0) & (radii < knee)) > 0.05


def test_there_are_minima_below_the_knee_where_the_shifted_metric_has_both_signs(x64):
    problems = random_problems(3, "mixed", np.float64)
    value = solved("GroupMCP omega", rj.SecularNewton(), problems).value
    radii = np.linalg.norm(value, axis=1)
    assert np.mean((radii > 0) & (radii < OMEGA * GROUP_WEIGHT * (1 - 1e-9))) > 0.05


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("signs", ["convex", "concave"])
@pytest.mark.parametrize("name", [name for name in CASES if name not in ("Binary", "Quantized")])
def test_closed_form_in_a_scalar_metric_is_never_above_a_search(name, signs, dtype):
    problems = random_problems(2, signs, dtype, metric_is_scalar=True)
    value = np.asarray(solved(name, rj.ClosedForm(), problems).value, float)
    here = objectives(name, problems, value[:, None])[:, 0]
    assert np.all(here <= search(name, problems) + 4 * np.finfo(dtype).eps * sizes_of_terms(problems, value))
    if CASES[name].is_grouped:
        other = np.asarray(solved(name, rj.SecularNewton(), problems).value, float)
        there = objectives(name, problems, other[:, None])[:, 0]
        assert np.all(np.abs(here - there) <= 4 * np.finfo(dtype).eps * sizes_of_terms(problems, value))


@functools.cache
def iterated(name, size, signs):
    problems = random_problems(size, signs, np.float64)
    solver = rj.ProximalGradient(max_steps=20_000, tolerance=1e-9)
    return problems, solved(name, solver, problems)


GROUPED = ["GroupMCP omega", "SparseGroupMCP"]


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("name", GROUPED)
def test_proximal_gradient_descends_to_a_stationary_point(x64, name, signs):
    problems, solutions = iterated(name, 3, signs)
    psi = CASES[name].definition(np.float64)
    assert np.mean(solutions.converged) > 0.98  # flat valleys may take longer
    for index in np.flatnonzero(solutions.converged):
        rhs, metric, weight, start = (x[index] for x in problems)
        w = solutions.value[index]
        residual = reference.norm(reference.kkt_distances(psi, w, rhs, metric, weight))
        assert residual <= 1e-9 * reference.norm(rhs) + 1e-14 * np.max(metric) * reference.norm(w)
    start, here = (objectives(name, problems, w[:, None])[:, 0] for w in (problems.start, solutions.value))
    assert np.all(here <= start)


def test_proximal_gradient_takes_half_the_step_and_descends_at_every_one(x64):
    problems = random_problems(3, "concave", np.float64)
    rhs, metric, weight, z = problems
    case = CASES["GroupMCP omega"]
    psi = case.definition(np.float64)
    before = objectives("GroupMCP omega", problems, z[:, None])[:, 0]
    for _ in range(8):
        # Take two steps at a time, because the solver takes at least two.
        two = solved("GroupMCP omega", rj.ProximalGradient(max_steps=2, rtol=0.0), problems._replace(start=z)).value
        for _ in range(2):
            theta = 0.5 / np.max(metric, axis=1)
            x = z - theta[:, None] * (metric * z - rhs)
            z = np.array([group_mcp_prox(psi, point, t * lam) for point, t, lam in zip(x, theta, weight, strict=True)])
        np.testing.assert_allclose(two, z, rtol=1e-9, atol=1e-13)
        z = two
        after = objectives("GroupMCP omega", problems, z[:, None])[:, 0]
        assert np.all(after <= before + 1e-15 * np.abs(before))
        before = after


def group_mcp_prox(psi, x, weight):
    """The best of three candidates: 0, a point on the curved part and a point on the flat part."""
    r = np.linalg.norm(x)
    knee, concavity = psi.omega * psi.group_weight, weight / psi.omega
    radii = [0.0]
    if concavity < 1:
        radii.append(min(max((r - weight * psi.group_weight) / (1 - concavity), 0), knee))
    if r >= knee:
        radii.append(r)
    best = min(radii, key=lambda radius: (radius - r) ** 2 / 2 + weight * psi.penalty(radius))
    return x * (best / r)


@pytest.mark.parametrize(("signs", "low", "high"), [("convex", 0, 0), ("mixed", 0.02, 0.5), ("concave", 0.05, 0.6)])
@pytest.mark.parametrize("name", GROUPED)
def test_proximal_gradient_ends_in_a_worse_local_minimum_in_some_nonconvex_cases_only(x64, name, signs, low, high):
    problems, solutions = iterated(name, 3, signs)
    exact = solved(name, rj.SecularNewton(), problems).value
    lowest, here = (objectives(name, problems, w[:, None])[:, 0] for w in (exact, solutions.value))
    share = np.mean(here > lowest + 1e-6 * np.abs(lowest) + 1e-9)
    assert low <= share <= high
    assert np.all(lowest <= here + 1e-9 * sizes_of_terms(problems, exact))


@pytest.mark.parametrize("factor", [1.0, 1.5, 40.0])
def test_prox_of_mcp_is_the_hard_threshold_from_weight_omega_on(x64, factor):
    omega = 0.8
    weight = factor * omega  # the step size is 1
    threshold = np.sqrt(weight * omega)  # x^2 / 2 equals weight omega / 2, the value of the flat part
    x = np.concatenate([np.linspace(-3, 3, 1200) * threshold, threshold * (1 + np.array([-1e-12, 1e-12]))])
    hard = np.where(np.abs(x) > threshold, x, 0)
    np.testing.assert_array_equal(rj.MCP(omega).prox(jnp.asarray(x), weight), hard)
    # Groups of two entries in the direction (0.6, 0.8), where the threshold applies to the norm.
    points = array(np.stack([0.6 * np.abs(x), 0.8 * x], axis=1))
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    kept = np.where(norms > threshold, points, 0)
    found = rj.GroupMCP((0,), group_weight=1.0, omega=omega).prox(points, weight)
    np.testing.assert_allclose(found, kept, rtol=1e-15)


@pytest.mark.parametrize(("lam", "omega_paper"), [(0.3, 5.0), (2.0, 0.4), (1.0, 1.0)])
def test_mcp_of_the_papers_is_strength_lambda_and_omega_lambda_times_theirs(x64, lam, omega_paper):
    """Theirs is `lam |w| - w^2 / (2 omega')` up to the knee `omega' lam`, where its slope is 0, and constant beyond."""

    def papers(r, lam):
        r = np.minimum(np.abs(r), omega_paper * lam)
        return lam * r - r**2 / (2 * omega_paper)

    w = np.linspace(-3 * lam * omega_paper, 3 * lam * omega_paper, 401)
    ours = jax.vmap(rj.MCP(omega=lam * omega_paper).value)
    np.testing.assert_allclose(lam * ours(w), papers(w, lam), rtol=1e-13, atol=1e-15)
    # Groups with lambda_g = lam omega_g and one omega' for all.
    kernel = np.random.default_rng(0).normal(size=(7, 3)) * lam * omega_paper
    norms, root = np.linalg.norm(kernel, axis=1), np.sqrt(3)
    grouped = rj.GroupMCP("input", omega=lam * omega_paper)
    np.testing.assert_allclose(lam * grouped.value(kernel), np.sum(papers(norms, lam * root)), rtol=1e-13)

    # With omega' = gamma' omega_g, ours has gamma = lam gamma'.
    def with_gamma(r):
        omega = omega_paper * root
        r = np.minimum(r, omega * lam * root)
        return lam * root * r - r**2 / (2 * omega)

    grouped = rj.GroupMCP("input", gamma=lam * omega_paper)
    np.testing.assert_allclose(lam * grouped.value(kernel), np.sum(with_gamma(norms)), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", ["MCP", "GroupMCP omega", "SparseGroupMCP"])
def test_solutions_at_the_knee_are_not_lost_between_its_two_sides(name, dtype):
    # If rounding puts the point below the knee above it, and the point above the knee below it, a solution must remain.
    rng = np.random.default_rng(2)
    num = 4000
    psi, eps = CASES[name].definition(dtype), np.finfo(dtype).eps
    knee = OMEGA if name == "MCP" else OMEGA * GROUP_WEIGHT
    for size in (1,) if name == "MCP" else (1, 3):
        metric = rng.uniform(0.1, 10, size=(num, size))
        w = rng.normal(size=(num, size))
        w *= knee / np.linalg.norm(w, axis=1, keepdims=True) * (1 + eps / 2 * rng.integers(-6, 7, size=(num, 1)))
        weight = OMEGA * np.min(metric, axis=1) * rng.uniform(0.01, 0.99, size=num)
        rhs = metric * w
        if name == "SparseGroupMCP":
            rhs = rhs + np.sign(w) * (weight * RATIO)[:, None]
        diagonal = Problems(*(np.asarray(x, dtype) for x in (rhs, metric, weight, w)))
        solves = [(solver_of(name, "diagonal"), diagonal)]
        if size == 1:
            solves.append((rj.ClosedForm(), diagonal._replace(metric=diagonal.metric[:, 0])))
        for solver, problems in solves:
            value = solved(name, solver, problems).value
            assert np.all(np.any(value != 0, axis=1))
            error = np.linalg.norm(value - w, axis=1) / knee
            assert np.max(error) < 1e-2
            for index in range(0, num, 20):
                rhs, metric, weight, _ = (x[index] for x in problems)
                residual = np.max(reference.kkt_distances(psi, value[index], rhs, metric, weight))
                assert residual <= 4 * eps * reference.norm(rhs)
