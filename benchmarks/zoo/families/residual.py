"""Residual nets, nets shaped like a U, detector necks, generators, mixers, operators."""

import itertools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, FUNCTION, LINEN, NNX, Entry, normal, units

TITLE = "residual nets, U-Nets, necks"


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
    """Bottlenecks; the second has a projection, and so a stream of its own behind it."""

    width: int
    streams: tuple[int, int]

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.streams[0], (3, 3))(x)
        x = Bottleneck(self.width, self.streams[0])(x)
        x = Bottleneck(self.width, self.streams[1], 2)(x)
        return nn.Dense(3)(x.mean(axis=(1, 2)))


class PaddedShortcut(nn.Module):
    """The first ResNets' shortcut: where the stream grows wider it is padded with zeros."""

    narrow: int
    wide: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.narrow, (3, 3))(x))
        y = nn.Conv(self.wide, (3, 3), 2)(x)
        x = x[:, ::2, ::2]
        x = nn.relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, y.shape[-1] - x.shape[-1]))))
        return nn.Dense(3)(x.mean(axis=(1, 2)))


class UNet(nn.Module):
    """Segmentation: down, up by a transposed convolution, and the first maps beside."""

    one: int
    two: int
    up: int
    last: int

    @nn.compact
    def __call__(self, x):
        a = nn.relu(nn.Conv(self.one, (3, 3))(x))
        b = nn.relu(nn.Conv(self.two, (3, 3))(nn.max_pool(a, (2, 2), (2, 2))))
        c = nn.ConvTranspose(self.up, (2, 2), (2, 2))(b)
        y = nn.relu(nn.Conv(self.last, (3, 3))(jnp.concatenate([c, a], axis=-1)))
        return nn.Conv(2, (1, 1))(y)


class UNet1D(eqx.Module):
    down1: eqx.nn.Conv1d
    down2: eqx.nn.Conv1d
    up: eqx.nn.ConvTranspose1d
    out: eqx.nn.Conv1d

    def __init__(self, one, two, up, key):
        keys = jax.random.split(key, 4)
        self.down1 = eqx.nn.Conv1d(2, one, 3, padding=1, key=keys[0])
        self.down2 = eqx.nn.Conv1d(one, two, 3, stride=2, padding=1, key=keys[1])
        self.up = eqx.nn.ConvTranspose1d(two, up, 2, stride=2, key=keys[2])
        self.out = eqx.nn.Conv1d(one + up, 2, 1, key=keys[3])

    def __call__(self, x):
        a = jax.nn.gelu(self.down1(x))
        b = jax.nn.gelu(self.down2(a))
        return self.out(jnp.concatenate([a, jax.nn.gelu(self.up(b))]))


class Neck(nnx.Module):
    """A feature pyramid on two stages: what is coarse is enlarged and added, one head reads both."""

    def __init__(self, stages, pyramid, rngs):
        self.stage1 = nnx.Conv(3, stages[0], (3, 3), rngs=rngs)
        self.stage2 = nnx.Conv(stages[0], stages[1], (3, 3), strides=2, rngs=rngs)
        self.lateral = nnx.List([nnx.Conv(n, pyramid, (1, 1), rngs=rngs) for n in stages])
        self.head = nnx.Conv(pyramid, 2, (3, 3), rngs=rngs)

    def __call__(self, x):
        fine = nnx.relu(self.stage1(x))
        coarse = nnx.relu(self.stage2(fine))
        top = self.lateral[1](coarse)
        down = jax.image.resize(top, (*fine.shape[:3], top.shape[-1]), "nearest") + self.lateral[0](fine)
        return self.head(down), self.head(top)


class Generator(nnx.Module):
    """DCGAN's: a vector becomes channels on a small square, then larger squares."""

    def __init__(self, first, second, rngs):
        self.dense = nnx.Linear(4, 4 * first, rngs=rngs)
        self.norm = nnx.BatchNorm(first, rngs=rngs)
        self.up = nnx.ConvTranspose(first, second, (3, 3), strides=(2, 2), rngs=rngs)
        self.out = nnx.ConvTranspose(second, 1, (3, 3), strides=(2, 2), rngs=rngs)

    def __call__(self, z):
        x = self.dense(z).reshape(len(z), 2, 2, -1)
        return nnx.tanh(self.out(nnx.relu(self.up(nnx.relu(self.norm(x))))))


class Mixer(nn.Module):
    """MLPs over patches and over channels by turns; their hidden units go."""

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


def fourier_operator(params, x):
    """A Fourier neural operator: products of the low frequencies with complex matrices, and a skip."""
    x = x @ params["lift"]
    for layer in params["layers"]:
        modes = layer["real"].shape[0]
        low = jnp.fft.rfft(x, axis=1)[:, :modes]
        low = jnp.einsum("bkc,kcd->bkd", low, layer["real"] + 1j * layer["imaginary"])
        x = jax.nn.gelu(jnp.fft.irfft(low, n=x.shape[1], axis=1) + x @ layer["skip"])
    return x @ params["project"]


def operator_shapes(widths):
    layers = [{"real": (3, m, n), "imaginary": (3, m, n), "skip": (m, n)} for m, n in itertools.pairwise(widths)]
    return {"lift": (2, widths[0]), "layers": layers, "project": (widths[-1], 1)}


def over_batch(model, *inputs):
    return jax.vmap(model)(*inputs)


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
        # Of the wide stream 4 of 10 are dead, 2 of them among the 5 that the narrow one is padded to.
        LINEN, PaddedShortcut, {"narrow": 5, "wide": 10}, {"narrow": 3, "wide": 6},
        (
            units(5, ("params/Conv_1/kernel", 2), ("params/Dense_0/kernel", 0, 1, 0, 5)),
            units(5, ("params/Dense_0/kernel", 0, 1, 5)),
        ),
        normal(4, 4, 3),
    ),
    "U-Net": Entry(
        LINEN, UNet, {"one": 5, "two": 5, "up": 5, "last": 10}, {"one": 3, "two": 3, "up": 3, "last": 6},
        (
            units(5, ("params/Conv_1/kernel", 2), ("params/Conv_2/kernel", 2, 1, 5)),
            units(5, ("params/ConvTranspose_0/kernel", 2)),
            units(5, ("params/Conv_2/kernel", 2, 1, 0, 5)),
            units(10, ("params/Conv_3/kernel", 2)),
        ),
        normal(4, 4, 1),
    ),
    "U-Net in one dimension": Entry(
        EQUINOX, UNet1D, {"one": 5, "two": 10, "up": 5}, {"one": 3, "two": 6, "up": 3},
        (
            units(5, ("down2/weight", 1), ("out/weight", 1, 1, 0, 5)),
            units(10, ("up/weight", 1)),
            units(5, ("out/weight", 1, 1, 5)),
        ),
        normal(2, 8), call=over_batch,
    ),
    "feature pyramid": Entry(
        NNX, Neck, {"stages": (5, 10), "pyramid": 5}, {"stages": (3, 6), "pyramid": 3},
        (
            units(5, ("stage2/kernel", 2), ("lateral/0/kernel", 2)),
            units(10, ("lateral/1/kernel", 2)),
            units(5, ("head/kernel", 2)),
        ),
        normal(4, 4, 3),
    ),
    "generator": Entry(
        NNX, Generator, {"first": 5, "second": 5}, {"first": 3, "second": 3},
        (units(5, ("up/kernel", 2)), units(5, ("out/kernel", 2))),
        normal(4),
    ),
    "MLP-Mixer": Entry(
        LINEN, Mixer, {"patches": 10, "channels": 15}, {"patches": 6, "channels": 9},
        (units(10, ("params/patch_down/kernel", 0)), units(15, ("params/down/kernel", 0))),
        normal(4, 4, 2),
    ),
    "Fourier operator": Entry(
        FUNCTION, operator_shapes, {"widths": (5, 5, 10)}, {"widths": (3, 3, 6)},
        (
            *(
                units(5, *((f"layers/{i}/{name}", axis) for name, axis in (("real", 1), ("imaginary", 1), ("skip", 0))))
                for i in range(2)
            ),
            units(10, ("project", 0)),
        ),
        normal(8, 2), apply=fourier_operator,
    ),
}  # fmt: skip
