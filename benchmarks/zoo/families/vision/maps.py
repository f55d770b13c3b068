"""From images to images: U-shaped nets, pyramids, generators, channels to pixels, and masks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.zoo.entry import FUNCTION, LINEN, NNX, Entry, normal, units

TITLE = "images from images"


class GroupNormed(nn.Module):
    """A net with linen's GroupNorm, which stores the number of groups, and with batch statistics."""

    groups: int
    last: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2 * self.groups, (3, 3))(x)
        x = nn.relu(nn.GroupNorm(num_groups=self.groups)(x))
        x = nn.relu(nn.Conv(self.last, (3, 3))(x))
        return nn.Dense(3)(x.mean(axis=(1, 2)))


class SuperResolution(nn.Module):
    """Channels become pixels, four channels each."""

    channels: int
    after: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.channels, (3, 3))(x))
        x = nn.Conv(4 * self.after, (3, 3))(x)
        b, h, w, _ = x.shape
        x = x.reshape(b, h, w, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, -1)
        return nn.Conv(1, (3, 3))(nn.relu(x))


def masked(params, x):
    """PixelCNN: kernels times a mask of the visible positions."""
    mask = np.ones((3, 3, 1, 1), np.float32)
    mask[2], mask[1, 1:] = 0, 0
    numbers = ("NHWC", "HWIO", "NHWC")
    for name in ("one", "two"):
        kernel = params[name] * mask
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        x = jax.nn.relu(x + params[f"{name}_bias"])
    return jnp.einsum("bhwc,co->bhwo", x, params["out"])


def masked_shapes(one, two):
    return {
        "one": (3, 3, 1, one), "one_bias": (one,), "two": (3, 3, one, two), "two_bias": (two,), "out": (two, 2)
    }  # fmt: skip


class UNet(nn.Module):
    """Segmentation: down, up with a transposed convolution, and concatenated with the first maps."""

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


class Neck(nnx.Module):
    """A feature pyramid on two stages: the coarse maps are enlarged and added, and one head reads both."""

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
    """DCGAN's generator: a vector becomes channels on a small square, then on larger squares."""

    def __init__(self, first, second, rngs):
        self.dense = nnx.Linear(4, 4 * first, rngs=rngs)
        self.norm = nnx.BatchNorm(first, rngs=rngs)
        self.up = nnx.ConvTranspose(first, second, (3, 3), strides=(2, 2), rngs=rngs)
        self.out = nnx.ConvTranspose(second, 1, (3, 3), strides=(2, 2), rngs=rngs)

    def __call__(self, z):
        x = self.dense(z).reshape(len(z), 2, 2, -1)
        return nnx.tanh(self.out(nnx.relu(self.up(nnx.relu(self.norm(x))))))


ENTRIES = {
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
    "super-resolution": Entry(
        LINEN, SuperResolution, {"channels": 5, "after": 5}, {"channels": 3, "after": 3},
        (units(5, ("params/Conv_1/kernel", 2)), units(5, ("params/Conv_2/kernel", 2))),
        normal(4, 4, 1),
    ),
    "masked convolutions": Entry(
        FUNCTION, masked_shapes, {"one": 5, "two": 10}, {"one": 3, "two": 6},
        (units(5, ("two", 2)), units(10, ("out", 0))),
        normal(4, 4, 1), apply=masked,
    ),
    "GroupNorm": Entry(
        LINEN, GroupNormed, {"groups": 5, "last": 10}, {"groups": 3, "last": 6},
        (units(5, ("params/Conv_1/kernel", 2, 2)), units(10, ("params/Dense_0/kernel", 0))),
        normal(4, 4, 2),
    ),
}  # fmt: skip
