"""LeNet5, large and small, for images of 28 x 28."""

import itertools

import jax.numpy as jnp
from flax import nnx

from examples.models.layers import conv, linear, max_pool


class LeNet5(nnx.Module):
    """Two convolutions of 5 x 5 with max pooling, then dense layers.

    large: 20 and 50 channels, 800-500-10; 431,080 parameters. (The ICLR paper's Table 12 says 3 x 3 kernels. Its code
    has 5 x 5 kernels and 800 inputs of the first dense layer, which 3 x 3 kernels would not give.) small: 6 and 16
    channels, the first padded, 400-120-84-10; 61,706 parameters.
    """

    def __init__(self, channels=(20, 50), hidden=(500,), padding="VALID", *, rngs, dtype=jnp.float32):
        first, second = channels
        side = {"VALID": 4, "SAME": 5}[padding]  # 28 -> 24 -> 12 -> 8 -> 4, or 28 -> 28 -> 14 -> 10 -> 5
        self.conv1 = conv(1, first, 5, padding=padding, rngs=rngs, dtype=dtype)
        self.conv2 = conv(first, second, 5, padding="VALID", rngs=rngs, dtype=dtype)
        widths = (side * side * second, *hidden, 10)
        self.dense = nnx.List(linear(a, b, rngs=rngs, dtype=dtype) for a, b in itertools.pairwise(widths))

    def __call__(self, x, *, rngs=None):
        x = max_pool(nnx.relu(self.conv1(x)))
        x = max_pool(nnx.relu(self.conv2(x)))
        x = x.reshape(x.shape[0], -1)
        for layer in self.dense[:-1]:
            x = nnx.relu(layer(x))
        return self.dense[-1](x)


def lenet5_small(*, rngs, dtype=jnp.float32):
    """The small LeNet5."""
    return LeNet5((6, 16), (120, 84), "SAME", rngs=rngs, dtype=dtype)
