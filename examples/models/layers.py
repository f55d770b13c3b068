"""Parts of several models in Flax nnx: PyTorch's default initialisation and its batch norm."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for the weights of linear and convolutional layers. The papers'
# nets start there unless their code says otherwise.
torch_kernel = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
ones = nnx.initializers.ones_init()
kaiming_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def torch_bias(fan_in):
    """PyTorch's default for biases: the range of the layer's weights."""
    limit = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def linear(inputs, outputs, *, rngs, dtype, use_bias=True):
    """A linear layer with PyTorch's initialisation."""
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
    """A square convolution, with PyTorch's initialisation of the bias."""
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
    """PyTorch's batch norm. Its momentum 0.1 is the weight of the new batch, and Flax's 0.9 that of the old average.

    One difference remains: PyTorch's running variance, which only evaluation uses, is unbiased. So it is larger by n/(n
    - 1) for n values per channel (0.2 % for the 512 values of VGG19's last layer at batch 128).
    """
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, scale_init=scale_init, dtype=dtype, rngs=rngs)


def max_pool(x, size=2, strides=2, padding: Any = "VALID"):
    """Square max pooling."""
    return nnx.max_pool(x, (size, size), (strides, strides), padding)
