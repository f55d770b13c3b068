"""The examples of many devices, many processes and many models, at a tiny scale."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import sweep

ROOT = Path(__file__).parents[2]


def run(arguments, timeout=300, **environment):
    """Runs an example in its own process group, so that no process that it starts outlives it."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, printed[-5000:]
    return printed


@pytest.mark.slow
def test_data_parallel_has_the_same_inputs_left_in_every_way():
    lines = [line for line in run(["-m", "examples.data_parallel", "--steps", "100"]).splitlines() if "inputs" in line]
    assert [line.split("  ")[0] for line in lines] == ["one device", "jit, 8 devices", "pmap, 8 devices"]
    left = {line.split("left: ")[1].split("  ")[0] for line in lines}
    assert len(left) == 1 and "'hidden/kernel': 64" not in left.pop()
    assert all(float(line.split()[-1]) < 1e-5 for line in lines)


@pytest.mark.slow
def test_two_processes_train_the_digits_net_to_the_support_of_one(tmp_path):
    arguments = ["--steps", "120", "--batch", "64", "--out", str(tmp_path), "--timeout", "240"]
    printed = run(["-m", "examples.multiprocess", *arguments], timeout=500)
    assert "The supports are the same." in printed
    one, two = (json.loads((tmp_path / f"multiprocess-{count}.json").read_text()) for count in (1, 2))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["support"] == two["support"]
    assert 0 < len(one["support"]["dense1/kernel"]) < 1024
    assert min(one["accuracy"], two["accuracy"]) > 0.8


@pytest.mark.slow
def test_sweep_equals_a_loop():
    images, test_images, labels, test_labels = (jnp.asarray(part) for part in sweep.digits())
    strengths, rates = (1e-3, 4e-3), (1e-2, 3e-2)
    together = jax.device_get(sweep.sweep(strengths, rates, images, labels, steps=240))
    for i, strength in enumerate(strengths):
        for j, rate in enumerate(rates):
            alone = jax.device_get(sweep.train_one(strength, rate, images, labels, steps=240))
            mine = jax.tree.map(lambda x, i=i, j=j: x[i, j], together)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), mine, alone)
            for layer in alone:
                np.testing.assert_array_equal(mine[layer]["kernel"].any(1), alone[layer]["kernel"].any(1))
    dense, sparse = (
        sweep.score(jax.tree.map(lambda x, i=i: x[i, 0], together), test_images, test_labels) for i in (0, 1)
    )
    assert 0 < dense[1] < sparse[1] < 1


@pytest.mark.slow
def test_sweep_prints_its_table_and_draws(tmp_path, capsys):
    sweep.main(["--steps", "20", "--out", str(tmp_path)])
    assert "learning rate 0.03" in capsys.readouterr().out
    assert (tmp_path / "sweep.png").read_bytes()[1:4] == b"PNG"


# A run that is killed and started again.

TRAINING = """
import itertools, sys
from pathlib import Path
import jax, numpy as np, orbax.checkpoint
from flax import nnx
import optax, ramda_jax
from examples import digits

STEPS, EVERY = 60, 10
folder = Path(sys.argv[1])
images, _, labels, _ = digits.digits()
graph, params = nnx.split(digits.ConvNet(nnx.Rngs(0)), nnx.Param)
params = nnx.to_pure_dict(params)
optimizer = ramda_jax.ramda(
    2e-2, digits.REGULARIZER, 1e-3, averaging=ramda_jax.sqrt_growth(0.3, 30), restarts=(15, 30))
state = optimizer.init(params)

@jax.jit
def step(params, state, images, labels):
    def loss(params):
        logits = nnx.merge(graph, params)(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

with orbax.checkpoint.CheckpointManager(folder.resolve(), options=orbax.checkpoint.CheckpointManagerOptions(
        max_to_keep=2, enable_async_checkpointing=False)) as manager:
    start = manager.latest_step() or 0
    if start:
        target = jax.eval_shape(lambda params: (params, optimizer.init(params)), params)
        params, state = manager.restore(start, args=orbax.checkpoint.args.StandardRestore(target))
    print("started at", start, flush=True)
    for number in range(start, STEPS):
        batch = np.random.default_rng(number).permutation(len(images))[:32]
        params, state = step(params, state, images[batch], labels[batch])
        if (number + 1) % EVERY == 0:
            manager.save(number + 1, args=orbax.checkpoint.args.StandardSave((params, state)))
            print("saved", number + 1, flush=True)
np.savez(folder / "final.npz", **{jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(params)})
"""


@pytest.mark.slow
def test_training_that_is_killed_and_started_again_ends_where_it_would_have(tmp_path):
    def start(folder):
        return [sys.executable, "-c", TRAINING, str(folder)]

    run(start(tmp_path / "whole")[1:])
    process = subprocess.Popen(start(tmp_path / "killed"), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    watchdog = threading.Timer(240, process.kill)
    watchdog.start()
    try:
        assert any(line.strip() == "saved 20" for line in process.stdout)  # in the second of three stages
    finally:
        process.kill()  # SIGKILL, which the process cannot catch
        process.wait()
        process.stdout.close()
        watchdog.cancel()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "final.npz").exists()
    printed = run(start(tmp_path / "killed")[1:])
    assert re.search("started at [2345]0", printed)
    whole, killed = (np.load(tmp_path / name / "final.npz") for name in ("whole", "killed"))
    assert sorted(whole) == sorted(killed)
    for name in whole:
        np.testing.assert_array_equal(whole[name] == 0, killed[name] == 0)
        np.testing.assert_allclose(whole[name], killed[name], rtol=1e-5, atol=1e-6)
    assert 0 < np.mean(whole["['dense1']['kernel']"].any(axis=1)) < 1
