"""A small decoder as a function of its parameters: heads and hidden units may be any number."""

import jax
import jax.numpy as jnp
import numpy as np

HEAD_SIZE = 16


def decoder_shapes(vocabulary, features, layers, heads, hidden, size):
    """The shapes of the parameters. The table is also the output's matrix, and positions have no parameters."""
    one = {
        "attention": {
            "query": (features, heads, size),
            "key": (features, heads, size),
            "value": (features, heads, size),
            "out": (heads, size, features),
            "gain": (features,),
        },
        "mlp": {
            "up": (features, hidden),
            "bias": (hidden,),
            "down": (hidden, features),
            "gain": (features,),
        },
    }
    return {"table": (vocabulary, features), "gain": (features,)} | {f"layer{number}": one for number in range(layers)}


def _normed(x, gain):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * gain


def _positions(length, features):
    angles = np.arange(length)[:, None] / 10_000 ** (np.arange(0, features, 2) / features)
    return np.concatenate([np.sin(angles), np.cos(angles)], -1).astype(np.float32)


def next_logits(params, tokens):
    """The logits `[n, length, vocabulary]` of the character after each of `tokens` `[n, length]`."""
    x = params["table"][tokens]
    length, features = x.shape[1:]
    x = x + 0.1 * _positions(length, features)
    seen = np.tril(np.ones((length, length), bool))
    for name in sorted(name for name in params if name.startswith("layer")):
        one = params[name]["attention"]
        y = _normed(x, one["gain"])
        query, key, value = (jnp.einsum("blf,fhs->blhs", y, one[part]) for part in ("query", "key", "value"))
        scores = jnp.einsum("blhs,bmhs->bhlm", query, key) / np.sqrt(HEAD_SIZE)
        weights = jax.nn.softmax(jnp.where(seen, scores, -1e9), -1)
        x = x + jnp.einsum("bhlm,bmhs,hsf->blf", weights, value, one["out"])
        one = params[name]["mlp"]
        y = _normed(x, one["gain"])
        x = x + jax.nn.relu(y @ one["up"] + one["bias"]) @ one["down"]
    return _normed(x, params["gain"]) @ params["table"].T
