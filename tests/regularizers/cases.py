"""Every regularizer with its independent definition, random problems of all scales, and batches of their solutions."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax as rj
from ramda_jax.solvers import Context
from tests.reference import regularizers as reference

SHAPE = (4, 6)  # in most cases the groups are rows
TALL = (3, 2, 4)  # a kernel with three axes: groups along the middle axis, or a matrix of 6 by 4
NORMAL = np.random.default_rng(0).normal(size=SHAPE)
DTYPES = (np.float32, np.float64)
DECADES = {"scalar": 0, "2 decades": 2, "8 decades": 8}


class Case(NamedTuple):
    """A regularizer, and a function from a dtype to its definition."""

    regularizer: Any
    definition: Callable
    shape: tuple[int, ...] = SHAPE

    @property
    def is_grouped(self):
        return isinstance(self.regularizer, rj.regularizers.GroupRegularizer)

    @property
    def is_indicator(self):
        return isinstance(self.regularizer, (rj.Box, rj.Projection)) or self.regularizer.any_metric

    def exact_solvers(self, metric, dtype):
        """The library's solvers that promise the minimiser. `metric` is a key of DECADES."""
        solvers = []
        if metric == "scalar" or self.regularizer.elementwise or self.regularizer.any_metric:
            solvers.append(rj.ClosedForm())
        if self.is_grouped:
            solvers.append(rj.SecularNewton())
            if self.regularizer.convex:
                # The default tolerances are for float32. A group's residual is half of h times the weight.
                solvers.append(rj.NewtonRaphson(max_steps=1000, atol=float(4 * np.finfo(dtype).eps), rtol=0.0))
        return solvers


def fixed(definition):
    return lambda dtype: definition


def set_slack(dtype):
    return 1e-10 if dtype == np.float64 else 1e-5


def over_rows(omega_g, **settings):
    return fixed(reference.Groups((1,), omega_g, **settings))


def over_middle(omega_g, **settings):
    return fixed(reference.Groups((0, 2), omega_g, **settings))


def half_space(x):
    return optax.projections.projection_halfspace(x, NORMAL.astype(x.dtype), 0.5)


l1_ball = functools.partial(optax.projections.projection_l1_ball, scale=1.5)
ROWS, ENTRIES = np.arange(4)[:, None] + np.zeros(SHAPE, int), np.arange(24).reshape(SHAPE)
MIDDLE = np.arange(2)[:, None] + np.zeros(TALL, int)
WEIGHTS = np.array([[0.5], [2.0], [3.0], [1.0]])
ROOT6, ROOT24 = np.sqrt(6), np.sqrt(24)

CASES = {
    "L1": Case(rj.L1(factor=0.7), fixed(reference.L1(0.7))),
    "GroupLasso": Case(rj.GroupLasso(), over_rows(ROOT6)),
    "GroupLasso of kernels": Case(rj.GroupLasso("input", group_weight="sqrt_layer_size"), over_middle(ROOT24), TALL),
    "SparseGroupLasso": Case(rj.SparseGroupLasso(l1_ratio=0.4), over_rows(ROOT6, l1_ratio=0.4)),
    "MCP": Case(rj.MCP(omega=1.5), fixed(reference.MCP(1.5))),
    "GroupMCP omega": Case(rj.GroupMCP(omega=0.8), over_rows(ROOT6, omega=0.8)),
    "GroupMCP gamma": Case(rj.GroupMCP("input", group_weight=2.0, gamma=0.6), over_middle(2.0, omega=0.6 * 2.0), TALL),
    "SparseGroupMCP": Case(
        rj.SparseGroupMCP(group_weight=1.0, omega=1.3, l1_ratio=0.3), over_rows(1.0, omega=1.3, l1_ratio=0.3)
    ),
    "NuclearNorm": Case(rj.NuclearNorm(factor=2.0), fixed(reference.NuclearNorm(4, 2.0))),
    "NuclearNorm of kernels": Case(rj.NuclearNorm(), fixed(reference.NuclearNorm(6)), TALL),
    "Box": Case(rj.Box(-0.5, 1.0), fixed(reference.Box(-0.5, 1.0))),
    "Box unbounded": Case(rj.Box(0.25, np.inf), fixed(reference.Box(0.25, np.inf))),
    "Binary": Case(rj.Binary(), fixed(reference.Levels([-1, 1]))),
    "Quantized": Case(rj.Quantized((-1.0, 0.3, 0.0, 2.0)), lambda dtype: reference.Levels([-1, 0, 0.3, 2], dtype)),
    "TopGroups": Case(rj.TopGroups(0.5), fixed(reference.Supports.of_blocks(ROWS, 2))),
    "TopGroups of kernels": Case(rj.TopGroups(0.2), fixed(reference.Supports.of_blocks(MIDDLE, 1)), TALL),
    "TopEntries": Case(rj.TopEntries(0.9), fixed(reference.Supports.of_blocks(ENTRIES, 2))),
    "NofM": Case(rj.NofM(2, 4), fixed(reference.Supports.of_blocks(ENTRIES, 2, ENTRIES % 6))),
    "NofM of outputs": Case(rj.NofM(1, 3, axis=-1), fixed(reference.Supports.of_blocks(ENTRIES, 1, ENTRIES // 3))),
    "L1 non-negative": Case(rj.L1(0.7, non_negative=True), fixed(reference.L1(0.7, non_negative=True))),
    "GroupLasso non-negative": Case(rj.GroupLasso(non_negative=True), over_rows(ROOT6, non_negative=True)),
    "SparseGroupLasso non-negative": Case(
        rj.SparseGroupLasso("input", 1.5, 0.4, non_negative=True), over_rows(1.5, l1_ratio=0.4, non_negative=True)
    ),
    "GroupLasso of weights": Case(rj.GroupLasso("input", WEIGHTS), over_rows(WEIGHTS)),
    "SparseGroupMCP of weights": Case(
        rj.SparseGroupMCP("input", WEIGHTS, omega=1.3, l1_ratio=0.3),
        over_rows(WEIGHTS, omega=1.3, l1_ratio=0.3),
    ),
    "SparseGroupLasso scaled": Case(
        2.0 * rj.SparseGroupLasso(l1_ratio=0.4),
        fixed(reference.Scaled(reference.Groups((1,), ROOT6, l1_ratio=0.4), 2.0)),
    ),
    "MCP scaled": Case(0.5 * rj.MCP(omega=1.5), fixed(reference.Scaled(reference.MCP(1.5), 0.5))),
    "Null": Case(rj.Null(), fixed(reference.Null())),
    "Projection non-negative": Case(
        rj.Projection(optax.projections.projection_non_negative), fixed(reference.NonNegative())
    ),
    "Projection simplex": Case(
        rj.Projection(optax.projections.projection_simplex), lambda dtype: reference.Simplex(set_slack(dtype))
    ),
    "Projection l1 ball": Case(rj.Projection(l1_ball), lambda dtype: reference.L1Ball(1.5, set_slack(dtype))),
    "Projection l2 ball": Case(
        rj.Projection(optax.projections.projection_l2_ball), lambda dtype: reference.L2Ball(False, set_slack(dtype))
    ),
    "Projection half space": Case(
        rj.Projection(half_space), lambda dtype: reference.HalfSpace(NORMAL.astype(dtype), 0.5, set_slack(dtype))
    ),
    "Projection sphere": Case(
        rj.Projection(optax.projections.projection_l2_sphere, is_convex=False),
        lambda dtype: reference.L2Ball(True, set_slack(dtype)),
    ),
}


class Problems(NamedTuple):
    """A batch of `argmin 1/2 ||w||^2_metric - <rhs, w> + weight psi(w)`, as NumPy arrays of one dtype."""

    rhs: np.ndarray
    metric: np.ndarray
    weight: np.ndarray
    start: np.ndarray


@functools.cache
def random_problems(shape, metric, dtype, seed=0, num=60, is_large=False):
    """Problems whose metric spans DECADES[metric] decades; about half of the solutions' entries or groups are zero."""
    rng = np.random.default_rng(seed)
    decades = DECADES[metric]
    shapes = [] if metric == "scalar" else shape
    scalar_shape = [num] + [1] * len(shape)
    scale = 10.0 ** rng.uniform(-2, 2, size=scalar_shape[: 1 + len(shapes)])
    diagonal = scale * 10.0 ** (-decades * rng.uniform(size=[num, *shapes]))
    expanded = diagonal.reshape(diagonal.shape + (1,) * (len(shape) + 1 - diagonal.ndim))
    # rhs is of the size of the metric or its root. About a quarter of the entries are much weaker.
    rhs = 2 * rng.normal(size=[num, *shape]) * expanded ** rng.choice([0.5, 1], size=scalar_shape)
    for axis in range(1, len(shape) + 1):
        sizes = [n if i in (0, axis) else 1 for i, n in enumerate([num, *shape])]
        rhs *= 10.0 ** (-2 * (rng.uniform(size=sizes) < 0.15))
    typical = np.median(np.abs(rhs).reshape(num, -1), axis=1)
    weight = typical * rng.choice([0.01, 0.1, 0.3, 1.0, 3.0, 10.0], size=num)
    start = rng.normal(size=[num, *shape])
    return Problems(*(np.asarray(x, dtype) for x in (rhs, diagonal, weight, start)))


@functools.partial(jax.jit, static_argnames=("regularizer", "solver"))
def _solve(problems, regularizer, solver):
    def solution(rhs, metric, weight, start):
        # The anchor is 0, so the model's rhs is exactly the given one. The scale makes tolerances relative to ||rhs||.
        model = rj.QuadraticModel(-rhs, jnp.zeros_like(rhs), metric, weight, jnp.linalg.norm(rhs))
        return solver.solve(model, regularizer, Context(start))

    return jax.vmap(solution)(*problems)


def solve(case, solver, problems):
    """Solutions of a batch, as NumPy arrays."""
    if isinstance(solver, (rj.NewtonRaphson, rj.ProximalGradient)):
        # Pass a scalar metric as a diagonal one, which saves a compilation.
        expanded = problems.metric.reshape(problems.metric.shape + (1,) * (problems.rhs.ndim - problems.metric.ndim))
        problems = problems._replace(metric=np.broadcast_to(expanded, problems.rhs.shape))
    with jax.enable_x64(problems.rhs.dtype == np.float64):
        regularizer = case.regularizer.resolve("dense/kernel", case.shape)
        return jax.tree.map(np.asarray, _solve(problems, regularizer, solver))


@functools.partial(jax.jit, static_argnames="regularizer")
def _prox(regularizer, x, weight):
    return jax.vmap(regularizer.prox)(x, weight)


def prox(case, x, weight):
    """The proxes of a batch of points with one weight each, as NumPy arrays of one dtype."""
    with jax.enable_x64(x.dtype == np.float64):
        return np.asarray(_prox(case.regularizer.resolve("dense/kernel", case.shape), x, weight))


@functools.cache
def solved(name, solver, metric, dtype):
    """(problems, solutions) of the batch that the tests of a case share."""
    problems = random_problems(CASES[name].shape, metric, dtype)
    return problems, solve(CASES[name], solver, problems)


def relative_residuals(case, problems, values):
    """The largest KKT residual of a block by the definition, in units of machine eps times the size of its terms."""
    dtype = problems.rhs.dtype
    psi = case.definition(dtype)
    eps = np.finfo(dtype).eps
    worst = []
    for rhs, metric, weight, w in zip(*problems[:3], values, strict=True):
        w = psi.near(w, eps)
        distances = reference.kkt_distances(psi, w, rhs, metric, weight)
        size = psi.block_norms(np.abs(reference.wide(rhs)) + metric * np.abs(w))
        worst.append(np.max(distances / np.maximum(size, np.finfo(dtype).tiny)) / eps)
    return np.array(worst)
