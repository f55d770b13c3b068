"""Residual nets with one stream, several streams, and shortcuts padded with zeros."""

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import LINEN, NNX, Entry, normal, units

TITLE = "residual nets"


class Basic(nnx.Module):
    def __init__(self, stream, hidden, rngs):
        self.conv1 = nnx.Conv(stream, hidden, (3, 3), use_bias=False, rngs=rngs)
        self.conv2 = nnx.Conv(hidden, stream, (3, 3), use_bias=False, rngs=rngs)
        self.norm1, self.norm2 = nnx.BatchNorm(hidden, rngs=rngs), nnx.BatchNorm(stream, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(x + self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x))))))


class ResNet(nnx.Module):
    """Two basic blocks on one stream."""

    def __init__(self, stream, hidden, rngs):
        self.first = nnx.Conv(3, stream, (3, 3), rngs=rngs)
        self.blocks = nnx.List([Basic(stream, hidden, rngs) for _ in range(2)])
        self.dense = nnx.Linear(stream, 3, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean(axis=(1, 2)))


class Bottleneck(nn.Module):
    width: int
    stream: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.BatchNorm(True)(nn.Conv(self.width, (1, 1), use_bias=False)(x)))
        y = nn.relu(nn.BatchNorm(True)(nn.Conv(self.width, (3, 3), self.stride, use_bias=False)(y)))
        y = nn.BatchNorm(True)(nn.Conv(self.stream, (1, 1), use_bias=False)(y))
        if self.stride > 1:
            x = nn.BatchNorm(True, name="norm")(nn.Conv(self.stream, (1, 1), self.stride, name="shortcut")(x))
        return nn.relu(x + y)


class ResNetBottleneck(nn.Module):
    """Bottlenecks. The second has a projection, so another stream follows it."""

    width: int
    streams: tuple[int, int]

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.streams[0], (3, 3))(x)
        x = Bottleneck(self.width, self.streams[0])(x)
        x = Bottleneck(self.width, self.streams[1], 2)(x)
        return nn.Dense(3)(x.mean(axis=(1, 2)))


class PaddedShortcut(nn.Module):
    """The first ResNets' shortcut: zeros pad the stream where it becomes wider."""

    narrow: int
    wide: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.narrow, (3, 3))(x))
        y = nn.Conv(self.wide, (3, 3), 2)(x)
        x = x[:, ::2, ::2]
        x = nn.relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, y.shape[-1] - x.shape[-1]))))
        return nn.Dense(3)(x.mean(axis=(1, 2)))


ENTRIES = {
    "ResNet": Entry(
        NNX, ResNet, {"stream": 5, "hidden": 5}, {"stream": 3, "hidden": 3},
        (
            units(5, ("blocks/0/conv1/kernel", 2), ("blocks/1/conv1/kernel", 2), ("dense/kernel", 0)),
            units(5, ("blocks/0/conv2/kernel", 2)),
            units(5, ("blocks/1/conv2/kernel", 2)),
        ),
        normal(4, 4, 3),
    ),
    "ResNet, bottleneck": Entry(
        LINEN, ResNetBottleneck, {"width": 5, "streams": (5, 10)}, {"width": 3, "streams": (3, 6)},
        (
            units(5, *(
                (f"params/{kernel}/kernel", 2)
                for kernel in ("Bottleneck_0/Conv_0", "Bottleneck_1/Conv_0", "Bottleneck_1/shortcut")
            )),
            units(10, ("params/Dense_0/kernel", 0)),
            *(units(5, (f"params/Bottleneck_{i}/Conv_{j}/kernel", 2)) for i in range(2) for j in (1, 2)),
        ),
        normal(4, 4, 3),
    ),
    "ResNet, zero-padded shortcut": Entry(
        # In the wide stream 4 of 10 channels are dead, 2 of them among the first 5, which are those of the narrow
        # stream.
        LINEN, PaddedShortcut, {"narrow": 5, "wide": 10}, {"narrow": 3, "wide": 6},
        (
            units(5, ("params/Conv_1/kernel", 2), ("params/Dense_0/kernel", 0, 1, 0, 5)),
            units(5, ("params/Dense_0/kernel", 0, 1, 5)),
        ),
        normal(4, 4, 3),
    ),
}  # fmt: skip
