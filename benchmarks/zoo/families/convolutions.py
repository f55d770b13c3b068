"""Convolutional nets: flatten, batch norm, depthwise and grouped kernels, squeeze-and-excitation, concatenations."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, FUNCTION, LINEN, NNX, Entry, normal, units

TITLE = "convolutional nets"


class LeNet(nnx.Module):
    """With a flatten: a channel is 9 rows of the dense layer."""

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
    """Channels first, as Equinox has them, and a flatten that has a channel's 4 places in a row."""

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


class MobileNet(nnx.Module):
    def __init__(self, first, second, rngs):
        self.conv = nnx.Conv(3, first, (3, 3), strides=2, rngs=rngs)
        self.depthwise = nnx.Conv(first, first, (3, 3), feature_group_count=first, rngs=rngs)
        self.pointwise = nnx.Conv(first, second, (1, 1), rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(n, rngs=rngs) for n in (first, first, second)])
        self.dense = nnx.Linear(second, 3, rngs=rngs)

    def __call__(self, x):
        for layer, norm in zip((self.conv, self.depthwise, self.pointwise), self.norms, strict=True):
            x = jax.nn.relu6(norm(layer(x)))
        return self.dense(x.mean(axis=(1, 2)))


class ResNeXt(nnx.Module):
    """A grouped convolution between two of one pixel; whole groups go."""

    def __init__(self, groups, rngs):
        width = 2 * groups
        self.down = nnx.Conv(3, width, (1, 1), rngs=rngs)
        self.grouped = nnx.Conv(width, width, (3, 3), feature_group_count=groups, rngs=rngs)
        self.up = nnx.Conv(width, 3, (1, 1), rngs=rngs)

    def __call__(self, x):
        return x + self.up(nnx.relu(self.grouped(nnx.relu(self.down(x)))))


class SqueezeExcite(nn.Module):
    channels: int
    squeezed: int

    @nn.compact
    def __call__(self, x):
        x = nn.silu(nn.Conv(self.channels, (3, 3))(x))
        s = nn.relu(nn.Dense(self.squeezed)(x.mean(axis=(1, 2))))
        x = x * nn.sigmoid(nn.Dense(x.shape[-1])(s))[:, None, None]
        return nn.Conv(2, (1, 1))(x)


class MBConv(nn.Module):
    """EfficientNet's block: expand, depthwise, squeeze-and-excitation, project, with batch norm."""

    expanded: int
    squeezed: int

    @nn.compact
    def __call__(self, x):
        y = nn.silu(nn.BatchNorm(True)(nn.Conv(self.expanded, (1, 1), use_bias=False)(x)))
        y = nn.Conv(y.shape[-1], (3, 3), feature_group_count=y.shape[-1], use_bias=False)(y)
        y = nn.silu(nn.BatchNorm(True)(y))
        s = nn.silu(nn.Conv(self.squeezed, (1, 1))(y.mean(axis=(1, 2), keepdims=True)))
        y = y * nn.sigmoid(nn.Conv(y.shape[-1], (1, 1))(s))
        return x + nn.BatchNorm(True)(nn.Conv(x.shape[-1], (1, 1), use_bias=False)(y))


class ConvNeXt(nn.Module):
    """Depthwise with a wide kernel, LayerNorm, two dense layers, layer scale: the hidden units go."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(nn.Conv(x.shape[-1], (5, 5), feature_group_count=x.shape[-1])(x))
        y = nn.Dense(x.shape[-1], name="down")(nn.gelu(nn.Dense(self.hidden, name="up")(y)))
        return x + y * self.param("gamma", nn.initializers.ones, (x.shape[-1],))


class DenseNet(nnx.Module):
    """Each layer reads all those before it."""

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
    """Branches side by side."""

    branches: tuple[int, int, int]

    @nn.compact
    def __call__(self, x):
        a = nn.relu(nn.Conv(self.branches[0], (1, 1))(x))
        b = nn.relu(nn.Conv(self.branches[1], (3, 3))(x))
        c = nn.relu(nn.Conv(self.branches[2], (1, 1))(nn.max_pool(x, (3, 3), padding="SAME")))
        return nn.Conv(2, (1, 1))(jnp.concatenate([a, b, c], axis=-1))


class WaveNet(eqx.Module):
    """Gated dilated convolutions with a residual and a skip path."""

    first: eqx.nn.Conv1d
    filters: list
    gates: list
    residuals: list
    skips: list
    last: eqx.nn.Conv1d

    def __init__(self, stream, hidden, skip, key):
        keys = iter(jax.random.split(key, 10))
        self.first = eqx.nn.Conv1d(2, stream, 1, key=next(keys))
        dilated = [
            [eqx.nn.Conv1d(stream, hidden, 2, dilation=d, padding=((d, 0),), key=next(keys)) for d in (1, 2)]
            for _ in range(2)
        ]
        self.filters, self.gates = dilated
        self.residuals = [eqx.nn.Conv1d(hidden, stream, 1, key=next(keys))]
        self.skips = [eqx.nn.Conv1d(hidden, skip, 1, key=next(keys)) for _ in range(2)]
        self.last = eqx.nn.Conv1d(skip, 2, 1, key=next(keys))

    def __call__(self, x):
        x, skip = self.first(x), 0.0
        for number in range(2):
            h = jnp.tanh(self.filters[number](x)) * jax.nn.sigmoid(self.gates[number](x))
            skip = skip + self.skips[number](h)
            x = x + self.residuals[number](h) if number == 0 else x
        return self.last(jax.nn.relu(skip))


def plain(params, x):
    """Two convolutions by `jax.lax`, the second grouped by channel with two outputs each."""
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


def over_batch(model, *inputs):
    return jax.vmap(model)(*inputs)


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
        # Both outputs of a channel of the depthwise kernel are dead, and with them the channel.
        FUNCTION, plain_shapes, {"channels": 5}, {"channels": 3}, (units(5, ("out", 0, 2)),),
        normal(4, 4, 2), apply=plain,
    ),
    "MobileNet": Entry(
        NNX, MobileNet, {"first": 5, "second": 10}, {"first": 3, "second": 6},
        (units(5, ("pointwise/kernel", 2)), units(10, ("dense/kernel", 0))),
        normal(6, 6, 3),
    ),
    "ResNeXt, grouped": Entry(
        NNX, ResNeXt, {"groups": 5}, {"groups": 3}, (units(5, ("up/kernel", 2, 2)),), normal(4, 4, 3),
    ),
    "squeeze-and-excitation": Entry(
        LINEN, SqueezeExcite, {"channels": 10, "squeezed": 5}, {"channels": 6, "squeezed": 3},
        (
            units(10, ("params/Dense_0/kernel", 0), ("params/Conv_1/kernel", 2)),
            units(5, ("params/Dense_1/kernel", 0)),
        ),
        normal(4, 4, 2),
    ),
    "EfficientNet's MBConv": Entry(
        LINEN, MBConv, {"expanded": 10, "squeezed": 5}, {"expanded": 6, "squeezed": 3},
        (
            units(10, ("params/Conv_2/kernel", 2), ("params/Conv_4/kernel", 2)),
            units(5, ("params/Conv_3/kernel", 2)),
        ),
        normal(4, 4, 3),
    ),
    "ConvNeXt": Entry(
        LINEN, ConvNeXt, {"hidden": 10}, {"hidden": 6}, (units(10, ("params/down/kernel", 0)),), normal(5, 5, 4),
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
    "WaveNet": Entry(
        EQUINOX, WaveNet, {"stream": 5, "hidden": 5, "skip": 10}, {"stream": 3, "hidden": 3, "skip": 6},
        (
            units(5, *((f"{kind}/{i}/weight", 1) for kind in ("filters", "gates") for i in range(2))),
            units(5, ("residuals/0/weight", 1), ("skips/0/weight", 1)),
            units(5, ("skips/1/weight", 1)),
            units(10, ("last/weight", 1)),
        ),
        normal(2, 8), call=over_batch,
    ),
}  # fmt: skip
