"""The prox of a regularizer on a tree, differentiable, for use without an optimizer."""

import functools
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.numerics import sums_dtype
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.regularizers.nuclear_norm import NuclearNorm
from ramda_jax.solvers.base import Context
from ramda_jax.solvers.douglas_rachford import DouglasRachford
from ramda_jax.solvers.proximal_gradient import ProximalGradient
from ramda_jax.solvers.select import default_solver
from ramda_jax.structure.assignment import assign
from ramda_jax.structure.belonging import check_belongs
from ramda_jax.structure.packing import packing_of
from ramda_jax.structure.paths import named_leaves
from ramda_jax.subproblem.coupling import uncoupled
from ramda_jax.subproblem.running.batches import solve_leaf
from ramda_jax.typing import RegularizerSpec, Scalar
from ramda_jax.validation import check_no_schedule, check_non_negative, check_params, check_positive


def prox(regularizer: RegularizerSpec, params: Any, strength: Scalar, metric: Any = None) -> Any:
    """The proximal operator of a regularizer on a tree, in the Euclidean or in a diagonal metric.

        argmin_W 1/2 ||W - params||^2_metric + strength * psi(W)

    This is the subproblem that the methods solve at every step. It can be jitted and batched. It is differentiable in
    params, strength and metric wherever the solution is; the derivative comes from the equation of the exact solution,
    not from a solver's iterations. At a kink (a group at the border of being zero) it is the derivative of one side.
    For a hard target it is the derivative with the support held fixed.

    Args:
        regularizer: which leaf gets which psi, as the methods take it: None, a `Regularizer`, a mapping of patterns, or
            a tree. A regularizer alone takes leaves of two axes or more, a bare array of one axis or more.
        params: a tree of arrays of floating-point numbers.
        strength: lambda >= 0, a number, which may be traced. With 0 the result is params.
        metric: the positive diagonal: None for 1; one number for all leaves; or a tree of the structure of params with,
            for each leaf, a number or an array of its shape. For a psi with no closed form and no secular equation,
            an array means iterations, at most 1,000, down to rounding: `DouglasRachford` for
            `NuclearNorm`, else `ProximalGradient`.

    Returns:
        A tree like params, of its dtypes, computed in at least float32.

    Raises:
        ValueError: strength is negative; a regularizer or the metric does not fit a leaf; in a derivative, psi is
            solved by iterations.
        TypeError: regularizer is not a specification of regularizers; params are not floating-point arrays.

    Example:
        >>> import jax, jax.numpy as jnp, ramda_jax
        >>> rows = ramda_jax.GroupLasso(group_weight=1.0)
        >>> x = jnp.array([[3.0, 4.0], [0.3, 0.4]])
        >>> ramda_jax.prox(rows, x, 1.0)
        Array([[2.4, 3.2],
               [0. , 0. ]], dtype=float32)
        >>> jax.grad(lambda strength: jnp.sum(ramda_jax.prox(rows, x, strength)))(1.0)
        Array(-1.4000001, dtype=float32, weak_type=True)

    References:
        Moreau, `Proximité et dualité dans un espace hilbertien`, 1965. Bertrand and others, `Implicit
        differentiation for fast hyperparameter selection in non-smooth convex learning`, 2022, arXiv:2105.01637.
    """
    check_non_negative("strength", strength, schedules=False)
    check_params(named_leaves(params))
    packing = packing_of(regularizer)
    if packing is not None:
        numbers = _metrics(metric, params)
        if jax.tree.structure(metric) == jax.tree.structure(params):
            filled = map(jnp.broadcast_to, numbers, map(jnp.shape, jax.tree.leaves(params)))
            metric = packing.pack(jax.tree.structure(params).unflatten(filled))
        plain: Any = dict(cast(Mapping[str, Any], regularizer))
        return packing.unpack(prox(plain, packing.pack(params), strength, metric), params)
    leaves = assign(regularizer, params)
    subproblems = []
    for (_, leaf, resolved), diagonal in zip(leaves, _metrics(metric, params), strict=True):
        dtype = sums_dtype(leaf.dtype)
        subproblems.append((resolved, leaf.astype(dtype), jnp.asarray(diagonal, dtype)))
    alone = uncoupled([(resolved, x * diagonal, diagonal) for resolved, x, diagonal in subproblems])
    solved = []
    for (_, leaf, _), resolved, (_, x, diagonal) in zip(leaves, alone, subproblems, strict=True):
        w = x if resolved is None else _solution(resolved, x, diagonal, jnp.asarray(strength, x.dtype))
        solved.append(w.astype(leaf.dtype))
    return jax.tree.structure(params).unflatten(solved)


def _metrics(metric, params):
    """The metric of each leaf, in flattening order."""
    number = len(jax.tree.leaves(params))
    if metric is None:
        return [1.0] * number
    check_no_schedule("metric", metric, "use a positive number, or a tree of positive arrays.")
    if jax.tree.structure(metric) == jax.tree.structure(0) and jnp.ndim(metric) == 0:
        check_positive("metric", metric)
        return [metric] * number
    # A number is a metric for a leaf of any shape.
    numbers = jax.tree.leaves(metric)
    if len(numbers) == number:
        filled = [p if jnp.ndim(m) == 0 else m for m, p in zip(numbers, jax.tree.leaves(params), strict=True)]
        metric = jax.tree.structure(metric).unflatten(filled)
    check_belongs(
        "The `metric`", metric, "the parameters", params, "give one number, or for each leaf a number or its shape."
    )
    return numbers


def _solution(regularizer, x, metric, weight):
    """The minimiser for one leaf; x itself if the weight is 0."""
    if isinstance(regularizer, GroupRegularizer):
        w = _of_groups(regularizer, x * metric, metric, weight)
    elif regularizer.elementwise or regularizer.any_metric:
        w = regularizer.solve_scaled(x * metric, metric, weight)
    elif metric.ndim > 0:
        w = _by_iterations(regularizer, x, metric, weight)
    elif isinstance(regularizer, NuclearNorm):
        w = _of_singular_values(regularizer, x, weight / metric)
    else:
        w = regularizer.prox(x, weight / metric)
    return jnp.where(weight == 0, x, w)


def _solved(regularizer, rhs, metric, weight, start):
    """The solution by the default solver."""
    model = QuadraticModel(-rhs, jnp.zeros_like(rhs), metric, weight)
    solver = default_solver(regularizer, "scalar" if metric.ndim == 0 else "diagonal")
    # The default solver of a step stops early, because the next step continues. Here there is no next step.
    if isinstance(solver, ProximalGradient):
        solver = ProximalGradient(max_steps=1000, tolerance=0.0)
    elif isinstance(solver, DouglasRachford):
        solver = DouglasRachford(max_steps=1000, rtol=0.0)
    return solve_leaf(solver, regularizer, model, Context(start)).value


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_groups(regularizer, rhs, metric, weight):
    return _solved(regularizer, rhs, metric, weight, jnp.zeros_like(rhs))


@_of_groups.defjvp
def _of_groups_jvp(regularizer, primals, tangents):
    """The derivative of `(metric + s) w = reduced(rhs)`, with s = P'(r) / r and r = ||w||, group by group.

    Its component along w is an equation for dr. The coefficient of dr is

        sum_g w^2 / r^2 (metric + P''(r)) / (metric + s)

    which is positive at a minimum of second order. A zero group stays zero.
    """
    rhs, metric, weight = primals
    d_rhs, d_metric, d_weight = tangents
    w = _of_groups(regularizer, rhs, metric, weight)
    axes = regularizer.inner_axes(rhs.ndim)
    alive = regularizer.support(w)

    def over_groups(x):
        return jnp.sum(x, axis=axes, keepdims=True)

    # Zero groups are computed with ones: `where` below does not select them, but a NaN there would spoil derivatives.
    r = regularizer.norms(jnp.where(alive, w, 1))
    penalty = regularizer.leaf_penalty(rhs.shape, jnp.ones([], rhs.dtype))
    shift = penalty.derivative(r) / r
    bend = 0.0 if penalty.knee is None else jnp.where(r < penalty.knee, -penalty.concavity * weight, 0)
    _, d_reduced = jax.jvp(regularizer.reduced, (rhs, weight), (d_rhs, d_weight))
    denominator = jnp.where(alive, metric + weight * shift, 1)
    d_free = (d_reduced - w * (d_metric + shift * d_weight)) / denominator
    direction = w / r
    coefficient = over_groups(jnp.square(direction) * (metric + bend) / denominator)
    d_r = over_groups(direction * d_free) / jnp.where(alive, coefficient, 1)
    d_w = d_free - direction / denominator * (bend - weight * shift) * d_r
    return w, jnp.where(alive, d_w, 0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_singular_values(regularizer, x, weight):
    return regularizer.prox(x, weight)


@_of_singular_values.defjvp
def _of_singular_values_jvp(regularizer, primals, tangents):
    """The derivative of a function f of the singular values, without that of the (not unique) singular vectors.

    In the singular bases, K = U^T dX V, it is (f_i - f_j) / (s_i - s_j) times the symmetric part of K, plus (f_i + f_j)
    / (s_i + s_j) times the antisymmetric part. Outside of these bases the factor is f_i / s_i.
    """
    (x, weight), (d_x, d_weight) = primals, tangents
    u, s, vt = jnp.linalg.svd(regularizer.matrix(x), full_matrices=False)
    v, d_x = vt.T, regularizer.matrix(d_x)
    is_kept = s > weight * regularizer.factor
    f = jnp.where(is_kept, s - weight * regularizer.factor, 0)

    def quotient(a, b):
        return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))

    # The quotient is 1 for two kept values and 0 for two others. If only one is kept, the difference of the s is not 0.
    is_mixed = is_kept[:, None] != is_kept
    slopes = jnp.where(is_mixed, quotient(f[:, None] - f, s[:, None] - s), is_kept & is_kept[:, None])
    inside = u.T @ d_x @ v
    symmetric, antisymmetric = (inside + inside.T) / 2, (inside - inside.T) / 2
    core = slopes * symmetric + quotient(f[:, None] + f, s[:, None] + s) * antisymmetric
    core -= jnp.diag(is_kept * (regularizer.factor * d_weight))
    shrinking = quotient(f, s)
    left = (d_x @ v - u @ inside) * shrinking  # of the columns outside of u
    right = shrinking[:, None] * (u.T @ d_x - inside @ vt)
    d_w = u @ core @ vt + left @ vt + u @ right
    return regularizer.prox(x, weight), d_w.reshape(x.shape)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _by_iterations(regularizer, x, metric, weight):
    return _solved(regularizer, x * metric, metric, weight, x)


@_by_iterations.defjvp
def _by_iterations_jvp(regularizer, primals, tangents):
    raise ValueError(
        f"The prox of {regularizer!r} has no derivative in a metric of one number per entry, where it comes from "
        "iterations; use one number as `metric`."
    )
