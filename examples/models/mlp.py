"""The multilayer perceptron of both papers."""

import itertools

import jax.numpy as jnp
from flax import nnx

from examples.models.layers import linear


class MLP(nnx.Module):
    """784-512-256-128-64-32-16-10 with ReLU, which has 577,178 parameters.

    It has seven linear layers, as in the code; the NeurIPS paper says six.
    """

    def __init__(self, widths=(784, 512, 256, 128, 64, 32, 16, 10), *, rngs, dtype=jnp.float32):
        self.layers = nnx.List(linear(a, b, rngs=rngs, dtype=dtype) for a, b in itertools.pairwise(widths))

    def __call__(self, x, *, rngs=None):
        x = x.reshape(len(x), -1)
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)
