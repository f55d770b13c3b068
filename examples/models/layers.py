"""What several models share: PyTorch's default initialisation and its batch norm, in Flax nnx."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for the weights of linear and convolutional layers: the papers'
# nets start there wherever their code does not say otherwise.
torch_kernel = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
ones = nnx.initializers.ones_init()
kaiming_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def torch_bias(fan_in):
    """PyTorch's default for biases, which have the range of their layer's weights."""
    limit = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def linear(inputs, outputs, *, rngs, dtype, use_bias=True):
    """A linear layer as PyTorch initialises it."""
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=use_bias,
        kernel_init=torch_kernel,
        bias_init=torch_bias(inputs),
        dtype=dtype,
        rngs=rngs,
    )


def conv(
    inputs,
    outputs,
    size,
    *,
    rngs,
    dtype,
    strides=1,
    padding: str | tuple = "SAME",
    use_bias=True,
    kernel_init=torch_kernel,
):
    """A square convolution; its bias as PyTorch initialises it."""
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=strides,
        padding=padding,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=torch_bias(inputs * size * size),
        dtype=dtype,
        rngs=rngs,
    )


def batch_norm(features, *, rngs, dtype, scale_init=ones):
    """PyTorch's batch norm: its momentum of 0.1 is the weight of the new batch, Flax's 0.9 that of the old average.

    What differs: PyTorch's running variance is the unbiased one, larger by n/(n - 1) for n values per channel (0.2 %
    for the 512 of VGG19's last layer at batch 128); it is used in evaluation only.
    """
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, scale_init=scale_init, dtype=dtype, rngs=rngs)


def max_pool(x, size=2, strides=2, padding: Any = "VALID"):
    """Square max pooling."""
    return nnx.max_pool(x, (size, size), (strides, strides), padding)
