"""Every regularizer with every solver in every kind of metric, against the definitions in NumPy."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax as rj
from ramda_jax.solvers import Context
from tests.reference import regularizers as reference
from tests.regularizers.cases import (
    CASES,
    DECADES,
    DTYPES,
    SHAPE,
    prox,
    relative_residuals,
    solve,
    solved,
)

pytestmark = pytest.mark.covering

every_case = pytest.mark.parametrize("name", CASES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
every_metric = pytest.mark.parametrize("metric", DECADES)
CONVEX = [name for name, case in CASES.items() if case.regularizer.convex]
EXACT = [(name, metric) for name, case in CASES.items() for metric in DECADES if case.exact_solvers(metric, np.float64)]

# The KKT residual that rounding leaves, in units of machine eps times the block's rhs. An SVD is only backward stable.
ROUNDING = {"NuclearNorm": 32, "NuclearNorm of kernels": 32}


def rounding(name):
    return ROUNDING.get(name, 3)


def proximal_gradient(dtype):
    """The solver; its tolerance is relative to ||rhs||, which is the scale of the batches' models."""
    return rj.ProximalGradient(max_steps=5000, tolerance=1e-9 if dtype == np.float64 else 1e-4)


def points(case, dtype):
    """Pairs (point, slope): points with and without structure, inside and outside of the sets, and at every kink."""
    rng = np.random.default_rng(1)
    shape = case.shape
    for size in (1e-3, 0.3, 1.0, 3.0):
        yield size * rng.normal(size=shape), rng.normal(size=shape)
        sparse = np.where(rng.uniform(size=shape) < 0.5, 0, size * rng.normal(size=shape))
        sparse[0] = 0
        yield sparse, 3 * rng.normal(size=shape)
        yield rng.choice([-1.0, -0.5, 0.0, 0.3, 1.0, 2.0], size=shape), rng.normal(size=shape)
        yield np.clip(size * rng.normal(size=shape), -0.5, 1.0), rng.normal(size=shape)
        yield np.abs(size * rng.normal(size=shape)), rng.normal(size=shape)
    yield np.zeros(shape), np.zeros(shape)
    yield np.zeros(shape), 0.1 * rng.normal(size=shape)
    row = rng.normal(size=shape[-1:])
    yield np.ones(shape) * row, np.ones(shape) * row  # of rank 1
    # A point on the border of every set.
    corner = np.zeros(shape)
    corner[(0,) * len(shape)] = 1.0
    yield corner, rng.normal(size=shape)


@every_dtype
@every_case
def test_value_is_that_of_the_definition(name, dtype):
    case = CASES[name]
    regularizer = case.regularizer.resolve("dense/kernel", case.shape)
    psi = case.definition(dtype)
    ws = np.array([w for w, _ in points(case, dtype)], dtype)
    with jax.enable_x64(dtype == np.float64):
        values = jax.jit(jax.vmap(regularizer.value))(ws)
        assert values.dtype == dtype
        values = np.asarray(values)
    expected = np.array([psi.value(w) for w in ws], float)
    np.testing.assert_allclose(values, expected, rtol=8 * np.finfo(dtype).eps, atol=0)
    if case.is_indicator:
        assert set(np.unique(expected)) <= {0.0, np.inf}
    elif name != "Null":
        assert len(np.unique(expected)) > (5 if "negative" in name else 10)


# Projections have only the default, the distance to a fixed point.
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("Projection")])
def test_subdifferential_distance_is_that_of_the_definition(x64, name):
    case = CASES[name]
    regularizer = case.regularizer.resolve("dense/kernel", case.shape)
    psi = case.definition(np.float64)
    pairs = list(points(case, np.float64))
    ws, slopes = (np.array(x) for x in zip(*pairs, strict=True))
    if isinstance(psi, reference.Levels):
        # Avoid the middle of two levels. It is a peak with two slopes and never a minimiser.
        gaps = np.sort(np.abs(ws[..., None] - np.asarray(psi.levels, float)), axis=-1)
        ws = np.where(gaps[..., 0] == gaps[..., 1], ws + 0.01, ws)
    for weight in (0.0, 0.2, 1.7):
        found = jax.jit(jax.vmap(regularizer.subdifferential_distance, (0, 0, None)))(ws, slopes, weight)
        for w, slope, distance in zip(ws, slopes, np.asarray(found), strict=True):
            if weight == 0 and (case.is_indicator or "negative" in name):
                continue  # without a weight there is no constraint
            distances = psi.distances(reference.wide(w), reference.wide(slope), weight)
            np.testing.assert_allclose(float(distance), float(reference.norm(distances)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("Projection")])
def test_default_subdifferential_distance_vanishes_where_the_true_one_does(x64, name):
    problems, solutions = solved(name, rj.ClosedForm(), "scalar", np.float64)
    case = CASES[name]

    def distance(w, slope, weight):
        return case.regularizer.subdifferential_distance(w, slope, weight)

    slopes = problems.rhs - problems.metric[:, None, None] * solutions.value
    zero = np.asarray(jax.jit(jax.vmap(distance))(solutions.value, slopes, problems.weight))
    size = np.linalg.norm(slopes.reshape(len(slopes), -1), axis=1)
    np.testing.assert_array_less(zero, 1e-13 * (size + 1))
    rng = np.random.default_rng(0)
    moved = slopes + rng.normal(size=slopes.shape)
    psi = case.definition(np.float64)
    found = np.asarray(jax.jit(jax.vmap(distance))(solutions.value, moved, problems.weight))
    truth = [
        reference.norm(psi.distances(reference.wide(w), reference.wide(s), 1.0))
        for w, s in zip(solutions.value, moved, strict=True)
    ]
    np.testing.assert_array_equal(found > 1e-9, np.array(truth, float) > 1e-9)
    assert np.sum(found > 1e-9) > 20
    if case.regularizer.convex:
        # The residual of the fixed point is at most the true distance, because the prox is nonexpansive.
        assert np.all(found <= np.array(truth, float) + 1e-12)


@every_dtype
@pytest.mark.parametrize(("name", "metric"), EXACT)
def test_exact_solvers_leave_a_kkt_residual_at_rounding(name, metric, dtype):
    case = CASES[name]
    for solver in case.exact_solvers(metric, dtype):
        problems, solutions = solved(name, solver, metric, dtype)
        assert solutions.value.dtype == dtype
        assert np.all(solutions.converged), solver
        limit = rounding(name) if not isinstance(solver, rj.NewtonRaphson) else 6
        np.testing.assert_array_less(relative_residuals(case, problems, solutions.value), limit, str(solver))
        if not case.is_indicator and case.regularizer.elementwise and name not in ("Null", "Binary"):
            assert 0.1 < np.mean(solutions.value == 0) < 0.9  # some entries are zero and some are not


def proximal_rounding(case, rhs, metric, w, start):
    """The size of the terms that an iteration rounds: the step is added to z / theta, not to metric z."""
    regularizer = case.regularizer.resolve("dense/kernel", case.shape)
    largest = np.max(metric, axis=regularizer.inner_axes(w.ndim), keepdims=True)
    z = np.maximum(np.abs(w), np.abs(start)) if np.all(largest == metric) else np.abs(w)  # a single step from the start
    return reference.norm(np.abs(reference.wide(rhs)) + largest * z)


# Psi of whole leaves takes thousands of iterations over 8 decades.
FAR = [(name, "8 decades") for name, case in CASES.items() if not (case.is_grouped or case.regularizer.elementwise)]


@every_dtype
@pytest.mark.parametrize(
    ("name", "metric"),
    [
        pytest.param(name, metric, marks=pytest.mark.slow if (name, metric) in FAR else ())
        for name in CASES
        for metric in DECADES
    ],
)
def test_proximal_gradient_is_within_its_tolerance_where_it_says_so(name, metric, dtype):
    case = CASES[name]
    solver = proximal_gradient(dtype)
    problems, solutions = solved(name, solver, metric, dtype)
    psi, eps = case.definition(dtype), np.finfo(dtype).eps
    assert np.all(solutions.converged == (solutions.num_steps < solver.max_steps))
    if metric != "8 decades":
        assert np.all(solutions.converged)
    for index in np.flatnonzero(solutions.converged):
        rhs, diagonal, weight, start = (x[index] for x in problems)
        diagonal = np.broadcast_to(reference.wide(diagonal), rhs.shape)
        w = psi.near(solutions.value[index], eps)
        residual = reference.norm(reference.kkt_distances(psi, w, rhs, diagonal, weight))
        slack = rounding(name) * eps * proximal_rounding(case, rhs, diagonal, w, start)
        assert residual <= solver.tolerance * reference.norm(rhs) + slack
        assert residual <= solutions.residual[index] * (1 + 100 * eps) + slack
        # The objective does not increase, which is the other half of condition (7).
        there = reference.objective(psi, start, rhs, diagonal, weight)
        here = reference.objective(psi, solutions.value[index], rhs, diagonal, weight)
        assert here <= there + 30 * eps * (np.abs(there) + np.abs(here)) if np.isfinite(there) else np.isfinite(here)


@every_dtype
@pytest.mark.parametrize("name", [name for name in CONVEX if (name, "2 decades") in EXACT])
def test_proximal_gradient_ends_at_the_exact_minimiser_over_2_decades(name, dtype):
    case = CASES[name]
    solvers = case.exact_solvers("2 decades", dtype)
    problems, exact = solved(name, solvers[-1], "2 decades", dtype)
    solver = proximal_gradient(dtype)
    _, found = solved(name, solver, "2 decades", dtype)
    axes = tuple(range(1, exact.value.ndim))
    error = np.linalg.norm((found.value - exact.value).reshape(len(exact.value), -1), axis=1)
    # The problem is strongly convex, so the distance is at most the residual over the smallest metric.
    norms = np.linalg.norm(problems.rhs.reshape(len(error), -1), axis=1)
    slack = 10 * np.finfo(dtype).eps
    assert np.all(error <= (solver.tolerance + slack) * norms / np.min(problems.metric, axis=axes))


@functools.cache
def batch(name):
    """(case, solver, problems, solutions) with the best solver of a case, over 8 decades if it is exact."""
    case = CASES[name]
    for metric in ("8 decades", "2 decades"):
        solvers = case.exact_solvers(metric, np.float64)
        if solvers or metric == "2 decades":
            solver = solvers[0] if solvers else proximal_gradient(np.float64)
            return case, solver, *solved(name, solver, metric, np.float64)
    raise AssertionError


@pytest.mark.parametrize("name", CONVEX)
def test_three_point_inequality(x64, name):
    """`Q(w) + 1/2 ||z - w||^2_metric <= Q(z)` for every z: w minimises Q, which is strongly convex."""
    case, _, problems, solutions = batch(name)
    psi = case.definition(np.float64)
    rng = np.random.default_rng(5)
    num_finite = 0
    for index in range(len(problems.rhs)):
        rhs, metric, weight = (reference.wide(x[index]) for x in problems[:3])
        w = reference.wide(solutions.value[index])
        lowest = reference.objective(psi, w, rhs, metric, weight)
        assert np.isfinite(lowest)
        residual = solutions.residual[index] + 40 * np.finfo(float).eps * reference.norm(np.abs(rhs) + metric * abs(w))
        center = rhs / metric
        competitors = [0 * w, center, (w + center) / 2, np.sign(w), np.clip(center, 0.25, 1.0), abs(w)]
        competitors += [w * (1 + size * rng.normal(size=w.shape)) for size in (1e-3, 0.1, 1.0)]
        competitors += [w + size * rng.normal(size=w.shape) for size in (1e-3, 0.1, 1.0)]
        others = solutions.value[rng.integers(0, len(problems.rhs), 3)]  # these are in the set if psi is an indicator
        competitors += [*others, (w + others[0]) / 2]
        for z in competitors:
            there = reference.objective(psi, z, rhs, metric, weight)
            num_finite += np.isfinite(there)
            growth = np.sum(metric * (z - w) ** 2) / 2
            slack = residual * reference.norm(z - w)
            # Singular values, and so psi, are only in float64. Sets have a slack of their own.
            slack += 1e-13 * (np.abs(lowest) + growth)
            if case.is_indicator:
                slack += 2e-10 * reference.norm(rhs - metric * w) * (1 + reference.norm(w))
            assert lowest + growth <= there + slack
    assert num_finite > 3 * len(problems.rhs)


@pytest.mark.parametrize("name", CONVEX)
def test_moreau_identity(x64, name):
    """p = prox_f(x) and y = x - p = prox_f*(x) if and only if f(p) + f*(y) = <p, y>; the reference defines f*."""
    case = CASES[name]
    problems, solutions = solved(name, rj.ClosedForm(), "scalar", np.float64)
    psi = case.definition(np.float64)
    num_inner = 0
    for rhs, metric, weight, p in zip(*problems[:3], solutions.value, strict=True):
        x, weight = rhs / metric, weight / metric
        y = reference.wide(x) - p
        inner = np.sum(p * y)
        slack = 8 * rounding(name) * np.finfo(float).eps * reference.norm(x)
        conjugate = psi.conjugate(y, weight, slack)
        assert np.isfinite(conjugate)
        assert abs(weight * psi.value(p) + conjugate - inner) <= slack * (1 + reference.norm(x))
        num_inner += reference.norm(y) > 0 and reference.norm(p) > 0
    assert num_inner > 10 or name == "Null"


@every_dtype
@every_case
def test_scalar_metric_is_the_ordinary_prox_of_the_center(name, dtype):
    case = CASES[name]
    eps = np.finfo(dtype).eps
    problems, closed = solved(name, rj.ClosedForm(), "scalar", dtype)
    scalar = problems.metric.reshape([-1] + [1] * len(case.shape))
    weight = problems.weight / problems.metric
    ordinary = prox(case, problems.rhs / scalar, weight)
    # A difference of eps in x can change a zero, and both answers are right. So compare distances, not zeros.
    size = np.max(np.abs(problems.rhs / scalar), axis=tuple(range(1, ordinary.ndim)), keepdims=True) + 1
    # If two minima are equally deep, rounding decides. None of these problems is near such a point.
    assert np.max(np.abs(ordinary - closed.value) / size) <= 40 * eps
    for solver in case.exact_solvers("scalar", dtype)[1:]:
        _, other = solved(name, solver, "scalar", dtype)
        assert np.max(np.abs(ordinary - other.value) / size) <= 40 * eps
    # Solvers for a diagonal metric get a constant one.
    for solver in case.exact_solvers("8 decades", dtype)[:1]:
        metric = np.broadcast_to(scalar, problems.rhs.shape)
        other = solve(case, solver, problems._replace(metric=metric))
        assert np.max(np.abs(ordinary - other.value) / size) <= 40 * eps


def both(first, second, shape, dtype, metric="2 decades", factor=1.0):
    """(problems, solutions): the solutions of two regularizers for the same problems, with their default solvers."""
    problems = solved("L1", rj.ClosedForm(), metric, dtype)[0]
    problems = problems._replace(weight=problems.weight * dtype(factor))
    problems = type(problems)(*(x if x.ndim == 1 else x.reshape(len(x), *shape) for x in problems))
    values = []
    for regularizer in (first, second):
        case = CASES["L1"]._replace(regularizer=regularizer, shape=shape)
        solver = rj.default_solver(regularizer, "scalar" if metric == "scalar" else "diagonal")
        if isinstance(regularizer, rj.NuclearNorm) and metric != "scalar":
            solver = proximal_gradient(dtype)
        values.append(solve(case, solver, problems).value)
    return problems, values


MANY = (24, 1)
LONG = (1, 24)


@every_dtype
@pytest.mark.parametrize(
    ("first", "second", "shape"),
    [
        (rj.GroupLasso((0, 1)), rj.L1(), SHAPE),
        (rj.GroupLasso((0, 1), group_weight=3.0), rj.L1(factor=3.0), SHAPE),
        (rj.GroupLasso(), rj.L1(), MANY),
        (rj.SparseGroupLasso((0, 1), l1_ratio=0.3), rj.L1(), SHAPE),
        (rj.SparseGroupLasso(l1_ratio=0.0), rj.GroupLasso(), SHAPE),
        (rj.SparseGroupLasso(l1_ratio=1.0), rj.L1(), SHAPE),
        (rj.GroupMCP((0, 1), omega=0.7), rj.MCP(omega=0.7), SHAPE),
        (rj.GroupMCP((0, 1), gamma=0.7), rj.MCP(omega=0.7), SHAPE),
        (rj.SparseGroupMCP(l1_ratio=0.0, omega=0.7), rj.GroupMCP(omega=0.7), SHAPE),
        (rj.SparseGroupMCP(l1_ratio=1.0, omega=0.7), rj.L1(), SHAPE),
        (rj.GroupMCP(group_weight=1.0, omega=1e30), rj.GroupLasso(group_weight=1.0), SHAPE),
        (rj.GroupMCP(gamma=0.7), rj.GroupMCP(omega=0.7 * np.sqrt(6)), SHAPE),
        (rj.Quantized((0.0,)), rj.L1(), SHAPE),
        (rj.Quantized((-1.0, 1.0)), rj.Binary(), SHAPE),
        (rj.Box(-np.inf, np.inf), rj.Null(), SHAPE),
    ],
    ids=repr,
)
def test_regularizers_that_are_one_another_have_the_same_solution(first, second, shape, dtype):
    problems, (one, other) = both(first, second, shape, dtype)
    bound = 16 * np.finfo(dtype).eps * np.abs(problems.rhs / problems.metric)
    bound = np.max(bound, axis=-1, keepdims=True) if one.shape[-1] > 1 else bound
    assert np.all(np.abs(one - other) <= bound)
    assert np.mean(one == 0) > 0.05 or isinstance(second, rj.Null) or isinstance(first, rj.Quantized)


@every_dtype
@pytest.mark.parametrize("metric", ["scalar", "2 decades"])
@pytest.mark.parametrize("shape", [LONG, MANY])
def test_nuclear_norm_of_a_vector_is_the_group_norm(metric, shape, dtype):
    # The weights are for groups of a few entries. Five times these weights make some of the groups zero.
    problems, (one, other) = both(rj.NuclearNorm(), rj.GroupLasso((), group_weight=1.0), shape, dtype, metric, 5.0)
    tolerance = 20 * np.finfo(dtype).eps if metric == "scalar" else proximal_gradient(dtype).tolerance
    smallest = problems.metric if problems.metric.ndim == 1 else np.min(problems.metric, axis=(1, 2))
    error = np.linalg.norm((one - other).reshape(len(one), -1), axis=1)
    assert np.all(error <= 1.1 * tolerance * np.linalg.norm(problems.rhs.reshape(len(one), -1), axis=1) / smallest)
    assert 0.05 < np.mean(np.all(other == 0, axis=(1, 2))) < 0.95


@every_dtype
@every_case
def test_without_a_weight_the_solution_is_the_center(name, dtype):
    case = CASES[name]
    for metric in ("scalar", "2 decades"):
        problems = solved(name, proximal_gradient(dtype), metric, dtype)[0]
        for solver in case.exact_solvers(metric, dtype):
            if isinstance(solver, rj.NewtonRaphson):
                continue
            value = solve(case, solver, problems._replace(weight=0 * problems.weight)).value
            scalar = problems.metric.reshape(problems.metric.shape + (1,) * (value.ndim - problems.metric.ndim))
            np.testing.assert_allclose(value, problems.rhs / scalar, rtol=4 * np.finfo(dtype).eps)


@every_dtype
@pytest.mark.parametrize("metric", ["scalar", "diagonal"])
def test_strength_zero_gives_the_center_by_its_own_formula(metric, dtype):
    rng = np.random.default_rng(0)
    # One optimizer has all regularizers.
    leaves = {f"layer{i}": {"kernel": np.zeros(case.shape, dtype)} for i, case in enumerate(CASES.values())}
    anchor = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(dtype), leaves)
    linear = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(dtype), leaves)
    for layer in linear.values():
        layer["kernel"][0] = 0
    shapes = jax.tree.map(lambda x: x.shape if metric == "diagonal" else (), leaves, is_leaf=lambda x: x is None)
    diagonal = jax.tree.map(
        lambda shape: np.asarray(rng.uniform(0.1, 10, size=shape), dtype),
        shapes,
        is_leaf=lambda shape: isinstance(shape, tuple),
    )
    regularizers = {f"layer{i}/kernel": case.regularizer for i, case in enumerate(CASES.values())}
    with jax.enable_x64(dtype == np.float64):
        model = rj.QuadraticModel(linear, anchor, diagonal, np.asarray(2, dtype))
        optimizer = rj.proximal_point(regularizers, 0.0)
        value, _ = jax.jit(optimizer.update)(model, optimizer.init(anchor), anchor)
    for name, layer in zip(CASES, leaves, strict=True):
        found, w = np.asarray(value[layer]["kernel"]), anchor[layer]["kernel"]
        center = w - linear[layer]["kernel"] / diagonal[layer]["kernel"]
        # Divisions and differences round the same way, except that XLA may multiply by the reciprocal of a scalar
        # metric.
        limit = 0 if metric == "diagonal" else 2 * np.finfo(dtype).eps * (np.abs(w) + np.abs(center))
        assert np.all(np.abs(found - center) <= limit), name
        # Entries without a gradient keep their bits.
        np.testing.assert_array_equal(found[0], w[0])


@every_dtype
@every_case
def test_prox_without_a_weight_is_the_identity_to_the_bit(name, dtype):
    case = CASES[name]
    rng = np.random.default_rng(0)
    shape = (60, *case.shape)
    x = (rng.normal(size=shape) * 10.0 ** rng.uniform(-9, 3, size=shape)).astype(dtype)
    np.testing.assert_array_equal(prox(case, x, np.zeros(60, dtype)), x)


@every_dtype
@pytest.mark.parametrize(
    ("name", "metric"),
    [
        pytest.param(name, metric, marks=pytest.mark.slow if (name, metric) in FAR else ())
        for name in CASES
        if hasattr(CASES[name].definition(float), "is_zero")
        for metric in ("scalar", "8 decades")
    ],
)
def test_weight_just_over_the_largest_gives_bitwise_zero_and_one_just_under_does_not(name, metric, dtype):
    case = CASES[name]
    eps = np.finfo(dtype).eps
    psi = case.definition(dtype)
    solvers = [s for s in case.exact_solvers(metric, dtype) if not isinstance(s, rj.NewtonRaphson)]
    # Proximal gradient takes long next to the border, so it gets a clear margin.
    margin = 40 * eps if solvers else 0.1
    solver = solvers[-1] if solvers else proximal_gradient(dtype)
    # Use a third of the problems, in a batch of the size that is compiled already.
    problems = jax.tree.map(lambda x: np.concatenate(3 * [x[:20]]), solved(name, solver, metric, dtype)[0])
    pairs = zip(problems.rhs[:20], problems.metric[:20], strict=True)
    largest = np.array(3 * [reference.largest_weight(psi, rhs, diagonal) for rhs, diagonal in pairs])
    above = solve(case, solver, problems._replace(weight=(largest * (1 + margin)).astype(dtype))).value
    np.testing.assert_array_equal(above.view(np.uint8), 0)
    below = solve(case, solver, problems._replace(weight=(largest * (1 - margin)).astype(dtype))).value
    assert np.all(np.any(below != 0, axis=tuple(range(1, below.ndim))))


SOLVERS = [rj.ClosedForm(), rj.SecularNewton(), rj.NewtonRaphson(), rj.ProximalGradient(), rj.DouglasRachford()]


@pytest.mark.parametrize("metric", ["scalar", "diagonal"])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("name", [name for name in CASES if name != "Null"])  # Null counts as no regularizer
def test_solver_that_does_not_fit_is_refused_by_name_with_the_remedy(name, solver, metric):
    case = CASES[name]
    fits = {
        rj.ClosedForm: metric == "scalar" or case.regularizer.elementwise or case.regularizer.any_metric,
        rj.SecularNewton: case.is_grouped,
        rj.NewtonRaphson: case.is_grouped and case.regularizer.convex,
        rj.ProximalGradient: True,
        rj.DouglasRachford: case.regularizer.convex,
    }[type(solver)]
    params = {"dense": {"kernel": jnp.ones(case.shape)}}
    diagonal = params if metric == "diagonal" else {"dense": {"kernel": jnp.ones([])}}

    def solve_once():
        optimizer = rj.proximal_point(case.regularizer, 0.1, solver)
        model = rj.QuadraticModel(params, params, diagonal, jnp.ones([]))
        return jax.eval_shape(lambda: optimizer.update(model, optimizer.init(params), params)[0])

    if fits:
        assert solver.why_not(case.regularizer, metric) is None
        assert solve_once()["dense"]["kernel"].shape == case.shape
        return
    named = f"{type(solver).__name__} cannot solve {type(case.regularizer).__name__}\\("
    with pytest.raises(ValueError, match=named) as error:
        solve_once()
    assert re.search(r"in a (scalar|diagonal) metric: .+; use `solver=None`.*`ProximalGradient\(\)`", str(error.value))


def test_the_default_solver_fits_every_regularizer():
    for case in CASES.values():
        for metric in ("scalar", "diagonal"):
            assert rj.default_solver(case.regularizer, metric).why_not(case.regularizer, metric) is None


def test_a_batch_is_what_single_solves_are():
    # This test makes the other tests' results for batches valid for single leaves.
    case = CASES["SparseGroupMCP"]
    problems, solutions = solved("SparseGroupMCP", rj.SecularNewton(), "8 decades", np.float32)
    for index in range(3):
        rhs, metric, weight, start = (x[index] for x in problems)
        model = rj.QuadraticModel(-rhs, np.zeros_like(rhs), metric, weight)
        value = jax.jit(lambda m, s: rj.SecularNewton().solve(m, case.regularizer, Context(s)).value)(model, start)
        np.testing.assert_allclose(value, solutions.value[index], rtol=1e-6, atol=0)
