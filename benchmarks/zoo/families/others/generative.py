"""Autoencoders, flows, diffusion: latent widths, tied weights, GroupNorm, time embeddings, random numbers."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, FUNCTION, LINEN, NNX, Entry, normal, over_batch, units

TITLE = "generative nets"


class VAE(nnx.Module):
    """The means are decoded. The mean and the variance of the latents are outputs, so the latents stay."""

    def __init__(self, encoder, decoder, rngs):
        self.encoder, self.moments = nnx.Linear(6, encoder, rngs=rngs), nnx.Linear(encoder, 4, rngs=rngs)
        self.decoder, self.out = nnx.Linear(2, decoder, rngs=rngs), nnx.Linear(decoder, 6, rngs=rngs)

    def __call__(self, x):
        mean, log_variance = jnp.split(self.moments(nnx.elu(self.encoder(x))), 2, axis=-1)
        return self.out(nnx.elu(self.decoder(mean))), mean, jnp.exp(log_variance)


class Autoencoder(nn.Module):
    """Convolutions down and up. The code between them is a width like any other."""

    channels: int
    code: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.channels, (3, 3), (2, 2))(x))
        code = nn.tanh(nn.Dense(self.code)(x.reshape(len(x), -1)))
        y = nn.Dense(4 * 3, name="grow")(code).reshape(len(x), 2, 2, 3)
        return nn.ConvTranspose(1, (2, 2), (2, 2))(nn.relu(y))


def tied(params, x):
    """The decoder's kernels are the encoder's, transposed."""
    h = jnp.tanh(x @ params["one"] + params["b1"])
    code = jnp.tanh(h @ params["two"] + params["b2"])
    back = jnp.tanh(code @ params["two"].T + params["b3"])
    return back @ params["one"].T


def tied_shapes(one, two):
    return {"one": (6, one), "two": (one, two), "b1": (one,), "b2": (two,), "b3": (one,)}


class Coupling(eqx.Module):
    """RealNVP: a net of each half scales and shifts the other half; the determinant is also returned."""

    nets: list

    def __init__(self, hidden, key):
        self.nets = [eqx.nn.MLP(3, 6, hidden, 1, activation=jnp.tanh, key=k) for k in jax.random.split(key)]

    def __call__(self, x):
        total = 0.0
        for net in self.nets:
            one, two = jnp.split(x, 2)
            scale, shift = jnp.split(net(one), 2)
            x = jnp.concatenate([two * jnp.exp(jnp.tanh(scale)) + shift, one])
            total = total + jnp.tanh(scale).sum()
        return x, total


class NormedBlock(nnx.Module):
    """GroupNorm, activation, convolution, twice, with the time added in between. Groups of two channels are removed."""

    def __init__(self, channels, groups, time, rngs):
        self.conv1 = nnx.Conv(channels, 2 * groups, (3, 3), rngs=rngs)
        self.time = nnx.Linear(time, 2 * groups, rngs=rngs)
        self.norm = nnx.GroupNorm(2 * groups, num_groups=groups, rngs=rngs)
        self.conv2 = nnx.Conv(2 * groups, channels, (3, 3), rngs=rngs)

    def __call__(self, x, time):
        y = self.conv1(nnx.silu(x)) + self.time(time)[:, None, None]
        return x + self.conv2(nnx.silu(self.norm(y)))


class DiffusionUNet(nnx.Module):
    """A block down, a block with attention, and a block up; all blocks read the time."""

    def __init__(self, stream, deep, groups, heads, time, rngs):
        self.time1, self.time2 = nnx.Linear(4, time, rngs=rngs), nnx.Linear(time, time, rngs=rngs)
        self.first, self.down = nnx.Conv(2, stream, (3, 3), rngs=rngs), nnx.Conv(stream, deep, (3, 3), 2, rngs=rngs)
        self.block1, self.block2 = NormedBlock(stream, groups, time, rngs), NormedBlock(deep, groups, time, rngs)
        self.attention = nnx.MultiHeadAttention(heads, deep, 2 * heads, decode=False, rngs=rngs)
        self.up, self.out = nnx.Conv(deep, stream, (3, 3), rngs=rngs), nnx.Conv(2 * stream, 2, (3, 3), rngs=rngs)

    def __call__(self, x, time):
        angles = time[:, None] * jnp.array([1.0, 0.1])
        time = nnx.silu(self.time2(nnx.silu(self.time1(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)))))
        skip = self.block1(self.first(x), time)
        y = self.block2(self.down(skip), time)
        flat = y.reshape(len(y), -1, y.shape[-1])
        y = (flat + self.attention(flat)).reshape(y.shape)
        y = jax.image.resize(y, (*skip.shape[:3], y.shape[-1]), "nearest")
        return self.out(jnp.concatenate([skip, nnx.silu(self.up(y))], axis=-1))


class DiT(nn.Module):
    """A diffusion transformer: the time gives the shift, the scale and the gate."""

    heads: int
    hidden: int
    time: int

    @nn.compact
    def __call__(self, x, time):
        time = nn.silu(nn.Dense(self.time, name="time")(time))
        shift, scale, gate = jnp.split(nn.Dense(18, name="modulation")(time)[:, None], 3, axis=-1)
        x = nn.Dense(6, name="first")(x)
        y = nn.LayerNorm(use_bias=False, use_scale=False)(x) * (1 + scale) + shift
        attention = nn.MultiHeadDotProductAttention(self.heads, qkv_features=5 * self.heads, name="attention")
        x = x + gate * attention(y)
        y = nn.Dense(self.hidden, name="up")(nn.LayerNorm(use_bias=False, use_scale=False)(x))
        return nn.Dense(2, name="last")(x + nn.Dense(6, name="down")(nn.gelu(y)))


def with_time(*shape):
    return lambda rng, batch: (rng.normal(size=(batch, *shape)), rng.uniform(size=batch))


def with_condition(rng, batch):
    return rng.normal(size=(batch, 4, 2)), rng.normal(size=(batch, 3))


def sampled(params, x):
    """A variational autoencoder with a random number per latent. With fewer latents the numbers would differ."""
    h = jax.nn.relu(x @ params["encoder"])
    mean, deviation = h @ params["mean"], jnp.exp(h @ params["deviation"])
    z = mean + deviation * jax.random.normal(jax.random.key(3), mean.shape)
    return jax.nn.relu(z @ params["decoder"]) @ params["out"]


def sampled_shapes(hidden, latent, decoder):
    return {
        "encoder": (6, hidden), "mean": (hidden, latent), "deviation": (hidden, latent),
        "decoder": (latent, decoder), "out": (decoder, 6),
    }  # fmt: skip


ENTRIES = {
    "variational autoencoder": Entry(
        NNX, VAE, {"encoder": 10, "decoder": 5}, {"encoder": 6, "decoder": 3},
        (units(10, ("moments/kernel", 0)), units(5, ("out/kernel", 0))),
        normal(6),
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
    "convolutional autoencoder": Entry(
        LINEN, Autoencoder, {"channels": 5, "code": 10}, {"channels": 3, "code": 6},
        (units(5, ("params/Dense_0/kernel", 0)), units(10, ("params/grow/kernel", 0))),
        normal(4, 4, 1),
    ),
    "autoencoder with tied kernels": Entry(
        # The next kernel reads a unit, and on the way back the first kernel's transpose reads it.
        FUNCTION, tied_shapes, {"one": 10, "two": 5}, {"one": 6, "two": 3},
        (units(10, ("one", 1), ("two", 0)), units(5, ("two", 1))),
        normal(6), apply=tied,
    ),
    "flow of couplings": Entry(
        EQUINOX, Coupling, {"hidden": 10}, {"hidden": 6},
        tuple(units(10, (f"nets/{i}/layers/1/weight", 1)) for i in range(2)),
        normal(6), call=over_batch,
    ),
    "diffusion U-Net": Entry(
        NNX, DiffusionUNet,
        {"stream": 5, "deep": 10, "groups": 5, "heads": 5, "time": 5},
        {"stream": 3, "deep": 6, "groups": 3, "heads": 3, "time": 3},
        (
            units(5, ("time2/kernel", 0)),
            units(5, ("block1/time/kernel", 0), ("block2/time/kernel", 0)),
            units(5, ("block1/conv1/kernel", 2), ("down/kernel", 2), ("out/kernel", 2, 1, 0, 5)),
            units(
                10, ("block2/conv1/kernel", 2), ("up/kernel", 2),
                *((f"attention/{name}/kernel", 0) for name in ("query", "key", "value")),
            ),
            units(5, ("out/kernel", 2, 1, 5)),
            units(5, ("attention/out/kernel", 0)),
            *(units(5, (f"{block}/conv2/kernel", 2, 2)) for block in ("block1", "block2")),
        ),
        with_time(4, 4, 2),
    ),
    "diffusion transformer": Entry(
        LINEN, DiT, {"heads": 5, "hidden": 10, "time": 5}, {"heads": 3, "hidden": 6, "time": 3},
        (
            units(5, ("params/attention/out/kernel", 0)),
            units(5, ("params/attention/out/kernel", 1)),
            units(10, ("params/down/kernel", 0)),
            units(5, ("params/modulation/kernel", 0)),
        ),
        with_condition, less=3 * 2 * (6 + 1 + 6),
    ),
}  # fmt: skip
