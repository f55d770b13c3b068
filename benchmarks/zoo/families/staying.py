"""Where something has to stay, or is hard to see through: shuffles, masks, constants, random numbers, precision."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.zoo.entry import FUNCTION, LINEN, NNX, Entry, normal, units

TITLE = "hard to see through"


class Shuffle(nnx.Module):
    """ShuffleNet: two groups, whose channels are mixed by a reshape; pairs go, one of each group."""

    def __init__(self, half, rngs):
        self.first = nnx.Conv(4, 2 * half, (1, 1), feature_group_count=2, rngs=rngs)
        self.depthwise = nnx.Conv(2 * half, 2 * half, (3, 3), feature_group_count=2 * half, rngs=rngs)
        self.last = nnx.Conv(2 * half, 4, (1, 1), rngs=rngs)

    def __call__(self, x):
        y = nnx.relu(self.first(x))
        y = y.reshape(*y.shape[:3], 2, -1).swapaxes(3, 4).reshape(y.shape)
        return x + self.last(self.depthwise(y))


class SuperResolution(nn.Module):
    """Channels become pixels, four each."""

    channels: int
    after: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.channels, (3, 3))(x))
        x = nn.Conv(4 * self.after, (3, 3))(x)
        b, h, w, _ = x.shape
        x = x.reshape(b, h, w, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, -1)
        return nn.Conv(1, (3, 3))(nn.relu(x))


class Precise(nnx.Module):
    """Computes in bfloat16, with parameters and outputs in float32."""

    def __init__(self, hidden, rngs):
        self.layers = nnx.List([nnx.Linear(6, hidden, dtype=jnp.bfloat16, rngs=rngs)])
        self.layers.append(nnx.Linear(hidden, hidden, dtype=jnp.bfloat16, rngs=rngs))
        self.last = nnx.Linear(hidden, 3, dtype=jnp.bfloat16, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.silu(layer(x))
        return self.last(x).astype(jnp.float32)


def masked(params, x):
    """PixelCNN: kernels times a mask of the places that are seen."""
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


def linear_biases(params, x):
    """ALiBi: each head has a slope of its own, in an array that the code holds, so that no head can go."""
    slopes = np.array([0.5, 0.25, 0.125, 0.0625, 0.03125], np.float32)
    q, k, v = (jnp.einsum("btc,cnh->btnh", x, params[name]) for name in "qkv")
    places = jnp.arange(x.shape[1])
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) - slopes[:, None, None] * jnp.abs(places[:, None] - places)
    y = jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(scores), v)
    x = x + jnp.einsum("btnh,nhc->btc", y, params["o"])
    return x + jax.nn.relu(x @ params["up"]) @ params["down"]


def bias_shapes(heads, value, hidden):
    return {
        "q": (4, heads, 2), "k": (4, heads, 2), "v": (4, heads, value), "o": (heads, value, 4),
        "up": (4, hidden), "down": (hidden, 4),
    }  # fmt: skip


def sampled(params, x):
    """A variational autoencoder that draws as many random numbers as it has latents: fewer would be other numbers."""
    h = jax.nn.relu(x @ params["encoder"])
    mean, deviation = h @ params["mean"], jnp.exp(h @ params["deviation"])
    z = mean + deviation * jax.random.normal(jax.random.key(3), mean.shape)
    return jax.nn.relu(z @ params["decoder"]) @ params["out"]


def sampled_shapes(hidden, latent, decoder):
    return {
        "encoder": (6, hidden), "mean": (hidden, latent), "deviation": (hidden, latent),
        "decoder": (latent, decoder), "out": (decoder, 6),
    }  # fmt: skip


def standardised(params, x):
    """Kernels have mean 0 and variance 1 over their inputs before they are used: what was zero is so no longer."""

    def standard(kernel):
        return (kernel - kernel.mean(0)) / (kernel.std(0) + 1e-3)

    h = jax.nn.relu(x @ standard(params["one"]))
    return jax.nn.relu(h @ standard(params["two"])) @ params["out"]


def standard_shapes(one, two):
    return {"one": (6, one), "two": (one, two), "out": (two, 2)}


def normalised_weights(params, x):
    """Weight norm: a direction over its length, times a number for each output; zero rows of it change no length."""

    def kernel(layer):
        return layer["v"] / jnp.sqrt((layer["v"] ** 2).sum(0)) * layer["g"]

    h = jnp.tanh(x @ kernel(params["one"]))
    return jnp.tanh(h @ kernel(params["two"])) @ params["out"]


def direction_shapes(one, two):
    return {"one": {"v": (6, one), "g": (one,)}, "two": {"v": (one, two), "g": (two,)}, "out": (two, 2)}


ENTRIES = {
    "ShuffleNet": Entry(
        # Channel c of both groups is read at 2 c and 2 c + 1.
        NNX, Shuffle, {"half": 5}, {"half": 3}, (units(5, ("last/kernel", 2, 2)),), normal(4, 4, 4),
    ),
    "super-resolution": Entry(
        LINEN, SuperResolution, {"channels": 5, "after": 5}, {"channels": 3, "after": 3},
        (units(5, ("params/Conv_1/kernel", 2)), units(5, ("params/Conv_2/kernel", 2))),
        normal(4, 4, 1),
    ),
    "bfloat16 inside": Entry(
        NNX, Precise, {"hidden": 10}, {"hidden": 6},
        (units(10, ("layers/1/kernel", 0)), units(10, ("last/kernel", 0))),
        normal(6), tolerance=5e-2,
    ),
    "masked convolutions": Entry(
        FUNCTION, masked_shapes, {"one": 5, "two": 10}, {"one": 3, "two": 6},
        (units(5, ("two", 2)), units(10, ("out", 0))),
        normal(4, 4, 1), apply=masked,
    ),
    "weight norm": Entry(
        FUNCTION, direction_shapes, {"one": 5, "two": 10}, {"one": 3, "two": 6},
        (units(5, ("two/v", 0)), units(10, ("out", 0))),
        normal(6), apply=normalised_weights,
    ),
    "linear biases of attention": Entry(
        FUNCTION, bias_shapes, {"heads": 5, "value": 5, "hidden": 10}, {"heads": 3, "value": 3, "hidden": 6},
        (units(5, ("o", 0)), units(5, ("o", 1)), units(10, ("down", 0))),
        normal(3, 4), apply=linear_biases, stays="an array that the program closes over",
    ),
    "latents drawn at random": Entry(
        FUNCTION, sampled_shapes,
        {"hidden": 10, "latent": 5, "decoder": 5}, {"hidden": 6, "latent": 3, "decoder": 3},
        (
            units(10, ("mean", 0), ("deviation", 0)),
            units(5, ("decoder", 0)),
            units(5, ("out", 0)),
        ),
        normal(6), apply=sampled, stays="numbers drawn at random along it",
    ),
    "standardised kernels": Entry(
        FUNCTION, standard_shapes, {"one": 5, "two": 10}, {"one": 5, "two": 6},
        (units(10, ("out", 0)),),
        normal(6), apply=standardised,
    ),
}  # fmt: skip
