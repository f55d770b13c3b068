"""The time of compaction for large models, and for models in which many widths have to stay."""

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.zoo.entry import left
from ramda_jax.compaction import compact_model, plan_compaction, trace_dims
from ramda_jax.structure.paths import named_leaves


@dataclasses.dataclass
class Time:
    """A measurement: `limit` is the largest acceptable number of seconds, `refused` the number of widths that stay."""

    name: str
    params: int
    seconds: float
    processor_seconds: float
    limit: float
    refused: int | None = None


class Block(nnx.Module):
    """A pre-norm block. `nnx.MultiHeadAttention` uses one size for values and queries, so this size has to stay."""

    def __init__(self, width, heads, hidden, rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(width, hidden, rngs=rngs), nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class ViT(nnx.Module):
    """A model of a small ViT's size: 12 layers of 384 with 6 heads, 21 million parameters."""

    def __init__(self, width, heads, layers, rngs):
        self.patches = nnx.Conv(3, width, (4, 4), strides=4, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, 4 * width, rngs) for _ in range(layers)])
        self.norm, self.head = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x).reshape(len(x), -1, self.norm.num_features)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x.mean(axis=1)))


class DecoderLayer(nnx.Module):
    """Grouped heads, RMSNorm, a gated feedforward."""

    def __init__(self, width, groups, hidden, rngs):
        self.groups, size = groups, width // (4 * groups)
        self.norm1, self.norm2 = nnx.RMSNorm(width, rngs=rngs), nnx.RMSNorm(width, rngs=rngs)
        self.query, self.out = nnx.Linear(width, width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)
        self.key, self.value = (nnx.Linear(width, groups * size, rngs=rngs) for _ in range(2))
        self.gate, self.up = (nnx.Linear(width, hidden, rngs=rngs) for _ in range(2))
        self.down = nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x):
        y, shape = self.norm1(x), (*x.shape[:2], self.groups)
        q, k, v = (
            self.query(y).reshape(*shape, 4, -1),
            self.key(y).reshape(*shape, -1),
            self.value(y).reshape(*shape, -1),
        )
        weights = nnx.softmax(jnp.einsum("btgrh,bsgh->bgrts", q, k) / 8)
        x = x + self.out(jnp.einsum("bgrts,bsgh->btgrh", weights, v).reshape(*x.shape[:2], -1))
        y = self.norm2(x)
        return x + self.down(nnx.silu(self.gate(y)) * self.up(y))


class Decoder(nnx.Module):
    """22 layers of 2048 with a gated feedforward of 5632 and 32,000 words, a billion parameters."""

    def __init__(self, width, groups, hidden, layers, words, rngs):
        self.embed = nnx.Embed(words, width, rngs=rngs)
        self.layers = nnx.List([DecoderLayer(width, groups, hidden, rngs) for _ in range(layers)])
        self.norm = nnx.RMSNorm(width, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.embed.attend(self.norm(x))


def timed(function) -> tuple[Any, dict[str, Any]]:
    """The result of a function, and its times as two fields of `Time`."""
    start = time.perf_counter(), time.process_time()
    result = function()
    seconds, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    return result, {"seconds": seconds, "processor_seconds": processor}


def count(tree):
    """The entries of all leaves."""
    return sum(math.prod(leaf.shape) for _, leaf in named_leaves(tree))


def vit(small=False):
    """Heads, hidden units and entries of the values are dead. nnx's attention has to keep the latter."""
    width, heads, layers = (24, 6, 2) if small else (384, 6, 12)
    model = nnx.eval_shape(lambda: ViT(width, heads, layers, nnx.Rngs(0)))
    graph, shapes = nnx.split(model)
    rng, size = np.random.default_rng(0), width // heads
    values = {}
    for path, leaf in named_leaves(shapes):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            values[path] = jax.random.key(0)
            continue
        array = rng.standard_normal(leaf.shape, np.float32) / 20
        if path.endswith("attention/out/kernel"):
            array[rng.permutation(heads)[: heads - left(heads)]] = 0
            array[:, rng.permutation(size)[: size - left(size)]] = 0
        if path.endswith("down/kernel"):
            array[rng.permutation(4 * width)[: 4 * width - left(4 * width)]] = 0
        values[path] = jnp.asarray(array, leaf.dtype)
    model = nnx.merge(graph, jax.tree.structure(shapes).unflatten(values.values()))
    images = jnp.asarray(rng.normal(size=(1, 16, 16, 3)), jnp.float32)
    result, seconds = timed(lambda: compact_model(model, images))
    return Time(
        "ViT, sizes of values refused", result.plan.num_params[0], limit=10, refused=len(result.refused), **seconds
    )


def blocks(number):
    """Residual blocks. Every second one divides by the root of its width, and so has to keep it."""

    def apply(params, x):
        for place, block in enumerate(params):
            h = jnp.tanh(x @ block["up"])
            x = x + (h / math.sqrt(h.shape[-1]) if place % 2 else h) @ block["down"]
        return x

    rng = np.random.default_rng(0)
    params = []
    for _ in range(number):
        down = rng.normal(size=(40, 16))
        down[rng.permutation(40)[: 40 - left(40)]] = 0
        up = rng.normal(size=(16, 40))
        params.append({"up": jnp.asarray(up, jnp.float32) / 8, "down": jnp.asarray(down, jnp.float32) / 8})
    x = jnp.asarray(rng.normal(size=(2, 16)), jnp.float32)
    result, seconds = timed(lambda: compact_model(apply, x, variables=params))
    return Time(
        f"{number} blocks, half of them refused",
        result.plan.num_params[0],
        limit=5,
        refused=len(result.refused),
        **seconds,
    )


def decoder(small=False):
    """The decoder is traced and planned with shapes alone."""
    widths = (64, 2, 128, 2, 100) if small else (2048, 8, 5632, 22, 32000)
    model = nnx.eval_shape(lambda: Decoder(*widths, rngs=nnx.Rngs(0)))
    words = jax.ShapeDtypeStruct((1, 128), jnp.int32)
    _, seconds = timed(lambda: plan_compaction(trace_dims(model, words), nnx.state(model)))
    return Time("decoder, shapes alone: traced and planned", count(nnx.state(model)), limit=30, **seconds)


def measure(small=False):
    """All measurements; with `small` on tiny nets, which only shows that they run."""
    return [vit(small), blocks(4 if small else 48), decoder(small)]
