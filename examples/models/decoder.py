"""A small decoder like today's language models: its layers are one stack, and it decodes with a cache."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx


class Cache(NamedTuple):
    """The keys and values of the tokens read, so that decoding does not compute them again.

    Attributes:
        key, value: `[layers, batch, room, groups, size]`.
        length: int32 `[]`, the number of tokens read.
    """

    key: jax.Array
    value: jax.Array
    length: jax.Array


def rotated(x, positions):
    """The rotary embedding of `x` `[batch, time, ..., size]`, which pairs the two halves of the last axis."""
    half = x.shape[-1] // 2
    angles = positions[:, None] * 10_000.0 ** (-jnp.arange(half) / half)
    angles = angles.reshape(len(positions), *(1,) * (x.ndim - 3), half)
    (first, second), cos, sin = jnp.split(x, 2, axis=-1), jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


class DecoderLayer(nnx.Module):
    """Attention with grouped heads, `queries` query heads for each key and value, and a gated MLP."""

    def __init__(self, width, groups, queries, size, hidden, rngs):
        def linear(inputs, outputs):
            axes = tuple(range(-len(inputs), 0)) if isinstance(inputs, tuple) else -1
            return nnx.LinearGeneral(inputs, outputs, axis=axes, use_bias=False, rngs=rngs)

        self.scale = size**-0.5
        self.attention_norm, self.mlp_norm = nnx.RMSNorm(width, rngs=rngs), nnx.RMSNorm(width, rngs=rngs)
        self.query = linear(width, (groups, queries, size))
        self.key, self.value = linear(width, (groups, size)), linear(width, (groups, size))
        self.out = linear((groups, queries, size), width)
        self.gate, self.up, self.down = linear(width, hidden), linear(width, hidden), linear(hidden, width)

    def __call__(self, x, keys, values, start):
        """The next x `[batch, time, width]`, and the keys and values with those of `x` written from `start` on."""
        y, positions = self.attention_norm(x), start + jnp.arange(x.shape[1])
        keys = jax.lax.dynamic_update_slice_in_dim(keys, rotated(self.key(y), positions), start, axis=1)
        values = jax.lax.dynamic_update_slice_in_dim(values, self.value(y), start, axis=1)
        scores = self.scale * jnp.einsum("btgqs,bugs->bgqtu", rotated(self.query(y), positions), keys)
        seen = jnp.arange(keys.shape[1]) <= positions[:, None]
        weights = nnx.softmax(jnp.where(seen, scores, -1e9), axis=-1)
        x = x + self.out(jnp.einsum("bgqtu,bugs->btgqs", weights, values))
        y = self.mlp_norm(x)
        return x + self.down(nnx.silu(self.gate(y)) * self.up(y)), keys, values


@nnx.scan(in_axes=(nnx.Carry, 0, 0, 0, None), out_axes=(nnx.Carry, 0, 0))
def _in_turn(x, layer, keys, values, start):
    return layer(x, keys, values, start)


class Decoder(nnx.Module):
    """A decoder with rotary positions, RMSNorm, grouped heads, gated MLPs, tied embeddings and `depth` stacked layers.

    A call with tokens `[batch, time]` returns logits `[batch, time, vocabulary]`. `advance` reads more tokens into a
    cache. The number of heads is only in the arrays' shapes, so a smaller model makes a smaller cache.
    """

    def __init__(self, vocabulary, width, depth, groups, queries, size, hidden, *, rngs):
        @nnx.split_rngs(splits=depth)
        @nnx.vmap
        def stack(rngs):
            return DecoderLayer(width, groups, queries, size, hidden, rngs)

        self.embed = nnx.Embed(vocabulary, width, embedding_init=nnx.initializers.normal(width**-0.5), rngs=rngs)
        self.layers, self.norm = stack(rngs), nnx.RMSNorm(width, rngs=rngs)

    def empty_cache(self, batch, room):
        """A cache for `room` tokens."""
        depth, _, groups, size = self.layers.key.kernel.shape
        keys, values = (jnp.zeros((depth, batch, room, groups, n)) for n in (size, self.layers.value.kernel.shape[-1]))
        return Cache(keys, values, jnp.zeros((), jnp.int32))

    def advance(self, tokens, cache):
        """The logits after each of more tokens `[batch, time]`, and the cache with these tokens."""
        x = self.embed(tokens) * self.embed.features**0.5
        x, keys, values = _in_turn(x, self.layers, cache.key, cache.value, cache.length)
        return self.embed.attend(self.norm(x)), Cache(keys, values, cache.length + tokens.shape[1])

    def __call__(self, tokens):
        return self.advance(tokens, self.empty_cache(*tokens.shape))[0]


@nnx.jit(static_argnames="count")
def continued(model, prompts, count):
    """The prompts' greedy continuations, int32 `[batch, count]`. Reads the prompts at once, then token by token."""
    logits, cache = model.advance(prompts, model.empty_cache(len(prompts), prompts.shape[1] + count))

    @nnx.scan(length=count, in_axes=(nnx.Carry, None), out_axes=(nnx.Carry, 0))
    def step(carry, model):
        token, cache = carry
        logits, cache = model.advance(token[:, None], cache)
        return (jnp.argmax(logits[:, 0], axis=-1), cache), token

    return step((jnp.argmax(logits[:, -1], axis=-1), cache), model)[1].T
