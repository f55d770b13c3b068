"""The net of the ICLR paper's synthetic experiment: one convolution and one dense layer."""

import jax.numpy as jnp
from flax import nnx

from examples.models.layers import conv, linear


class SyntheticConvNet(nnx.Module):
    """A 3 x 3 convolution with ReLU, then a dense layer with a bias on all of its outputs.

    (The paper names one convolution and one fully connected layer, without sizes.)
    """

    def __init__(self, side=6, channels=16, filters=8, classes=4, *, rngs, dtype=jnp.float32):
        self.conv = conv(channels, filters, 3, padding="VALID", use_bias=False, rngs=rngs, dtype=dtype)
        self.dense = linear((side - 2) ** 2 * filters, classes, rngs=rngs, dtype=dtype)

    def __call__(self, x, *, rngs=None):
        x = nnx.relu(self.conv(x))
        return self.dense(x.reshape(len(x), -1))
