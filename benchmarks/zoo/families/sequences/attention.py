"""Encoders with attention: for images, for text, across two sequences, and with tables of relative positions."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, FUNCTION, LINEN, NNX, Entry, normal, over_batch, tokens, units

TITLE = "encoders with attention"


def linear_biases(params, x):
    """ALiBi: each head has its own slope in an array in the code, so no head can be removed."""
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


class ViT(nnx.Module):
    """A net with patches, a class token, positions and pre-norm blocks."""

    def __init__(self, heads, hidden, rngs):
        self.patches = nnx.Conv(2, 6, (2, 2), strides=2, rngs=rngs)
        self.token, self.positions = nnx.Param(jnp.ones((1, 1, 6))), nnx.Param(jnp.ones((1, 5, 6)))
        self.norms = nnx.List([nnx.LayerNorm(6, rngs=rngs) for _ in range(3)])
        self.attention = nnx.MultiHeadAttention(heads, 6, 2 * heads, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(6, hidden, rngs=rngs), nnx.Linear(hidden, 6, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x).reshape(len(x), -1, 6)
        x = jnp.concatenate([jnp.tile(self.token[...], (len(x), 1, 1)), x], axis=1) + self.positions[...]
        x = x + self.attention(self.norms[0](x))
        x = x + self.down(nnx.gelu(self.up(self.norms[1](x))))
        return self.head(self.norms[2](x[:, 0]))


class Block(nn.Module):
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x, other=None):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, qkv_features=5 * self.heads, name="own")(y)
        if other is not None:
            y = nn.MultiHeadDotProductAttention(self.heads, qkv_features=5 * self.heads, name="cross")(
                nn.LayerNorm()(x), other
            )
            x = x + y
        y = nn.Dense(self.hidden, name="up")(nn.LayerNorm()(x))
        return x + nn.Dense(x.shape[-1], name="down")(nn.gelu(y))


class BERT(nn.Module):
    """A net in which a tied table reads the stream at the end."""

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(9, 6)
        x = table(tokens) + self.param("positions", nn.initializers.normal(), (5, 6))
        for number in range(2):
            x = Block(self.heads, self.hidden, name=f"block{number}")(x)
        return table.attend(nn.LayerNorm()(x)) + self.param("bias", nn.initializers.zeros, (9,))


class EncoderDecoder(nn.Module):
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, source, target):
        table = nn.Embed(9, 6)
        x = Block(self.heads, self.hidden, name="encoder")(table(source))
        y = Block(self.heads, self.hidden, name="decoder")(table(target), x)
        return nn.Dense(9)(nn.LayerNorm()(y))


class EquinoxEncoder(eqx.Module):
    """Equinox's attention, whose number of heads is a static field."""

    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    feedforward: eqx.nn.MLP

    def __init__(self, heads, hidden, key):
        keys = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(heads, 6, qk_size=2, vo_size=2, output_size=6, key=keys[0])
        self.norm, self.feedforward = eqx.nn.LayerNorm(6), eqx.nn.MLP(6, 3, hidden, 1, key=keys[1])

    def __call__(self, x):
        y = jax.vmap(self.norm)(x)
        return jax.vmap(self.feedforward)(x + self.attention(y, y, y))


class RelativeAttention(nnx.Module):
    """Attention with a number from a table for each head and distance, as in T5 and Swin; it stores `num_heads`."""

    def __init__(self, heads, rngs):
        self.num_heads = heads
        self.qkv, self.out = nnx.Linear(6, 6 * heads, rngs=rngs), nnx.Linear(2 * heads, 6, rngs=rngs)
        self.table = nnx.Param(jnp.ones((7, heads)))

    def __call__(self, x):
        q, k, v = jnp.split(self.qkv(x).reshape(*x.shape[:2], self.num_heads, -1), 3, axis=-1)
        places = jnp.arange(x.shape[1])
        bias = self.table[...][places[:, None] - places[None] + 3]
        weights = nnx.softmax(jnp.einsum("btnh,bsnh->bnts", q, k) / 2**0.5 + jnp.moveaxis(bias, -1, 0), axis=-1)
        return self.out(jnp.einsum("bnts,bsnh->btnh", weights, v).reshape(*x.shape[:2], -1))


class RelativeEncoder(nnx.Module):
    def __init__(self, heads, hidden, rngs):
        self.first, self.norm = nnx.Linear(3, 6, rngs=rngs), nnx.RMSNorm(6, rngs=rngs)
        self.attention = RelativeAttention(heads, rngs)
        self.up, self.down = nnx.Linear(6, hidden, rngs=rngs), nnx.Linear(hidden, 2, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        x = x + self.attention(self.norm(x))
        return self.down(nnx.relu(self.up(self.norm(x))))


class Perceiver(eqx.Module):
    """A few learned latents attend to many inputs, with heads by `einsum`."""

    latents: jax.Array
    query: jax.Array
    key: jax.Array
    value: jax.Array
    out: jax.Array
    last: eqx.nn.Linear

    def __init__(self, heads, value, key):
        keys = jax.random.split(key, 6)
        self.latents = jax.random.normal(keys[0], (3, 6))
        self.query = jax.random.normal(keys[1], (6, heads, 2))
        self.key = jax.random.normal(keys[2], (4, heads, 2))
        self.value = jax.random.normal(keys[3], (4, heads, value))
        self.out = jax.random.normal(keys[4], (heads, value, 6))
        self.last = eqx.nn.Linear(6, 2, key=keys[5])

    def __call__(self, x):
        q, k = jnp.einsum("lc,cnh->lnh", self.latents, self.query), jnp.einsum("tc,cnh->tnh", x, self.key)
        weights = jax.nn.softmax(jnp.einsum("lnh,tnh->nlt", q, k))
        y = jnp.einsum("nlt,tnh->lnh", weights, jnp.einsum("tc,cnh->tnh", x, self.value))
        return jax.vmap(self.last)(self.latents + jnp.einsum("lnh,nhc->lc", y, self.out))


class Windows(nn.Module):
    """Swin: attention within windows, which reshapes make; the second block's windows are shifted."""

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (1, 1))(x)
        for shift in (0, 1):
            y = jnp.roll(nn.LayerNorm()(x), (-shift, -shift), (1, 2))
            b, h, w, c = y.shape
            y = y.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(-1, 4, c)
            y = nn.MultiHeadDotProductAttention(self.heads, qkv_features=2 * self.heads, name=f"attention{shift}")(y)
            y = y.reshape(b, h // 2, w // 2, 2, 2, c).swapaxes(2, 3).reshape(b, h, w, c)
            x = x + jnp.roll(y, (shift, shift), (1, 2))
        return x + nn.Dense(6, name="down")(nn.gelu(nn.Dense(self.hidden, name="up")(nn.LayerNorm()(x))))


def two_texts(rng, batch):
    return tuple(jnp.asarray(rng.integers(0, 9, (batch, n)), jnp.int32) for n in (5, 4))


def attention(path):
    """The heads, and the entries of the values, of linen's attention with 5 heads of 5, as the output reads them."""
    return units(5, (f"params/{path}/out/kernel", 0)), units(5, (f"params/{path}/out/kernel", 1))


#: The entries that Flax's class with 3 heads of 5 entries has in addition to values of 3 entries: kernel, bias and
#: output.
VALUES = 3 * 2 * (6 + 1 + 6)

ENTRIES = {
    "ViT with a class token": Entry(
        NNX, ViT, {"heads": 5, "hidden": 10}, {"heads": 3, "hidden": 6},
        (units(5, ("attention/out/kernel", 0)), units(10, ("down/kernel", 0))),
        normal(4, 4, 2),
    ),
    "BERT with a tied table": Entry(
        LINEN, BERT, {"heads": 5, "hidden": 10}, {"heads": 3, "hidden": 6},
        (
            *attention("block0/own"), *attention("block1/own"),
            *(units(10, (f"params/block{i}/down/kernel", 0)) for i in range(2)),
        ),
        tokens(9, 5), less=2 * VALUES,
    ),
    "encoder and decoder, cross attention": Entry(
        LINEN, EncoderDecoder, {"heads": 5, "hidden": 10}, {"heads": 3, "hidden": 6},
        (
            *attention("encoder/own"), *attention("decoder/own"), *attention("decoder/cross"),
            *(units(10, (f"params/{name}/down/kernel", 0)) for name in ("encoder", "decoder")),
        ),
        two_texts, less=3 * VALUES,
    ),
    "Equinox's attention": Entry(
        EQUINOX, EquinoxEncoder, {"heads": 5, "hidden": 10}, {"heads": 3, "hidden": 6},
        (units(5, ("attention/output_proj/weight", 1, 2)), units(10, ("feedforward/layers/1/weight", 1))),
        normal(4, 6), call=over_batch,
    ),
    "relative positions": Entry(
        NNX, RelativeEncoder, {"heads": 5, "hidden": 10}, {"heads": 3, "hidden": 6},
        (units(5, ("attention/out/kernel", 0, 2)), units(10, ("down/kernel", 0))),
        normal(4, 3),
    ),
    "Perceiver": Entry(
        EQUINOX, Perceiver, {"heads": 5, "value": 5}, {"heads": 3, "value": 3},
        (units(5, ("out", 0)), units(5, ("out", 1))),
        normal(4, 4), call=over_batch,
    ),
    "shifted windows": Entry(
        LINEN, Windows, {"heads": 5, "hidden": 10}, {"heads": 3, "hidden": 6},
        (
            *(units(5, (f"params/attention{i}/out/kernel", 0)) for i in range(2)),
            units(10, ("params/down/kernel", 0)),
        ),
        normal(4, 4, 3),
    ),
    "linear biases of attention": Entry(
        FUNCTION, bias_shapes, {"heads": 5, "value": 5, "hidden": 10}, {"heads": 3, "value": 3, "hidden": 6},
        (units(5, ("o", 0)), units(5, ("o", 1)), units(10, ("down", 0))),
        normal(3, 4), apply=linear_biases, stays="an array that the program closes over",
    ),
}  # fmt: skip
