"""Training on many simulated devices equals training on one device, and steps can be lowered for any platform."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import ramda_jax
from tests.factories import FACTORIES
from tests.scale.problem import REGULARIZERS, loss, make_params

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.contract("sharding")
def test_eight_devices():
    # The number of devices is fixed when JAX starts, so these tests need their own process.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, "tests/scale/eight_devices.py"],
        cwd=ROOT,
        env=environment | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-3_000:]
    assert re.search(r"\d+ passed", done.stdout)


def custom_calls(optimizer):
    """The custom calls of a step's program, lowered for three platforms at once."""

    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    params = jax.eval_shape(lambda: make_params("float32"))
    batch = (jax.ShapeDtypeStruct((8, 2, 2, 8), jnp.float32), jax.ShapeDtypeStruct((8, 8), jnp.float32))
    exported = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(
        params, jax.eval_shape(optimizer.init, params), batch
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")
    return set(re.findall(r"custom_call @([\w.$]+)", exported.mlir_module()))


def lowering(factory, name):
    """A case. Methods that are one chain differ only in their models, so one regularizer is enough for them."""
    is_quick = factory.averages or name == "GroupLasso"
    return pytest.param(factory, name, id=f"{name}-{factory.name}", marks=() if is_quick else pytest.mark.slow)


@pytest.mark.covering
@pytest.mark.parametrize(("factory", "name"), [lowering(f, name) for name in REGULARIZERS for f in FACTORIES])
def test_every_step_is_lowered_for_cpu_cuda_and_tpu(factory, name):
    if name == "Quantized" or (name == "NuclearNorm" and factory.name == "prox_ssi"):
        pytest.skip("as Binary; as ProxAdamW")
    calls = custom_calls(factory(REGULARIZERS[name], 0.1))
    if name == "NuclearNorm":
        assert calls
        assert all(
            re.match(r"lapack_|cusolver_|cublas_|cu_|Qr$|Eigh$|Householder|ProductOf|Sharding", call) for call in calls
        ), calls
    else:
        assert calls == set()


@pytest.mark.parametrize("solver", [ramda_jax.NewtonRaphson(), ramda_jax.ProximalGradient()], ids=repr)
def test_steps_of_the_other_solvers_are_lowered_for_cpu_cuda_and_tpu(solver):
    assert custom_calls(ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), strength=0.1, solver=solver)) == set()
