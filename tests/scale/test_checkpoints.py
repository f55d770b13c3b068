"""Checkpoints: a run that is stored, restored and continued equals an uninterrupted run."""

import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import linen, serialization
from flax.training.train_state import TrainState

import ramda_jax
from tests.factories import FACTORIES, factory_id
from tests.scale import make_old_checkpoint
from tests.scale.problem import batches, loss, make_params

ROOT = Path(__file__).parents[2]
RESTARTS = (6, 12)
KEPT = {"iterate_dtype": "float32"}


def make_optimizer(factory=FACTORIES[0], **settings):
    if factory.averages:
        settings |= {"averaging": ramda_jax.sqrt_growth(0.3, RESTARTS[-1]), "restarts": RESTARTS}
    return factory(ramda_jax.GroupLasso(), 0.008, **settings)


def make_step(optimizer):
    @jax.jit
    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    return step


def train(step, params, state, start, stop):
    for batch in batches(stop - start, start=start):
        params, state = step(params, state, batch)
    return params, state


def save_and_restore(folder, tree, target):
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "checkpoint", tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "checkpoint", target)


# The step after restart 6 carries it out, so a checkpoint at 6 has the finished stage and at 7 the new stage.
STOPS = {"in a stage": 3, "at its end": 6, "after a restart": 7, "in the last": 15}


def stopped(when, settings):
    is_quick = when == "at its end" or (when == "after a restart" and settings)
    kept = "iterate kept" if settings else ""
    return pytest.param(STOPS[when], settings, id=f"{kept}-{when}", marks=() if is_quick else pytest.mark.slow)


@pytest.mark.slow_except("iterate kept-after a restart")
@pytest.mark.parametrize(("stop", "settings"), [stopped(when, s) for s in ({}, KEPT) for when in STOPS])
@pytest.mark.contract("checkpoints")
def test_orbax_restored_run_goes_on_bit_by_bit(tmp_path, stop, settings):
    optimizer = make_optimizer(**settings)
    params = make_params("float32")
    step = make_step(optimizer)
    params, state = train(step, params, optimizer.init(params), 0, stop)
    target = jax.eval_shape(lambda params: (params, optimizer.init(params)), params)
    restored = save_and_restore(tmp_path, (params, state), target)
    chex.assert_trees_all_equal(restored, (params, state))
    assert jax.tree.structure(restored) == jax.tree.structure((params, state))
    chex.assert_trees_all_equal(train(step, *restored, stop, stop + 20), train(step, params, state, stop, stop + 20))


@pytest.mark.slow
@pytest.mark.parametrize("factory", FACTORIES[1:], ids=factory_id)
@pytest.mark.contract("checkpoints")
def test_orbax_restores_every_factory(tmp_path, factory):
    optimizer = make_optimizer(factory)
    params = make_params("float32")
    step = make_step(optimizer)
    params, state = train(step, params, optimizer.init(params), 0, 7)
    target = jax.eval_shape(lambda params: (params, optimizer.init(params)), params)
    restored = save_and_restore(tmp_path, (params, state), target)
    chex.assert_trees_all_equal(train(step, *restored, 7, 27), train(step, params, state, 7, 27))


# Field names are a promise: a checkpoint of an earlier version, stored by path, can be restored and continued.


@pytest.mark.parametrize("factory", [f for f in FACTORIES if f.name in ("ramda", "prox_adamw")], ids=factory_id)
@pytest.mark.contract("checkpoints")
def test_old_checkpoint_is_restored_by_path_and_continued(factory):
    stored = np.load(make_old_checkpoint.path_of(factory.name))
    params, state = make_old_checkpoint.restore(factory.name, stored)
    assert int(optax.tree.get(state, "proximal_step")) == make_old_checkpoint.STOP
    params, _ = make_old_checkpoint.train(factory.name, params, state, make_old_checkpoint.STOP)
    for name, value in make_old_checkpoint.by_path(params).items():
        # Do not compare bits, because another processor and version of JAX may have made the fixture.
        np.testing.assert_allclose(value, stored[f"later{name}"], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(value == 0, stored[f"later{name}"] == 0)


# flax.serialization


@pytest.mark.parametrize("factory", FACTORIES, ids=factory_id)
def test_flax_bytes_of_a_train_state_restore_it(factory):
    net = linen.Dense(3)
    params = net.init(jax.random.key(0), jnp.ones((1, 4)))["params"]

    def fresh():
        return TrainState.create(apply_fn=net.apply, params=params, tx=optimizer)

    optimizer = make_optimizer(factory)
    grads = jax.tree.map(jnp.ones_like, params)
    state = fresh().apply_gradients(grads=grads).apply_gradients(grads=grads)
    stored = serialization.to_bytes(state)
    restored = serialization.from_bytes(fresh(), stored)
    assert jax.tree.structure(restored.opt_state) == jax.tree.structure(state.opt_state)
    chex.assert_trees_all_equal(restored.opt_state, state.opt_state)
    chex.assert_trees_all_equal(restored.apply_gradients(grads=grads).params, state.apply_gradients(grads=grads).params)


@pytest.mark.slow
def test_flax_is_not_imported_by_us_and_serializes_though_imported_last():
    code = """
import sys
import jax.numpy as jnp, ramda_jax
assert not any(name == "flax" or name.startswith("flax.") for name in sys.modules)
params = {"kernel": jnp.ones((2, 3))}
optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), 0.1)
state = optimizer.init(params)
from flax import serialization
restored = serialization.from_bytes(state, serialization.to_bytes(state))
assert restored[1].problem == state[1].problem
optimizer.update(params, restored, params)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
