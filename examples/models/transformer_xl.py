"""Transformer-XL: relative attention with a memory of the last segment, adaptive softmax tied to the embedding."""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

_normal = nnx.initializers.normal(0.02)
#: The ends of the frequent words and of the first two clusters, of WikiText-103's 267,735 words. A smaller vocabulary
#: has only the clusters that begin in it.
CUTOFFS = (19_997, 39_997, 199_997)


class Memory(NamedTuple):
    """The memory that a segment passes on: the inputs of every layer.

    Attributes:
        hidden: `[batch, layers, mem_len, features]`, with the newest position last.
        filled: int32 `[batch]`, the number of filled positions, which are the newest.
    """

    hidden: jax.Array
    filled: jax.Array


def relative_shift(scores):
    """Turns scores by distance into scores by position.

    There are Q queries and K keys, and `scores[..., i, m]` belongs to the distance K - 1 - m. Query i is at position K
    - Q + i, so key j is at the distance K - Q + i - j, and the result `[..., i, j]` is `scores[..., i, Q - 1 - i + j]`.
    Results for keys after the query are arbitrary, and the causal mask hides them.

    References:
        Dai et al., `Transformer-XL`, ACL 2019, arXiv:1901.02860, appendix B.
    """
    *rest, queries, keys = scores.shape
    padded = jnp.pad(scores, [(0, 0)] * len(rest) + [(0, 0), (1, 0)])
    return padded.reshape(*rest, keys + 1, queries)[..., 1:, :].reshape(*rest, queries, keys)


def sinusoids(length, features):
    """The encoding `[length, features]` of the distances length - 1, ..., 0, with sines first and then cosines."""
    frequencies = 1 / 10_000 ** (jnp.arange(0, features, 2) / features)
    angles = jnp.arange(length - 1, -1, -1)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class Layer(nnx.Module):
    """Relative attention, then a feed-forward net, each with a layer norm after its residual sum."""

    def __init__(self, features, heads, head_size, hidden, dropout, *, rngs, dtype):
        linear = functools.partial(nnx.Linear, kernel_init=_normal, dtype=dtype, rngs=rngs)

        def norm():
            scale = lambda key, shape, dtype: 1 + _normal(key, shape, dtype)  # noqa: E731
            return nnx.LayerNorm(features, epsilon=1e-5, scale_init=scale, dtype=dtype, rngs=rngs)

        self.heads, self.head_size = heads, head_size
        inner = heads * head_size
        # As in the paper's code, one matrix makes query, key and value, so a group is an input of all three.
        self.qkv = linear(features, 3 * inner, use_bias=False)
        self.positions = linear(features, inner, use_bias=False)
        self.out = linear(inner, features, use_bias=False)
        self.attention_norm = norm()
        self.hidden = linear(features, hidden)
        self.output = linear(hidden, features)
        self.output_norm = norm()
        self.dropout = nnx.Dropout(dropout)

    def attend(self, x, past, encoding, content_bias, position_bias, visible):
        """Attention of x `[batch, Q, features]` over past and x, before the output layer.

        score(i, j) = ((q_i + u) . k_j + (q_i + v) . r_{i - j}) / sqrt(head size)
        """
        batch, queries, _ = x.shape
        context = jnp.concatenate([past, x], axis=1)
        keys = context.shape[1]
        q, k, v = jnp.split(self.qkv(context), 3, axis=-1)

        def split(y):
            return y.reshape(*y.shape[:-1], self.heads, self.head_size)

        q, k, v = split(q[:, -queries:]), split(k), split(v)
        r = split(self.positions(encoding))
        content = jnp.einsum("bqhd,bkhd->bhqk", q + content_bias.astype(q.dtype), k)
        position = jnp.einsum("bqhd,khd->bhqk", q + position_bias.astype(q.dtype), r)
        scores = (content + relative_shift(position)) / math.sqrt(self.head_size)
        # The softmax is in float32 for any dtype of the layers.
        scores = jnp.where(visible[:, None], scores.astype(jnp.float32), -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        assert weights.shape == (batch, self.heads, queries, keys)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, queries, -1)

    def __call__(self, x, past, encoding, content_bias, position_bias, visible, *, rngs=None):
        attended = self.attend(x, past, encoding, content_bias, position_bias, visible)
        x = self.attention_norm(x + self.dropout(self.out(attended), rngs=rngs))
        hidden = self.dropout(nnx.relu(self.hidden(x)), rngs=rngs)
        return self.output_norm(x + self.dropout(self.output(hidden), rngs=rngs))


class AdaptiveSoftmax(nnx.Module):
    """The log-probabilities of words: of frequent words directly, and of other words through clusters.

    The output weights of all words are the embedding `[vocabulary, features]`. The head has the frequent words, and an
    entry for each tail cluster. As in the released code, tail cluster i = 1, 2, ... has the head's i-th entry *from the
    end*.
    """

    def __init__(self, vocabulary, features, cutoffs, *, rngs, dtype):
        self.ends = (*(c for c in cutoffs if c < vocabulary), vocabulary)
        self.bias = nnx.Param(jnp.zeros(vocabulary))
        clusters = len(self.ends) - 1
        self.clusters = (
            nnx.Linear(features, clusters, kernel_init=_normal, dtype=dtype, rngs=rngs) if clusters else None
        )

    def log_probs(self, x, embedding, targets):
        """log p(target) of each row of x `[n, features]`, float32 `[n]`."""

        def logits(first, last):
            rows = embedding[first:last].astype(x.dtype)
            return (x @ rows.T).astype(jnp.float32) + self.bias[first:last]

        ends = self.ends
        head = logits(0, ends[0])
        if self.clusters is not None:
            head = jnp.concatenate([head, self.clusters(x).astype(jnp.float32)], axis=-1)
        head = jax.nn.log_softmax(head)
        result = jnp.take_along_axis(head, jnp.minimum(targets, ends[0] - 1)[:, None], axis=-1)[:, 0]
        for cluster, (first, last) in enumerate(itertools.pairwise(ends), start=1):
            tail = jax.nn.log_softmax(logits(first, last))
            inside = jnp.clip(targets - first, 0, last - first - 1)
            log_prob = head[:, -cluster] + jnp.take_along_axis(tail, inside[:, None], axis=-1)[:, 0]
            result = jnp.where((targets >= first) & (targets < last), log_prob, result)
        return result


class TransformerXL(nnx.Module):
    """The base model for WikiText-103: 191,950,298 parameters, 54,599,680 of them in its 16 layers."""

    def __init__(
        self,
        vocabulary=267_735,
        layers=16,
        features=512,
        heads=8,
        head_size=64,
        hidden=2048,
        mem_len=192,
        dropout=0.1,
        cutoffs=CUTOFFS,
        chunks=16,
        *,
        rngs,
        dtype=jnp.float32,
    ):
        self.features, self.mem_len, self.chunks, self.dtype = features, mem_len, chunks, dtype
        self.embed = nnx.Embed(vocabulary, features, embedding_init=_normal, dtype=dtype, rngs=rngs)
        self.content_bias = nnx.Param(_normal(rngs.params(), (heads, head_size)))
        self.position_bias = nnx.Param(_normal(rngs.params(), (heads, head_size)))
        self.layers = nnx.List(
            Layer(features, heads, head_size, hidden, dropout, rngs=rngs, dtype=dtype) for _ in range(layers)
        )
        self.softmax = AdaptiveSoftmax(vocabulary, features, cutoffs, rngs=rngs, dtype=dtype)
        self.dropout = nnx.Dropout(dropout)

    def empty_memory(self, batch):
        """The memory before the first segment."""
        hidden = jnp.zeros((batch, len(self.layers), self.mem_len, self.features), self.dtype)
        return Memory(hidden, jnp.zeros(batch, jnp.int32))

    def __call__(self, tokens, memory, *, rngs=None):
        """(features of every position of `tokens` `[batch, length]`, the memory for the next segment)."""
        length = tokens.shape[1]
        keys = self.mem_len + length
        # A query sees the keys that do not come after it, and only filled positions of the memory.
        causal = jnp.arange(keys) <= self.mem_len + jnp.arange(length)[:, None]
        visible = causal & (jnp.arange(keys) >= self.mem_len - memory.filled[:, None])[:, None]
        encoding = self.dropout(sinusoids(keys, self.features).astype(self.dtype), rngs=rngs)
        x = self.dropout(self.embed(tokens) * math.sqrt(self.features), rngs=rngs)
        inputs = []
        for number, layer in enumerate(self.layers):
            inputs.append(x)
            past = memory.hidden[:, number]
            x = layer(x, past, encoding, self.content_bias[...], self.position_bias[...], visible, rngs=rngs)
        hidden = jnp.concatenate([memory.hidden, jnp.stack(inputs, axis=1)], axis=2)[:, :, length:]
        filled = jnp.minimum(memory.filled + length, self.mem_len)
        return self.dropout(x, rngs=rngs), Memory(jax.lax.stop_gradient(hidden), filled)

    def losses(self, tokens, targets, memory, *, rngs=None):
        """(the cross entropy of every target `[batch, length]`, the memory for the next segment).

        The logits of a whole batch would take gigabytes. So they are computed, and recomputed for the gradient, for a
        part of the positions at a time.
        """
        x, memory = self(tokens, memory, rngs=rngs)
        embedding = self.embed.embedding[...]
        chunks = math.gcd(targets.size, self.chunks)
        rows = x.reshape(chunks, -1, self.features), targets.reshape(chunks, -1)
        chunk = jax.checkpoint(lambda rows: -self.softmax.log_probs(rows[0], embedding, rows[1]))
        return jax.lax.map(chunk, rows).reshape(targets.shape), memory
