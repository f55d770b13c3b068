"""Multinomial logistic regression."""

import jax.numpy as jnp
from flax import nnx


class Linear(nnx.Module):
    """One linear layer; 784 -> 10 has 7,850 parameters, and 784 groups, which are the pixels.

    It starts at the origin, as in the NeurIPS paper (appendix C) and in the ICLR paper's script. The NeurIPS paper's
    script starts at random.
    """

    def __init__(self, inputs=784, classes=10, *, rngs, dtype=jnp.float32):
        zeros = nnx.initializers.zeros_init()
        self.dense = nnx.Linear(inputs, classes, kernel_init=zeros, bias_init=zeros, dtype=dtype, rngs=rngs)

    def __call__(self, x, *, rngs=None):
        return self.dense(x.reshape(len(x), -1))
