"""Blocks of convolutional nets: depthwise and grouped kernels, squeeze-and-excitation, bottlenecks, shuffles."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import LINEN, NNX, Entry, normal, units

TITLE = "convolutional blocks"


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
    """A grouped convolution between two 1 x 1 convolutions. Whole groups are removed."""

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
    """A depthwise convolution with a wide kernel, LayerNorm, dense layers and layer scale. Hidden units are removed."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(nn.Conv(x.shape[-1], (5, 5), feature_group_count=x.shape[-1])(x))
        y = nn.Dense(x.shape[-1], name="down")(nn.gelu(nn.Dense(self.hidden, name="up")(y)))
        return x + y * self.param("gamma", nn.initializers.ones, (x.shape[-1],))


class Shuffle(nnx.Module):
    """ShuffleNet: a reshape shuffles the channels of two groups. Pairs of channels are removed, one of each group."""

    def __init__(self, half, rngs):
        self.first = nnx.Conv(4, 2 * half, (1, 1), feature_group_count=2, rngs=rngs)
        self.depthwise = nnx.Conv(2 * half, 2 * half, (3, 3), feature_group_count=2 * half, rngs=rngs)
        self.last = nnx.Conv(2 * half, 4, (1, 1), rngs=rngs)

    def __call__(self, x):
        y = nnx.relu(self.first(x))
        y = y.reshape(*y.shape[:3], 2, -1).swapaxes(3, 4).reshape(y.shape)
        return x + self.last(self.depthwise(y))


class Mixer(nn.Module):
    """MLPs over patches and over channels alternately. Their hidden units are removed."""

    patches: int
    channels: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (2, 2), (2, 2))(x).reshape(len(x), -1, 4)
        y = jnp.swapaxes(nn.LayerNorm()(x), 1, 2)
        y = nn.Dense(x.shape[1], name="patch_down")(nn.gelu(nn.Dense(self.patches, name="patch_up")(y)))
        x = x + jnp.swapaxes(y, 1, 2)
        y = nn.gelu(nn.Dense(self.channels, name="up")(nn.LayerNorm()(x)))
        x = x + nn.Dense(4, name="down")(y)
        return nn.Dense(3)(x.mean(axis=1))


ENTRIES = {
    "MobileNet": Entry(
        NNX, MobileNet, {"first": 5, "second": 10}, {"first": 3, "second": 6},
        (units(5, ("pointwise/kernel", 2)), units(10, ("dense/kernel", 0))),
        normal(6, 6, 3),
    ),
    "ResNeXt, grouped": Entry(
        NNX, ResNeXt, {"groups": 5}, {"groups": 3}, (units(5, ("up/kernel", 2, 2)),), normal(4, 4, 3),
    ),
    "ShuffleNet": Entry(
        # Channel c of the two groups is read at 2 c and 2 c + 1.
        NNX, Shuffle, {"half": 5}, {"half": 3}, (units(5, ("last/kernel", 2, 2)),), normal(4, 4, 4),
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
    "MLP-Mixer": Entry(
        LINEN, Mixer, {"patches": 10, "channels": 15}, {"patches": 6, "channels": 9},
        (units(10, ("params/patch_down/kernel", 0)), units(15, ("params/down/kernel", 0))),
        normal(4, 4, 2),
    ),
}  # fmt: skip
