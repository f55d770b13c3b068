"""`ramda_jax.prox`: the operator on trees, and its derivative through the exact solution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax as rj
from ramda_jax import prox
from tests.tiny import array

pytestmark = pytest.mark.covering

SHAPE = (4, 6)
EVERY = {
    "L1": rj.L1(factor=0.7),
    "MCP": rj.MCP(omega=1.5),
    "Box": rj.Box(-0.5, 1.0),
    "Quantized": rj.Quantized((-1.0, 0.3, 0.0, 2.0)),
    "GroupLasso": rj.GroupLasso(group_weight=0.9),
    "SparseGroupLasso": rj.SparseGroupLasso(group_weight=1.2, l1_ratio=0.4),
    "GroupMCP": rj.GroupMCP(group_weight=1.0, omega=4.0),
    "SparseGroupMCP": rj.SparseGroupMCP("output", group_weight=1.0, omega=3.0, l1_ratio=0.3),
    "TopGroups": rj.TopGroups(0.5),
    "TopEntries": rj.TopEntries(0.5, over="all"),
    "NofM": rj.NofM(1, 2),
    "Null": rj.Null(),
}
SCALAR_ONLY = {
    "NuclearNorm": rj.NuclearNorm(factor=1.3),
    "NuclearNorm by gram": rj.NuclearNorm(gram=True),
    "Projection": rj.Projection(functools.partial(optax.projections.projection_l1_ball, scale=1.5)),
}
PAIRS = [(name, kind) for name in EVERY for kind in ("scalar", "diagonal")] + [(name, "scalar") for name in SCALAR_ONLY]


def point(kind):
    rng = np.random.default_rng(3)
    x = rng.normal(size=SHAPE) * np.array([2.0, 1.0, 0.1, 3.0])[:, None]
    metric = rng.uniform(0.5, 3, size=SHAPE) if kind == "diagonal" else np.asarray(1.7)
    return jnp.asarray(x), jnp.asarray(1.1), jnp.asarray(metric)


def operator(regularizer):
    def apply(x, strength, metric):
        return prox({"kernel": regularizer}, {"kernel": x}, strength, {"kernel": metric})["kernel"]

    return apply


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_derivative_is_that_of_finite_differences(name, kind, x64):
    regularizer = (EVERY | SCALAR_ONLY)[name]
    arguments = point(kind)
    function = jax.jit(operator(regularizer))
    value = function(*arguments)
    assert name in ("Null", "Box", "Projection") or 0 < np.mean(value == 0) < 1 or "Nuclear" in name
    rng = np.random.default_rng(4)
    directions = [array(rng.normal(size=np.shape(x))) for x in arguments]
    h = 1e-6
    moved = [function(*(x + sign * h * d for x, d in zip(arguments, directions, strict=True))) for sign in (1, -1)]
    # The points are away from kinks, so the structure is the same on both sides.
    np.testing.assert_array_equal(moved[0] == 0, moved[1] == 0)
    expected = (moved[0] - moved[1]) / (2 * h)
    _, forward = jax.jvp(function, arguments, tuple(directions))
    np.testing.assert_allclose(forward, expected, rtol=1e-6, atol=2e-8)
    weights = array(rng.normal(size=SHAPE))
    gradients = jax.grad(lambda *a: jnp.vdot(weights, function(*a)), argnums=(0, 1, 2))(*arguments)
    backward = sum(jnp.vdot(g, d) for g, d in zip(gradients, directions, strict=True))
    np.testing.assert_allclose(backward, jnp.vdot(weights, expected), rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_equal_singular_values_and_zero_groups_have_finite_derivatives(x64):
    x = jnp.diag(jnp.array([2.0, 2.0, 0.5, 0.0]))
    for regularizer in (rj.NuclearNorm(), rj.GroupLasso(group_weight=1.0), rj.GroupMCP(group_weight=1.0, omega=1.0)):
        for strength in (0.0, 1.0, 5.0):
            jacobian = jax.jacobian(lambda x, r=regularizer, s=strength: prox(r, x, s))(x)
            assert np.all(np.isfinite(jacobian))
            if strength == 0:
                np.testing.assert_array_equal(jacobian.reshape(16, 16), np.eye(16))
    # Compare the derivative of the nuclear norm's prox at equal singular values with finite differences.
    direction = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
    function = functools.partial(prox, rj.NuclearNorm(), strength=1.0)
    _, found = jax.jvp(function, (x,), (direction,))
    expected = (function(x + 1e-6 * direction) - function(x - 1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_second_derivatives_of_groups_are_those_of_differences(x64):
    x, strength, metric = point("diagonal")
    function = operator(rj.GroupLasso(group_weight=0.9))

    def total(strength):
        return jnp.sum(jnp.square(function(x, strength, metric)))

    slope = jax.jit(jax.grad(total))
    expected = (slope(strength + 1e-5) - slope(strength - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(total)))(strength), expected, rtol=1e-5)


def test_it_is_what_a_method_solves_for_every_leaf():
    rng = np.random.default_rng(0)
    params = {"a": {"kernel": array(rng.normal(size=SHAPE), jnp.float32), "bias": jnp.ones(6)}}
    metric = jax.tree.map(lambda p: array(rng.uniform(0.5, 2, size=p.shape), jnp.float32), params)
    for regularizer in (rj.GroupLasso(), {"kernel": rj.L1(), "bias": rj.Box()}, rj.TopGroups(0.5), None):
        for given, diagonal in ((metric, metric), (2.0, jax.tree.map(lambda _: jnp.asarray(2.0), params))):
            model = rj.QuadraticModel(jax.tree.map(jnp.zeros_like, params), params, diagonal, 0.3)
            point = rj.proximal_point(regularizer, 1.0)
            expected, _ = point.update(model, point.init(params), params)
            found = prox(regularizer, params, 0.3, given)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def test_the_nuclear_norm_in_a_diagonal_metric_is_solved_to_rounding(x64):
    x, _, metric = point("diagonal")
    w = operator(rj.NuclearNorm())(x, 0.5, metric)
    assert rj.NuclearNorm().subdifferential_distance(w, metric * (x - w), 0.5) < 1e-12


def test_dtypes_batches_and_no_strength():
    rows = rj.GroupLasso(group_weight=1.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 2)), jnp.bfloat16)
    assert prox(rows, x[0], 0.5).dtype == jnp.bfloat16
    np.testing.assert_array_equal(prox(rows, x[0], 0.0), x[0])
    batch = jax.vmap(lambda x: prox(rows, x, 0.5, jnp.full((4, 2), 2.0)))(x)
    for found, row in zip(batch, x, strict=True):
        np.testing.assert_allclose(found, prox(rows, row, 0.5, 2.0), rtol=1e-2)
    np.testing.assert_array_equal(prox(rj.L1(), jnp.array([3.0, -0.5]), 1.0), [2, 0])


def test_what_does_not_fit_is_refused():
    params = {"kernel": jnp.ones((2, 3))}
    for call, error, match in (
        (lambda: prox(rj.L1(), params, -1.0), ValueError, "`strength` must be finite and at least 0, got -1"),
        (lambda: prox(rj.L1(), params, 1.0, 0.0), ValueError, "`metric` must be finite and above 0, got 0"),
        (lambda: prox(rj.L1(), params, 1.0, {"other": 1.0}), ValueError, "The `metric` must have the leaves"),
        (lambda: prox(rj.L1(), params, 1.0, {"kernel": jnp.ones(3)}), ValueError, "The `metric` must have the shapes"),
        (lambda: prox(rj.L1(), {"kernel": jnp.ones((2, 3), int)}, 1.0), TypeError, "Parameters must be arrays of real"),
        (lambda: prox(1.0, params, 1.0), TypeError, "A regularizer must be a `Regularizer` or None"),
    ):
        with pytest.raises(error, match=match):
            call()
    with pytest.raises(ValueError, match=r"NuclearNorm.* has no derivative in a metric of one number per entry"):
        jax.grad(lambda x: jnp.sum(prox(rj.NuclearNorm(), {"kernel": x}, 1.0, params)["kernel"]))(params["kernel"])
