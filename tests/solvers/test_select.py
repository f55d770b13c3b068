"""The solver that is chosen, the reason for it, and the solvers that are refused."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import (
    ClosedForm,
    DouglasRachford,
    GroupLasso,
    NuclearNorm,
    Null,
    ProximalGradient,
    QuadraticModel,
    Regularizer,
    SecularNewton,
    default_solver,
    prox_adamw,
    prox_sgd,
    proximal_point,
    ramda,
)
from ramda_jax.solvers import Context, choose_solver
from ramda_jax.solvers.base import check_solver
from tests.reference import group_norm
from tests.tiny import array


@dataclasses.dataclass(frozen=True)
class Ridge(Regularizer):
    """A user's own regularizer, with only a value and a prox."""

    def value(self, w):
        return jnp.sum(jnp.square(w)) / 2

    def prox(self, x, weight):
        return x / (1 + weight)


@pytest.mark.parametrize(
    ("regularizer", "metric", "solver", "reason"),
    [
        (GroupLasso(), "scalar", ClosedForm(), "multiple of the identity"),
        (Null(), "scalar", ClosedForm(), "multiple of the identity"),
        (Ridge(), "scalar", ClosedForm(), "multiple of the identity"),
        (Null(), "diagonal", ClosedForm(), "sum over single entries"),
        (GroupLasso(), "diagonal", SecularNewton(), "group norms"),
        (GroupLasso((0, 1), group_weight=2.0), "diagonal", SecularNewton(), "group norms"),
        (NuclearNorm(), "scalar", ClosedForm(), "multiple of the identity"),
        (NuclearNorm(), "diagonal", DouglasRachford(max_steps=5, rtol=1e-3), "the released scripts' five"),
        (Ridge(), "diagonal", ProximalGradient(), "a prox but no exact form"),
    ],
)
def test_default_solver_follows_its_table(regularizer, metric, solver, reason):
    assert default_solver(regularizer, metric) == solver
    choice = choose_solver(regularizer, metric)
    assert choice.solver == solver
    assert reason in choice.reason
    assert solver.why_not(regularizer, metric) is None


def test_default_solver_is_that_of_a_diagonal_metric():
    assert default_solver(GroupLasso()) == default_solver(GroupLasso(), "diagonal") == SecularNewton()


@pytest.mark.parametrize(
    ("regularizer", "metric", "error", "message"),
    [
        ("l1", "diagonal", TypeError, "`regularizer` must be a `Regularizer`, got 'l1'; use"),
        (None, "diagonal", TypeError, "`regularizer` must be a `Regularizer`, got None"),
        (GroupLasso, "diagonal", TypeError, "`regularizer` must be a `Regularizer`, got <class"),
        (GroupLasso(), "full", ValueError, "`metric_kind` must be one of .*'scalar', 'diagonal'.*, got 'full'"),
    ],
)
def test_default_solver_refuses_what_it_does_not_know(regularizer, metric, error, message):
    with pytest.raises(error, match=message):
        default_solver(regularizer, metric)


@pytest.mark.parametrize(
    ("solver", "regularizer", "metric", "message"),
    [
        (ClosedForm(), GroupLasso(), "diagonal", "ClosedForm cannot solve GroupLasso.* in a diagonal metric: its psi"),
        (ClosedForm(), Ridge(), "diagonal", "ClosedForm cannot solve Ridge.* in a diagonal metric: its psi"),
        (SecularNewton(), Ridge(), "diagonal", "SecularNewton cannot solve Ridge.*: it needs a psi of the group norms"),
        (SecularNewton(), Null(), "scalar", "SecularNewton cannot solve Null.* in a scalar metric: .*`solver=None`"),
    ],
)
def test_check_solver_names_both_and_the_remedy(solver, regularizer, metric, message):
    with pytest.raises(ValueError, match=message):
        check_solver(solver, regularizer, metric)


@pytest.mark.parametrize("metric", ["scalar", "diagonal"])
@pytest.mark.parametrize("regularizer", [GroupLasso(), Null(), Ridge()])
def test_proximal_gradient_is_never_refused(regularizer, metric):
    check_solver(ProximalGradient(), regularizer, metric)


def test_a_solver_is_refused_where_it_is_given():
    with pytest.raises(ValueError, match="ClosedForm cannot solve GroupLasso"):
        ramda(0.1, GroupLasso(), strength=1.0, solver=ClosedForm())
    with pytest.raises(ValueError, match="ClosedForm cannot solve GroupLasso"):
        prox_adamw(0.1, GroupLasso(), strength=1.0, solver=ClosedForm())
    prox_sgd(0.1, GroupLasso(), strength=1.0, solver=ClosedForm())
    with pytest.raises(ValueError, match="SecularNewton cannot solve Ridge"):
        proximal_point({"kernel": Ridge()}, 1.0, SecularNewton())
    with pytest.raises(TypeError, match="`solver` must be a `Solver`, a mapping of these or None, got 'newton'"):
        proximal_point(GroupLasso(), 1.0, "newton")
    # The kind of metric is known at the first update.
    params = {"kernel": jnp.ones((2, 3))}
    optimizer = proximal_point(GroupLasso(), 1.0, ClosedForm())
    model = QuadraticModel(params, params, params, jnp.float32(1))
    with pytest.raises(ValueError, match=r"ClosedForm cannot solve GroupLasso.* in a diagonal metric"):
        optimizer.update(model, optimizer.init(params), params)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1e3])
@pytest.mark.parametrize("regularizer", [GroupLasso((0,), group_weight=1.0), Null(), Ridge()])
def test_closed_form_in_a_scalar_metric_is_what_proximal_gradient_finds(x64, regularizer, weight):
    rng = np.random.default_rng(0)
    linear, anchor = rng.normal(size=(8, 5)), rng.normal(size=(8, 5))
    model = QuadraticModel(jnp.asarray(linear), jnp.asarray(anchor), jnp.float64(2.5), jnp.float64(weight))
    context = Context(jnp.zeros((8, 5)))
    closed = ClosedForm().solve(model, regularizer, context)
    iterated = ProximalGradient(tolerance=0.0).solve(model, regularizer, context)
    assert closed.converged
    assert iterated.converged
    np.testing.assert_allclose(closed.value, iterated.value, rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(np.asarray(closed.value) == 0, np.asarray(iterated.value) == 0)
    if isinstance(regularizer, GroupLasso):
        rhs, metric = 2.5 * anchor - linear, np.full((8, 5), 2.5)
        residuals = group_norm.kkt_residuals(closed.value, rhs, metric, weight, (0,))
        assert np.all(residuals <= 4 * np.finfo(float).eps * group_norm.norms(rhs, (0,)))
        if weight:
            np.testing.assert_allclose(
                closed.radii[:, 0], group_norm.norms(closed.value, (0,)).astype(float), rtol=1e-14
            )


def test_users_regularizer_trains_in_every_method(x64):
    # The minimiser of 1/2 ||w||^2_metric - <rhs, w> + weight / 2 ||w||^2 is rhs / (metric + weight).
    rng = np.random.default_rng(0)
    params = {"kernel": array(rng.normal(size=(4, 3)))}
    metric = array(rng.uniform(0.1, 1, size=(4, 3)))
    for diagonal in (metric, jnp.float64(0.5)):
        model = QuadraticModel(params, params, {"kernel": diagonal}, jnp.float64(3.0))
        optimizer = proximal_point(Ridge(), 0.5, None if diagonal.ndim == 0 else ProximalGradient(tolerance=0.0))
        value, state = optimizer.update(model, optimizer.init(params), params)
        assert state.radii == {}
        expected = (diagonal * params["kernel"] - params["kernel"]) / (diagonal + 1.5)
        np.testing.assert_allclose(value["kernel"], expected, rtol=1e-13)
