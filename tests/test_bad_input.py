"""Bad input is refused by name, with the rule, the value and the remedy. `test_fuzz.py` tests random input."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import GroupLasso, ProximalGradient, SecularNewton
from tests.factories import FACTORIES, factory_id

every_factory = pytest.mark.parametrize("factory", FACTORIES, ids=factory_id)
LAYERS = {
    "conv": {"kernel": jnp.ones((3, 3, 4, 5)), "bias": jnp.zeros(5)},
    "dense": {"kernel": jnp.ones((6, 3)), "bias": jnp.ones(3)},
}


def test_zero_size_leaves_and_scalars_train():
    params = {"a": jnp.ones((0, 3)), "b": jnp.ones((3, 0)), "c": jnp.ones([]), "kernel": jnp.ones((2, 2))}
    for factory in FACTORIES:
        optimizer = factory(ramda_jax.GroupLasso(), 0.1)
        updates, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params)
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(updates))


# Refused by name, with the rule, the value and the remedy.


@every_factory
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"strength": -1.0}, ValueError, "`strength` must be finite and at least 0, got -1.0; use"),
        ({"strength": float("nan")}, ValueError, "`strength` must be finite and at least 0, got nan; use"),
        ({"strength": None}, ValueError, "`strength` (lambda) must be given with the regularizer GroupLasso("),
        ({"strength": "big"}, TypeError, "`strength` must be a real number or a schedule, got 'big'; use"),
        ({"learning_rate": -0.1}, ValueError, "`learning_rate` must be finite and at least 0, got -0.1; use"),
        ({"averaging": 0.0}, ValueError, "`averaging` must be in (0, 1], got 0.0; use `averaging=1.0`"),
        ({"averaging": 1.5}, ValueError, "`averaging` must be in (0, 1], got 1.5; use `averaging=1.0`"),
        ({"averaging": np.float32(-1)}, ValueError, "`averaging` must be in (0, 1], got "),
        ({"regularizer": 3}, TypeError, "A regularizer must be a `Regularizer` or None, got 3 at ''; use"),
        ({"regularizer": {"a": "l1"}}, TypeError, "A regularizer must be a `Regularizer` or None, got 'l1' at 'a'"),
        ({"regularizer": {"(": GroupLasso()}}, ValueError, "A pattern must be a regular expression, got '('"),
        ({"solver": "newton"}, TypeError, "`solver` must be a `Solver`, a mapping of these or None, got 'newton'; use"),
        ({"restarts": (5, 5)}, ValueError, "`restarts` must be positive and increasing, got (5, 5); use"),
        ({"restarts": (0,)}, ValueError, "`restarts` must be positive and increasing, got (0,); use"),
        ({"restarts": (1.5,)}, TypeError, "`restarts` must hold whole numbers, got 1.5 in (1.5,); use"),
    ],
)
def test_factory_refuses_bad_settings_by_name(factory, settings, error, message):
    if not factory.averages and settings.keys() & {"averaging", "restarts"}:
        pytest.skip("this factory does not have the argument")
    settings = {"learning_rate": 0.1, "regularizer": GroupLasso(), "strength": 0.1} | settings
    with pytest.raises(error, match=re.escape(message)):
        factory.make(**settings)


def test_ramda_refuses_eps_of_zero():
    with pytest.raises(ValueError, match=re.escape("`eps` must be finite and above 0, got 0.0; use a small")):
        ramda_jax.ramda(0.1, eps=0.0)


@every_factory
@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"w": jnp.ones((2, 2), jnp.int32)}, TypeError, "real floating-point numbers, got dtype int32 at 'w'; train"),
        ({"w": jnp.ones((2, 2), jnp.complex64)}, TypeError, "got dtype complex64 at 'w'; train such leaves with"),
        ({"w": "text"}, TypeError, "got type str at 'w'"),
        ({"bias": jnp.ones((2, 2))}, ValueError, "given alone selects no leaf"),
    ],
)
def test_init_refuses_bad_parameters_by_name(factory, params, error, message):
    with pytest.raises(error, match=re.escape(message)):
        factory(GroupLasso(), 0.1).init(params)


@every_factory
@pytest.mark.parametrize(
    ("regularizer", "message"),
    [
        ({"kernle": GroupLasso()}, "The pattern 'kernle' matches no leaf. The paths are ['conv/bias', 'conv/kernel',"),
        ({"dense/kernel": GroupLasso((2,))}, "must be axes of the leaf 'dense/kernel', which has 2; use axes from"),
        ({"dense/kernel": GroupLasso("kernel")}, "must go to a convolution's kernel (spatial axes, in, out), but"),
        ({"bias": GroupLasso()}, "must go to a leaf of two axes or more, but 'conv/bias' has 1; leave it out"),
        ({"conv/kernel": GroupLasso((0, -4))}, "must not name an axis twice, but does on the leaf 'conv/kernel'"),
    ],
)
def test_init_refuses_a_regularizer_that_does_not_fit(factory, regularizer, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        factory(regularizer, 0.1).init(LAYERS)


def test_closed_form_is_refused_for_group_lasso_in_ramda_but_not_in_rmda():
    ramda_jax.rmda(0.1, GroupLasso(), 0.1, solver=ramda_jax.ClosedForm())
    with pytest.raises(ValueError, match=re.escape("ClosedForm cannot solve GroupLasso(groups='input'")):
        ramda_jax.ramda(0.1, GroupLasso(), 0.1, solver=ramda_jax.ClosedForm())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GroupLasso("rows"), ValueError, "`groups` must be a known name or axes, got 'rows'; use one of"),
        (lambda: GroupLasso(1.5), TypeError, "`groups` must be a name or axes, got 1.5; use"),
        (lambda: GroupLasso((0, 0)), ValueError, "`groups` must not name an axis twice, got (0, 0); use"),
        (lambda: GroupLasso(group_weight="size"), ValueError, "`group_weight` must be one of ("),
        (lambda: GroupLasso(group_weight=-1.0), ValueError, "`group_weight` must be finite and at least 0, got -1.0"),
        (lambda: SecularNewton(max_steps=0), ValueError, "`max_steps` must be at least 1, got 0; use 1 or more."),
        (
            lambda: ProximalGradient(max_steps=2.0),
            TypeError,
            "`max_steps` must be a whole number, got 2.0; use an int.",
        ),
        (lambda: ProximalGradient(rtol=-1e-8), ValueError, "`rtol` must be finite and at least 0, got -1e-08; use"),
        (
            lambda: ProximalGradient(stepsize="row"),
            ValueError,
            "must be 'block' or 'leaf', got 'row'; use 'block'.",
        ),
        (lambda: ProximalGradient(tolerance=jnp.ones([])), TypeError, "must be Python numbers or functions"),
        (
            lambda: ramda_jax.ramda(0.1, anchor_dtype=jnp.int8),
            TypeError,
            "`anchor_dtype` must be a floating-point dtype or None, got <class 'jax.numpy.int8'>; use `jnp.bfloat16`",
        ),
        (
            lambda: ramda_jax.rmda(0.1, anchor_dtype=3),
            TypeError,
            "`anchor_dtype` must be a floating-point dtype or None",
        ),
        (lambda: ramda_jax.proximal_point("l1"), TypeError, "A regularizer must be a `Regularizer` or None"),
    ],
)
def test_parts_refuse_bad_settings_by_name(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


def test_proximal_point_without_a_model_builder_says_so():
    optimizer = optax.chain(optax.sgd(0.1), ramda_jax.proximal_point(GroupLasso(), 0.1))
    params = LAYERS
    with pytest.raises(TypeError, match="must be given a `QuadraticModel`, got dict; put a model builder"):
        optimizer.update(params, optimizer.init(params), params)


@pytest.mark.parametrize(
    "make",
    [
        lambda value: ramda_jax.L1(factor=value),
        lambda value: ramda_jax.MCP(omega=value),
        lambda value: ramda_jax.GroupMCP(gamma=value),
        lambda value: ramda_jax.NuclearNorm(factor=value),
        lambda value: ramda_jax.SparseGroupLasso(l1_ratio=value),
        lambda value: ramda_jax.NewtonRaphson(atol=value),
        lambda value: ProximalGradient(rtol=value),
        lambda value: ramda_jax.prox_sgd(0.1, b1=value),
        lambda value: ramda_jax.prox_adamw(0.1, b2=value),
        lambda value: ramda_jax.prox_ssi(0.1, eps=value),
        lambda value: ramda_jax.sqrt_growth(value),
        lambda value: ramda_jax.compaction.low_rank_plan(LAYERS, rtol=value),
        lambda value: ramda_jax.stages(value, total_steps=80),
        lambda value: ramda_jax.stages(0.1, total_steps=80, eps=value),
        lambda value: ramda_jax.ramda_then_hold(value, GroupLasso(), 0.1, total_steps=80),
        lambda value: ramda_jax.prox(GroupLasso(), LAYERS, value),
        lambda value: ramda_jax.prox(GroupLasso(), LAYERS, 0.1, metric=value),
        lambda value: ramda_jax.structure.adaptive_weights(GroupLasso(), LAYERS, eps=value),
    ],
)
def test_a_schedule_is_refused_where_one_number_is_wanted(make):
    with pytest.raises(TypeError, match=r"must be (one|a Python) number, got <function .*; (use|give)"):
        make(optax.constant_schedule(0.1))
