"""Convolutional nets: flatten, batch norm, branches, concatenations, layouts with channels first."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, FUNCTION, LINEN, NNX, Entry, normal, over_batch, units

TITLE = "convolutional nets"


class LeNet(nnx.Module):
    """A net with a flatten: a channel is 9 rows of the dense layer."""

    def __init__(self, channels, hidden, rngs):
        self.conv1, self.conv2 = (
            nnx.Conv(1, channels, (3, 3), rngs=rngs),
            nnx.Conv(channels, channels, (3, 3), rngs=rngs),
        )
        self.dense1, self.dense2 = nnx.Linear(9 * channels, hidden, rngs=rngs), nnx.Linear(hidden, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.tanh(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.tanh(self.conv2(x)).reshape(len(x), -1)
        return self.dense2(nnx.relu(self.dense1(x)))


class VGG(nn.Module):
    channels: tuple[int, int]

    @nn.compact
    def __call__(self, x):
        for width in self.channels:
            x = nn.Conv(width, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(3)(x.mean(axis=(1, 2)))


class Channelwise(eqx.Module):
    """Channels first, as in Equinox, and a flatten after which the 4 positions of a channel are adjacent."""

    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d
    dense: eqx.nn.Linear

    def __init__(self, one, two, key):
        keys = jax.random.split(key, 3)
        self.conv1 = eqx.nn.Conv2d(2, one, 3, stride=2, padding=1, key=keys[0])
        self.conv2 = eqx.nn.Conv2d(one, two, 3, stride=2, padding=1, key=keys[1])
        self.dense = eqx.nn.Linear(4 * two, 3, key=keys[2])

    def __call__(self, x):
        return self.dense(jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x)))).ravel())


class DenseNet(nnx.Module):
    """Each layer reads all layers before it."""

    def __init__(self, first, growth, rngs):
        self.first = nnx.Conv(3, first, (3, 3), rngs=rngs)
        widths = (first, first + growth)
        self.norms = nnx.List([nnx.BatchNorm(n, rngs=rngs) for n in widths])
        self.convs = nnx.List([nnx.Conv(n, growth, (3, 3), rngs=rngs) for n in widths])
        self.dense = nnx.Linear(first + 2 * growth, 3, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = jnp.concatenate([x, conv(nnx.relu(norm(x)))], axis=-1)
        return self.dense(x.mean(axis=(1, 2)))


class Inception(nn.Module):
    """Parallel branches that are concatenated."""

    branches: tuple[int, int, int]

    @nn.compact
    def __call__(self, x):
        a = nn.relu(nn.Conv(self.branches[0], (1, 1))(x))
        b = nn.relu(nn.Conv(self.branches[1], (3, 3))(x))
        c = nn.relu(nn.Conv(self.branches[2], (1, 1))(nn.max_pool(x, (3, 3), padding="SAME")))
        return nn.Conv(2, (1, 1))(jnp.concatenate([a, b, c], axis=-1))


def plain(params, x):
    """Two convolutions with `jax.lax`; the second is depthwise with two outputs per channel."""
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, params["conv"], (1, 1), "SAME", dimension_numbers=numbers) + params["bias"]
    x = jax.nn.relu(x)
    x = jax.lax.conv_general_dilated(
        x, params["doubled"], (2, 2), "SAME", dimension_numbers=numbers, feature_group_count=x.shape[-1]
    )
    return jnp.tanh(x).mean(axis=(1, 2)) @ params["out"]


def plain_shapes(channels):
    return {
        "conv": (3, 3, 2, channels), "bias": (channels,), "doubled": (3, 3, 1, 2 * channels), "out": (2 * channels, 3)
    }  # fmt: skip


ENTRIES = {
    "LeNet with flatten": Entry(
        NNX, LeNet, {"channels": 5, "hidden": 10}, {"channels": 3, "hidden": 6},
        (
            units(5, ("conv2/kernel", 2)),
            units(5, ("dense1/kernel", 0)),
            units(10, ("dense2/kernel", 0)),
        ),
        normal(6, 6, 1),
    ),
    "VGG with batch norm": Entry(
        LINEN, VGG, {"channels": (5, 10)}, {"channels": (3, 6)},
        (units(5, ("params/Conv_1/kernel", 2)), units(10, ("params/Dense_0/kernel", 0))),
        normal(4, 4, 2),
    ),
    "channels first with flatten": Entry(
        EQUINOX, Channelwise, {"one": 5, "two": 10}, {"one": 3, "two": 6},
        (units(5, ("conv2/weight", 1)), units(10, ("dense/weight", 1, 4))),
        normal(2, 8, 8), call=over_batch,
    ),
    "convolutions of jax.lax": Entry(
        # Both outputs of a channel of the depthwise kernel are dead, so the channel is dead.
        FUNCTION, plain_shapes, {"channels": 5}, {"channels": 3}, (units(5, ("out", 0, 2)),),
        normal(4, 4, 2), apply=plain,
    ),
    "DenseNet": Entry(
        NNX, DenseNet, {"first": 5, "growth": 5}, {"first": 3, "growth": 3},
        (
            units(5, ("convs/0/kernel", 2), ("convs/1/kernel", 2, 1, 0, 5), ("dense/kernel", 0, 1, 0, 5)),
            units(5, ("convs/1/kernel", 2, 1, 5), ("dense/kernel", 0, 1, 5, 10)),
            units(5, ("dense/kernel", 0, 1, 10)),
        ),
        normal(4, 4, 3),
    ),
    "Inception": Entry(
        LINEN, Inception, {"branches": (5, 5, 10)}, {"branches": (3, 3, 6)},
        (
            units(5, ("params/Conv_3/kernel", 2, 1, 0, 5)),
            units(5, ("params/Conv_3/kernel", 2, 1, 5, 10)),
            units(10, ("params/Conv_3/kernel", 2, 1, 10)),
        ),
        normal(4, 4, 2),
    ),
}  # fmt: skip
