"""A small network with kernels that can be split over eight devices, and a regularizer of every kind."""

import jax.numpy as jnp
import numpy as np

import ramda_jax

REGULARIZERS = {
    "None": None,
    "Null": ramda_jax.Null(),
    "L1": ramda_jax.L1(),
    "MCP": ramda_jax.MCP(3.0),
    "GroupLasso": ramda_jax.GroupLasso(),
    "GroupLasso of outputs": ramda_jax.GroupLasso("output"),
    "GroupMCP": ramda_jax.GroupMCP(omega=3.0),
    "SparseGroupLasso": ramda_jax.SparseGroupLasso(),
    "SparseGroupMCP": ramda_jax.SparseGroupMCP(omega=3.0),
    "Box": ramda_jax.Box(0.1),
    "Binary": ramda_jax.Binary(),
    "Quantized": ramda_jax.Quantized((-1.0, 0.0, 1.0)),
    "TopGroups": ramda_jax.TopGroups(0.5),
    "TopEntries": ramda_jax.TopEntries(0.7, over="all"),
    "NofM": ramda_jax.NofM(2, 4),
    "NuclearNorm": ramda_jax.NuclearNorm(),
}


def make_params(dtype, seed=0):
    """A convolution that is applied at one place, and two dense layers."""
    rng = np.random.default_rng(seed)

    def layer(*shape):
        kernel = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        return {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.zeros(shape[-1], dtype)}

    return {"conv": layer(2, 2, 8, 16), "first": layer(16, 24), "second": layer(24, 8)}


def apply(params, x):
    h = jnp.einsum("nhwi,hwio->no", x, params["conv"]["kernel"]) + params["conv"]["bias"]
    h = jnp.tanh(h) @ params["first"]["kernel"] + params["first"]["bias"]
    return jnp.tanh(h) @ params["second"]["kernel"] + params["second"]["bias"]


def loss(params, batch):
    x, y = batch
    return jnp.mean((apply(params, x.astype(params["conv"]["kernel"].dtype)) - y) ** 2)


def batches(count, size=32, seed=1, start=0):
    """`count` batches (x, y) in float32, from batch number `start` on. y depends on half of the inputs."""
    for number in range(start, start + count):
        x = np.random.default_rng((seed, number)).normal(size=(size, 2, 2, 8)).astype(np.float32)
        yield x, np.tanh(x[:, 0, 0, :].repeat(2, axis=1)[:, :8])
