"""Decoders with grouped heads, rotary embeddings, gated layers and RMSNorm; separate or stacked layers; caches."""

import math

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, LINEN, NNX, Entry, over_batch, tokens, units

TITLE = "decoders"
STREAM, WORDS, HEAD, REPEATS = 6, 9, 4, 2


def rotary(x, places):
    """Rotates pairs of entries of `x` `[..., time, heads, HEAD]` by angles that increase with the position."""
    angles = places[:, None, None] * jnp.array([1.0, 0.1])
    one, two = jnp.split(x, 2, axis=-1)
    return jnp.concatenate(
        [one * jnp.cos(angles) - two * jnp.sin(angles), two * jnp.cos(angles) + one * jnp.sin(angles)], axis=-1
    )


def grouped_attention(q, k, v, mask):
    """Attention with queries `[batch, time, groups, REPEATS, HEAD]`; each group shares its keys and values."""
    weights = jnp.einsum("btgrh,bsgh->bgrts", q, k) / math.sqrt(HEAD)
    weights = jax.nn.softmax(jnp.where(mask, weights, -1e9))
    return jnp.einsum("bgrts,bsgh->btgrh", weights, v)


def causal(x):
    return jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))


class GroupedAttention(nnx.Module):
    """Attention with two query heads for each head of keys and values; `groups` is the number of the latter."""

    def __init__(self, groups, rngs):
        self.groups = groups
        self.query = nnx.Linear(STREAM, groups * REPEATS * HEAD, use_bias=False, rngs=rngs)
        self.key, self.value = (nnx.Linear(STREAM, groups * HEAD, use_bias=False, rngs=rngs) for _ in range(2))
        self.out = nnx.Linear(groups * REPEATS * HEAD, STREAM, use_bias=False, rngs=rngs)

    def __call__(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        places = jnp.arange(x.shape[1])
        q = rotary(q.reshape(*x.shape[:2], -1, HEAD), places).reshape(*x.shape[:2], self.groups, REPEATS, HEAD)
        k = rotary(k.reshape(*x.shape[:2], self.groups, HEAD), places)
        y = grouped_attention(q, k, v.reshape(*x.shape[:2], self.groups, HEAD), causal(x))
        return self.out(y.reshape(*x.shape[:2], -1))


class Layer(nnx.Module):
    def __init__(self, groups, hidden, rngs):
        self.norm1, self.norm2 = nnx.RMSNorm(STREAM, rngs=rngs), nnx.RMSNorm(STREAM, rngs=rngs)
        self.attention = GroupedAttention(groups, rngs)
        self.gate, self.up = (nnx.Linear(STREAM, hidden, use_bias=False, rngs=rngs) for _ in range(2))
        self.down = nnx.Linear(hidden, STREAM, use_bias=False, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        return x + self.down(nnx.silu(self.gate(y)) * self.up(y))


class Decoder(nnx.Module):
    def __init__(self, groups, hidden, rngs):
        self.embed, self.norm = nnx.Embed(WORDS, STREAM, rngs=rngs), nnx.RMSNorm(STREAM, rngs=rngs)
        self.layers = nnx.List([Layer(groups, hidden, rngs) for _ in range(2)])

    def __call__(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.embed.attend(self.norm(x))


class StackedDecoder(nnx.Module):
    """A decoder whose layers `nnx.vmap` builds and `nnx.scan` runs."""

    def __init__(self, groups, hidden, rngs):
        self.embed, self.norm = nnx.Embed(WORDS, STREAM, rngs=rngs), nnx.RMSNorm(STREAM, rngs=rngs)

        @nnx.split_rngs(splits=3)
        @nnx.vmap
        def layers(rngs):
            return Layer(groups, hidden, rngs)

        self.layers = layers(rngs)

    def __call__(self, tokens):
        run = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.embed.attend(self.norm(run(self.embed(tokens), self.layers)))


class CachedDecoder(nnx.Module):
    """A decoder with the cache in the state of `nnx.MultiHeadAttention`, for one word at a time."""

    def __init__(self, heads, hidden, rngs):
        self.embed, self.norm = nnx.Embed(WORDS, STREAM, rngs=rngs), nnx.RMSNorm(STREAM, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, STREAM, HEAD * heads, decode=True, rngs=rngs)
        self.up, self.down = nnx.Linear(STREAM, hidden, rngs=rngs), nnx.Linear(hidden, WORDS, rngs=rngs)

    def __call__(self, tokens):
        found = []
        self.attention.init_cache((len(tokens), tokens.shape[1], STREAM))
        for place in range(tokens.shape[1]):
            x = self.embed(tokens[:, place : place + 1])
            x = x + self.attention(self.norm(x))
            found.append(self.down(nnx.gelu(self.up(self.norm(x)))))
        return jnp.concatenate(found, axis=1)


class LinenLayer(nn.Module):
    """A parallel layer as in GPT-J and PaLM: attention and feedforward read one norm."""

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x, _=None):
        y = nn.RMSNorm()(x)
        attention = nn.MultiHeadDotProductAttention(self.heads, qkv_features=5 * self.heads, name="attention")(
            y, mask=nn.make_causal_mask(x[..., 0])
        )
        gate, up = (nn.Dense(self.hidden, use_bias=False, name=name)(y) for name in ("gate", "up"))
        return x + attention + nn.Dense(STREAM, use_bias=False, name="down")(nn.silu(gate) * up), None


class LinenDecoder(nn.Module):
    heads: int
    hidden: int
    layers: int

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(WORDS, STREAM, name="table")
        x = table(tokens)
        if self.layers:
            layers = nn.scan(LinenLayer, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.layers)
            x, _ = layers(self.heads, self.hidden, name="layers")(x, None)
        else:
            x, _ = LinenLayer(self.heads, self.hidden, name="layer")(x)
        return table.attend(nn.RMSNorm()(x))


class EquinoxLayer(eqx.Module):
    """GPT-2's layer: queries, keys and values from one kernel."""

    qkv: eqx.nn.Linear
    out: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    norms: list
    heads: int = eqx.field(static=True)

    def __init__(self, heads, hidden, key):
        keys = jax.random.split(key, 4)
        self.heads, self.norms = heads, [eqx.nn.LayerNorm(STREAM), eqx.nn.LayerNorm(STREAM)]
        self.qkv = eqx.nn.Linear(STREAM, 3 * heads * HEAD, key=keys[0])
        self.out = eqx.nn.Linear(heads * HEAD, STREAM, key=keys[1])
        self.up, self.down = eqx.nn.Linear(STREAM, hidden, key=keys[2]), eqx.nn.Linear(hidden, STREAM, key=keys[3])

    def __call__(self, x):
        q, k, v = (
            one.reshape(len(x), self.heads, -1)
            for one in jnp.split(jax.vmap(self.qkv)(jax.vmap(self.norms[0])(x)), 3, axis=-1)
        )
        weights = jnp.einsum("tnh,snh->nts", q, k) / 2.0
        weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((len(x), len(x)), bool)), weights, -1e9))
        x = x + jax.vmap(self.out)(jnp.einsum("nts,snh->tnh", weights, v).reshape(len(x), -1))
        return x + jax.vmap(self.down)(jax.nn.gelu(jax.vmap(self.up)(jax.vmap(self.norms[1])(x))))


class EquinoxDecoder(eqx.Module):
    embed: eqx.nn.Embedding
    layers: EquinoxLayer
    head: eqx.nn.Linear

    def __init__(self, heads, hidden, key):
        keys = jax.random.split(key, 3)
        self.embed = eqx.nn.Embedding(WORDS, STREAM, key=keys[0])
        self.layers = eqx.filter_vmap(lambda key: EquinoxLayer(heads, hidden, key))(jax.random.split(keys[1], 3))
        self.head = eqx.nn.Linear(STREAM, WORDS, key=keys[2])

    def __call__(self, tokens):
        arrays, static = eqx.partition(self.layers, eqx.is_array)
        x = jax.vmap(self.embed)(tokens)
        x, _ = jax.lax.scan(lambda x, one: (eqx.combine(one, static)(x), None), x, arrays)
        return jax.vmap(self.head)(x)


def heads_and_units(layer, heads, hidden, layers=0):
    """The heads and the entries of the values of linen's attention, 5 entries each, and the feedforward's units."""
    first = bool(layers)
    return (
        units(heads, (f"{layer}/attention/out/kernel", first), layers=layers),
        units(5, (f"{layer}/attention/out/kernel", 1 + first), layers=layers),
        units(hidden, (f"{layer}/down/kernel", first), layers=layers),
    )


ENTRIES = {
    "grouped heads, rotary, gated": Entry(
        NNX, Decoder, {"groups": 5, "hidden": 10}, {"groups": 3, "hidden": 6},
        tuple(
            one
            for i in range(2)
            for one in (
                units(5, (f"layers/{i}/attention/out/kernel", 0, REPEATS * HEAD)),
                units(10, (f"layers/{i}/down/kernel", 0)),
            )
        ),
        tokens(WORDS, 4),
    ),
    "the same, stacked": Entry(
        NNX, StackedDecoder, {"groups": 5, "hidden": 10}, {"groups": 3, "hidden": 6},
        (
            units(5, ("layers/attention/out/kernel", 1, REPEATS * HEAD), layers=3),
            units(10, ("layers/down/kernel", 1), layers=3),
        ),
        tokens(WORDS, 4),
    ),
    "cache in the state": Entry(
        NNX, CachedDecoder, {"heads": 5, "hidden": 10}, {"heads": 3, "hidden": 6},
        (units(5, ("attention/out/kernel", 0)), units(10, ("down/kernel", 0))),
        tokens(WORDS, 3),
    ),
    "parallel layer": Entry(
        LINEN, LinenDecoder, {"heads": 5, "hidden": 10, "layers": 0}, {"heads": 3, "hidden": 6, "layers": 0},
        heads_and_units("params/layer", 5, 10), tokens(WORDS, 4), less=3 * 2 * (6 + 1 + 6),
    ),
    "parallel layers, stacked": Entry(
        LINEN, LinenDecoder, {"heads": 5, "hidden": 10, "layers": 3}, {"heads": 3, "hidden": 6, "layers": 3},
        heads_and_units("params/layers", 5, 10, layers=3), tokens(WORDS, 4), less=3 * 3 * 2 * (6 + 1 + 6),
    ),
    "one kernel for queries, keys, values, stacked": Entry(
        EQUINOX, EquinoxDecoder, {"heads": 5, "hidden": 10}, {"heads": 3, "hidden": 6},
        (
            units(5, ("layers/out/weight", 2, HEAD), layers=3),
            units(10, ("layers/down/weight", 2), layers=3),
        ),
        tokens(WORDS, 4), call=over_batch,
    ),
}  # fmt: skip
