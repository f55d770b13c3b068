"""The recipe for ONNX in docs/compaction.md. `make test-onnx` runs it in its own environment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ramda_jax.compaction import compact_model

jax2onnx = pytest.importorskip("jax2onnx", reason="`make test-onnx` installs it in an environment of its own")
onnxruntime = pytest.importorskip("onnxruntime")


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 6, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(6, 8, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(4 * 4 * 8, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        return self.dense(x.reshape(x.shape[0], -1))


def test_a_compact_model_computes_the_same_in_onnxruntime():
    net = Net(nnx.Rngs(0))
    net.conv2.kernel.set_value(net.conv2.kernel.get_value().at[:, :, 2:].set(0))
    images = np.asarray(jax.random.normal(jax.random.key(0), (3, 8, 8, 1)))
    small = compact_model(net, jnp.asarray(images))
    assert small.model.conv1.kernel.get_value().shape == (3, 3, 1, 2)

    exported = jax2onnx.to_onnx(small.model, [("batch", 8, 8, 1)])
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    [outputs] = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(outputs, net(jnp.asarray(images)), rtol=1e-4, atol=1e-5)
