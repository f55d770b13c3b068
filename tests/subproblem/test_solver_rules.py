"""A solver for each regularizer, selected with patterns of the leaves' names."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import ClosedForm, GroupLasso, NuclearNorm, ProximalGradient, SecularNewton, proximal_point, ramda
from ramda_jax.subproblem.rules.solvers import solver_rules

PARAMS = {"conv": jnp.ones((3, 4)), "mlp": jnp.arange(12.0).reshape(4, 3)}
REGULARIZER = {"conv": GroupLasso(), "mlp": NuclearNorm()}


def test_each_leaf_is_solved_by_the_first_solver_whose_pattern_matches():
    exact = ProximalGradient(max_steps=200, tolerance=1e-6)
    mixed = ramda(0.1, REGULARIZER, 0.05, averaging=1.0, solver={"^m": exact, "mlp": ClosedForm(), ".*": None})
    apart = optax.partition(
        {
            "conv": ramda(0.1, GroupLasso(), 0.05, averaging=1.0),
            "mlp": ramda(0.1, NuclearNorm(), 0.05, averaging=1.0, solver=exact),
        },
        {"conv": "conv", "mlp": "mlp"},
    )
    grads = jax.tree.map(jnp.sin, PARAMS)
    found, expected = (optimizer.update(grads, optimizer.init(PARAMS), PARAMS) for optimizer in (mixed, apart))
    assert int(ramda_jax.solver_info(found[1]).num_steps) > 5  # more than the default of the nuclear norm
    for path in PARAMS:
        # The tolerance differs, because the regularized leaves of an optimizer share it.
        np.testing.assert_allclose(found[0][path], expected[0][path], atol=1e-5)
    structured = ramda_jax.eval_params(found[1], PARAMS)
    np.testing.assert_allclose(structured["conv"], PARAMS["conv"] + found[0]["conv"], rtol=1e-6)


@pytest.mark.parametrize(
    ("solver", "error", "message"),
    [
        ({"conv": "newton"}, TypeError, "A solver must be a `Solver` or None, got 'newton' for 'conv'; use"),
        ({"conv(": None}, ValueError, r"A pattern must be a regular expression, got 'conv\('"),
        ("newton", TypeError, "`solver` must be a `Solver`, a mapping of these or None, got 'newton'; use"),
    ],
)
def test_what_is_no_solver_is_refused_by_name(solver, error, message):
    with pytest.raises(error, match=message):
        solver_rules(solver)
    with pytest.raises(error, match=message):
        ramda(0.1, GroupLasso(), 0.1, solver=solver)


def test_a_solver_that_cannot_solve_its_leaf_is_refused_at_init():
    optimizer = proximal_point(REGULARIZER, 1.0, {"mlp": SecularNewton()})
    with pytest.raises(
        ValueError, match=r"SecularNewton cannot solve NuclearNorm.*: it needs a psi of the group norms"
    ):
        optimizer.init(PARAMS)


def test_a_pattern_that_matches_no_regularized_leaf_is_refused_at_init():
    optimizer = proximal_point({"conv": GroupLasso()}, 1.0, {"mlp": ProximalGradient()})
    with pytest.raises(
        ValueError, match=r"The solvers' pattern 'mlp' matches no regularized leaf. These are \['conv'\]"
    ):
        optimizer.init(PARAMS)
    # A pattern may match only leaves that a mask hides.
    optax.masked(optimizer, {"conv": True, "mlp": False}).init(PARAMS)


def test_the_state_of_other_solvers_is_refused():
    first, second = (proximal_point(REGULARIZER, 1.0, {"mlp": ProximalGradient(max_steps=n)}) for n in (10, 20))
    model = ramda_jax.QuadraticModel(PARAMS, PARAMS, jax.tree.map(jnp.ones_like, PARAMS), jnp.asarray(1.0))
    with pytest.raises(ValueError, match=r"must be one of this optimizer's solver, got .*max_steps=10"):
        second.update(model, first.init(PARAMS), PARAMS)


def test_proximal_point_demands_a_strength_with_a_regularizer():
    with pytest.raises(ValueError, match=r"`strength` \(lambda\) must be given with the regularizer GroupLasso"):
        proximal_point(GroupLasso())
    proximal_point()
