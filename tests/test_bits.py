"""Results that are equal bit for bit with default compilation. Quick compilation may round the same sum differently."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax.subproblem.running import tiles
from tests.factories import FACTORIES, factory_id
from tests.inspection.test_eval_params import (
    ALL,
    PLAIN,
    STRENGTH,
    check_equal,
    every_method,
    gradients,
    init_params,
    train,
)
from tests.tiny import array


@every_method
def test_eval_params_with_zero_learning_rate_or_strength_moves_no_bit(method):
    params = init_params()
    *_, (_, state) = train(PLAIN[method](ALL, STRENGTH, learning_rate=0.0), params, num_steps=3)
    check_equal(ramda_jax.eval_params(state, params), params)
    *_, (_, state) = train(PLAIN[method](ALL, 0.0), params, num_steps=3)
    *_, (_, without) = train(PLAIN[method](None, None), params, num_steps=3)
    check_equal(ramda_jax.eval_params(state, params), ramda_jax.eval_params(without, params))


@pytest.mark.parametrize("factory", FACTORIES, ids=factory_id)
@pytest.mark.contract("without a regularizer: the same as at strength 0, and convergence")
def test_strength_zero_is_the_method_without_regularizer_bit_by_bit(factory):
    ran = []
    for regularizer, strength in ((None, None), (ALL, 0.0)):
        optimizer = factory(regularizer, strength, averaging=0.3)
        params, update = init_params(), jax.jit(optimizer.update)
        state = optimizer.init(params)
        for step in range(20):
            updates, state = update(gradients(params, step), state, params)
            params = optax.apply_updates(params, updates)
        ran.append(params)
    chex.assert_trees_all_equal(*ran)


@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("regularizer", "solver"),
    [
        (ramda_jax.GroupLasso(), None),
        (ramda_jax.GroupLasso(), ramda_jax.SecularNewton()),
        (ramda_jax.GroupLasso(), ramda_jax.ProximalGradient()),
        (ramda_jax.NuclearNorm(), None),
    ],
    ids=["closed form", "secular", "proximal gradient", "nuclear"],
)
def test_without_a_weight_equal_leaves_that_are_solved_together_are_the_centre(regularizer, solver, is_compiled):
    rng = np.random.default_rng(0)
    params = {name: array(rng.standard_normal((7, 5)), jnp.float32) for name in "abc"}

    def trained(optimizer):
        state, found = optimizer.init(params), params
        update = jax.jit(optimizer.update) if is_compiled else optimizer.update
        for _ in range(3):  # later steps have a metric whose reciprocal is rounded
            updates, state = update(jax.tree.map(jnp.sin, found), state, found)
            found = optax.apply_updates(found, updates)
        return found, ramda_jax.eval_params(state, found)

    plain = trained(ramda_jax.rmda(0.3, averaging=1.0))
    weightless = trained(ramda_jax.rmda(0.3, regularizer, 0.0, averaging=1.0, solver=solver))
    chex.assert_trees_all_equal(weightless, plain)


def test_without_a_weight_a_leaf_in_blocks_is_the_centre_bit_by_bit(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 2**10)
    params = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((96, 80)), jnp.float32)}
    plain, cut = ramda_jax.ramda(0.1), ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), 0.0)
    grads = jax.tree.map(jnp.sin, params)
    expected, _ = jax.jit(plain.update)(grads, plain.init(params), params)
    updates, _ = jax.jit(cut.update)(grads, cut.init(params), params)
    np.testing.assert_array_equal(updates["kernel"], expected["kernel"])
