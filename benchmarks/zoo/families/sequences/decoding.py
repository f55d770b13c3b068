"""Decoders as plain functions of arrays: stacked, with a cache as an argument, and with linear attention."""

import math

import jax
import jax.numpy as jnp

from benchmarks.zoo.entry import FUNCTION, Entry, normal, tokens, units
from benchmarks.zoo.families.sequences.decoders import HEAD, REPEATS, STREAM, WORDS, causal, grouped_attention, rotary

TITLE = "decoders as functions"


def normed(x, scale):
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def gated(layer, x):
    return (jax.nn.silu(x @ layer["gate"]) * (x @ layer["up"])) @ layer["down"]


def layer_shapes(groups, hidden):
    return {
        "query": (STREAM, groups, REPEATS, HEAD), "key": (STREAM, groups, HEAD), "value": (STREAM, groups, HEAD),
        "out": (groups, REPEATS, HEAD, STREAM), "scale": (2, STREAM),
        "gate": (STREAM, hidden), "up": (STREAM, hidden), "down": (hidden, STREAM),
    }  # fmt: skip


def decode_layer(layer, x):
    y = normed(x, layer["scale"][0])
    places = jnp.arange(x.shape[1])
    q = jnp.einsum("btc,cgrh->btgrh", y, layer["query"])
    q = rotary(q.reshape(*q.shape[:2], -1, HEAD), places).reshape(q.shape)
    k = rotary(jnp.einsum("btc,cgh->btgh", y, layer["key"]), places)
    v = jnp.einsum("btc,cgh->btgh", y, layer["value"])
    x = x + jnp.einsum("btgrh,grhc->btc", grouped_attention(q, k, v, causal(x)), layer["out"])
    return x + gated(layer, normed(x, layer["scale"][1]))


def stacked(params, tokens):
    x, _ = jax.lax.scan(lambda x, layer: (decode_layer(layer, x), None), params["table"][tokens], params["layers"])
    return normed(x, params["scale"]) @ params["table"].T


def stacked_shapes(groups, hidden):
    layers = {name: (3, *shape) for name, shape in layer_shapes(groups, hidden).items()}
    return {"table": (WORDS, STREAM), "layers": layers, "scale": (STREAM,)}


def with_cache(params, token, cache):
    """A step for one word, which writes keys and values into a cache and returns it."""
    layer, place = params["layer"], cache["place"]
    x = params["table"][token][:, None]
    y = normed(x, layer["scale"][0])
    new = {name: jnp.einsum("btc,cgh->btgh", y, layer[name]) for name in ("key", "value")}
    cache = {name: jax.lax.dynamic_update_slice(cache[name], new[name], (0, place, 0, 0)) for name in new}
    mask = jnp.arange(cache["key"].shape[1]) <= place
    q = jnp.einsum("btc,cgrh->btgrh", y, layer["query"])
    x = x + jnp.einsum("btgrh,grhc->btc", grouped_attention(q, cache["key"], cache["value"], mask), layer["out"])
    x = x + gated(layer, normed(x, layer["scale"][1]))
    return (normed(x, params["scale"]) @ params["table"].T)[:, 0], cache | {"place": place + 1}


def cached_shapes(groups, hidden):
    return {"table": (WORDS, STREAM), "layer": layer_shapes(groups, hidden), "scale": (STREAM,)}


def word_and_cache(rng, batch):
    cache = {name: rng.normal(size=(batch, 4, 5, HEAD)) for name in ("key", "value")}
    return jnp.asarray(rng.integers(0, WORDS, batch), jnp.int32), cache | {"place": jnp.int32(2)}


def linear_attention(params, x):
    """Attention without softmax: a state of keys times values, summed along the sequence."""
    q, k, v = (jnp.einsum("btc,cnh->btnh", x, params[name]) for name in "qkv")
    q, k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
    state = jnp.cumsum(jnp.einsum("btnh,btnd->btnhd", k, v), axis=1)
    scale = jnp.einsum("btnh,btnh->btn", q, jnp.cumsum(k, axis=1))
    y = jnp.einsum("btnh,btnhd->btnd", q, state) / scale[..., None]
    return x + jnp.einsum("btnd,ndc->btc", y, params["o"])


def linear_shapes(heads, keys, values):
    return {"q": (4, heads, keys), "k": (4, heads, keys), "v": (4, heads, values), "o": (heads, values, 4)}


def counted_heads(params, x):
    """Attention with four heads, whose number is a constant in the code, so that nothing can set it."""
    q, k, v = (jnp.reshape(x @ params[name], (*x.shape[:2], 4, 2)) for name in "qkv")
    weights = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, k) / math.sqrt(2))
    y = jnp.einsum("bnts,bsnh->btnh", weights, v).reshape(*x.shape[:2], 8) @ params["o"]
    return x + jax.nn.relu(y @ params["up"]) @ params["down"]


def counted_shapes(heads, hidden):
    kernels = {name: (4, 2 * heads) for name in "qkv"}
    return kernels | {"o": (2 * heads, 4), "up": (4, hidden), "down": (hidden, 4)}


ENTRIES = {
    "stacked by jax.lax.scan": Entry(
        FUNCTION, stacked_shapes, {"groups": 5, "hidden": 10}, {"groups": 3, "hidden": 6},
        (units(5, ("layers/out", 1), layers=3), units(10, ("layers/down", 1), layers=3)),
        tokens(WORDS, 4), apply=stacked,
    ),
    "cache as an argument": Entry(
        FUNCTION, cached_shapes, {"groups": 5, "hidden": 10}, {"groups": 3, "hidden": 6},
        (units(5, ("layer/out", 0)), units(10, ("layer/down", 0))),
        word_and_cache, apply=with_cache, resize={1: 1}, compared=lambda found: found[0],
    ),
    "linear attention": Entry(
        FUNCTION, linear_shapes, {"heads": 5, "keys": 3, "values": 5}, {"heads": 3, "keys": 3, "values": 3},
        (units(5, ("o", 0)), units(5, ("o", 1))),
        normal(4, 4), apply=linear_attention,
    ),
    "number of heads in the code": Entry(
        FUNCTION, counted_shapes, {"heads": 4, "hidden": 10}, {"heads": 2, "hidden": 6},
        (units(4, ("o", 0, 2)), units(10, ("down", 0))),
        normal(3, 4), apply=counted_heads, stays="reshape",
    ),
}  # fmt: skip
