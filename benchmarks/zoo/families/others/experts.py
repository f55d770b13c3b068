"""Mixtures of experts, dense and ragged; ensembles; graphs."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, FUNCTION, LINEN, NNX, Entry, normal, over_batch, units

TITLE = "experts, ensembles, graphs"
SENDERS, RECEIVERS = jnp.array([0, 1, 2, 3, 0, 2]), jnp.array([1, 2, 3, 0, 2, 1])


class Expert(nnx.Module):
    def __init__(self, hidden, rngs):
        self.up, self.down = nnx.Linear(4, hidden, rngs=rngs), nnx.Linear(hidden, 4, rngs=rngs)

    def __call__(self, x):
        return self.down(nnx.gelu(self.up(x)))


def several(number, hidden, rngs):
    @nnx.split_rngs(splits=number)
    @nnx.vmap
    def make(rngs):
        return Expert(hidden, rngs)

    return make(rngs)


class DenseExperts(nnx.Module):
    """All experts process every token, and their outputs are weighted."""

    def __init__(self, hidden, rngs):
        self.router, self.experts = nnx.Linear(4, 3, rngs=rngs), several(3, hidden, rngs)

    def __call__(self, x):
        found = nnx.vmap(lambda expert, x: expert(x), in_axes=(0, None))(self.experts, x)
        return x + jnp.einsum("bte,ebtd->btd", nnx.softmax(self.router(x)), found)


class LinenExperts(nn.Module):
    """The two best of four experts, selected with a mask."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        scores = nn.Dense(4, name="router")(x)
        best, _ = jax.lax.top_k(scores, 2)
        weights = nn.softmax(jnp.where(scores >= best[..., 1:], scores, -1e9))
        up = self.param("up", nn.initializers.lecun_normal(), (4, 4, self.hidden))
        down = self.param("down", nn.initializers.lecun_normal(), (4, self.hidden, 4))
        h = nn.relu(jnp.einsum("btc,ech->bteh", x, up))
        return x + jnp.einsum("bteh,ehc,bte->btc", h, down, weights)


def ragged(params, x):
    """Tokens sorted by expert, and a ragged product with the rows of each expert."""
    flat = x.reshape(-1, x.shape[-1])
    expert = jnp.argmax(flat @ params["router"], axis=-1)
    order = jnp.argsort(expert)
    sizes = jnp.bincount(expert, length=params["router"].shape[1])
    rows = flat[order]
    h = jax.nn.silu(jax.lax.ragged_dot(rows, params["gate"], sizes)) * jax.lax.ragged_dot(rows, params["up"], sizes)
    back = jnp.zeros_like(flat).at[order].set(jax.lax.ragged_dot(h, params["down"], sizes))
    return x + back.reshape(x.shape)


def ragged_shapes(hidden):
    return {"router": (4, 3), "gate": (3, 4, hidden), "up": (3, 4, hidden), "down": (3, hidden, 4)}


def switch(params, x):
    """One expert for each token, with a capacity of two tokens; one-hot products dispatch and combine them."""
    weights = jax.nn.softmax(x @ params["router"])
    chosen = jax.nn.one_hot(jnp.argmax(weights, -1), weights.shape[-1])
    place = (jnp.cumsum(chosen, axis=1) * chosen).astype(jnp.int32)
    sent = jax.nn.one_hot(place - 1, 2) * chosen[..., None]
    given = jnp.einsum("btc,bteo->beoc", x, sent)
    h = jax.nn.relu(jnp.einsum("beoc,ech->beoh", given, params["up"]) + params["bias"][:, None])
    back = jnp.einsum("beoh,ehc->beoc", h, params["down"])
    return x + jnp.einsum("beoc,bteo,bte->btc", back, sent, weights)


def switch_shapes(hidden):
    return {"router": (4, 3), "up": (3, 4, hidden), "bias": (3, hidden), "down": (3, hidden, 4)}


class Ensemble(eqx.Module):
    """The mean and the spread of nets of one shape on the same inputs, run with `vmap`."""

    nets: eqx.nn.MLP

    def __init__(self, hidden, key):
        self.nets = eqx.filter_vmap(lambda key: eqx.nn.MLP(4, 2, hidden, 1, key=key))(jax.random.split(key, 3))

    def __call__(self, x):
        found = eqx.filter_vmap(lambda net, x: net(x), in_axes=(eqx.if_array(0), None))(self.nets, x)
        return found.mean(0), found.std(0)


def convolution_on_graph(params, x):
    """Sums over neighbours, twice."""
    for layer in (params["one"], params["two"]):
        messages = (x @ layer["w"])[:, SENDERS]
        x = jax.vmap(lambda m: jax.ops.segment_sum(m, RECEIVERS, 4))(messages)
        x = jax.nn.relu(x + layer["b"])
    return x.mean(axis=1) @ params["out"]


def graph_shapes(one, two):
    return {"one": {"w": (3, one), "b": (one,)}, "two": {"w": (one, two), "b": (two,)}, "out": (two, 2)}


class GraphNetwork(nnx.Module):
    """Edges are updated from their end nodes, and nodes from the sum and the maximum of their edges."""

    def __init__(self, edge, hidden, node, rngs):
        self.edge1, self.edge2 = nnx.Linear(6, hidden, rngs=rngs), nnx.Linear(hidden, edge, rngs=rngs)
        self.node, self.out = nnx.Linear(3 + 2 * edge, node, rngs=rngs), nnx.Linear(node, 2, rngs=rngs)

    def __call__(self, x):
        ends = jnp.concatenate([x[:, SENDERS], x[:, RECEIVERS]], axis=-1)
        edges = nnx.relu(self.edge2(nnx.relu(self.edge1(ends))))
        total = jax.vmap(lambda e: jax.ops.segment_sum(e, RECEIVERS, 4))(edges)
        largest = jax.vmap(lambda e: jax.ops.segment_max(e, RECEIVERS, 4))(edges)
        return self.out(nnx.relu(self.node(jnp.concatenate([x, total, largest], axis=-1))))


def graph_attention(params, x):
    """Weights of neighbours from a softmax over each node's edges, for several heads."""
    h = jnp.einsum("bnc,chd->bnhd", x, params["w"])
    scores = jnp.einsum("bnhd,hd->bnh", h, params["send"])[:, SENDERS]
    scores = jax.nn.leaky_relu(scores + jnp.einsum("bnhd,hd->bnh", h, params["receive"])[:, RECEIVERS])
    scores = jnp.exp(scores - scores.max(axis=1, keepdims=True))
    total = jax.vmap(lambda s: jax.ops.segment_sum(s, RECEIVERS, 4))(scores)
    weights = scores / total[:, RECEIVERS]
    messages = h[:, SENDERS] * weights[..., None]
    y = jax.vmap(lambda m: jax.ops.segment_sum(m, RECEIVERS, 4))(messages)
    return jnp.einsum("bnhd,hdo->bno", jax.nn.elu(y), params["out"])


def graph_attention_shapes(heads, size):
    return {"w": (3, heads, size), "send": (heads, size), "receive": (heads, size), "out": (heads, size, 2)}


ENTRIES = {
    "experts, dense": Entry(
        NNX, DenseExperts, {"hidden": 10}, {"hidden": 6}, (units(10, ("experts/down/kernel", 1), layers=3),),
        normal(3, 4),
    ),
    "experts, the best two": Entry(
        LINEN, LinenExperts, {"hidden": 10}, {"hidden": 6}, (units(10, ("params/down", 1), layers=4),),
        normal(3, 4), stays="in an order that depends on their sizes",
    ),
    "experts, ragged": Entry(
        FUNCTION, ragged_shapes, {"hidden": 10}, {"hidden": 6}, (units(10, ("down", 1), layers=3),), normal(3, 4),
        apply=ragged,
    ),
    "experts, dispatched": Entry(
        FUNCTION, switch_shapes, {"hidden": 10}, {"hidden": 6}, (units(10, ("down", 1), layers=3),), normal(3, 4),
        apply=switch,
    ),
    "ensemble": Entry(
        EQUINOX, Ensemble, {"hidden": 10}, {"hidden": 6}, (units(10, ("nets/layers/1/weight", 2), layers=3),),
        normal(4), call=over_batch,
    ),
    "graph convolutions": Entry(
        FUNCTION, graph_shapes, {"one": 5, "two": 10}, {"one": 3, "two": 6},
        (units(5, ("two/w", 0)), units(10, ("out", 0))),
        normal(4, 3), apply=convolution_on_graph,
    ),
    "graph network": Entry(
        NNX, GraphNetwork, {"edge": 5, "hidden": 10, "node": 10}, {"edge": 3, "hidden": 6, "node": 6},
        (
            units(10, ("edge2/kernel", 0)),
            units(5, ("node/kernel", 0, 1, 3, 8), ("node/kernel", 0, 1, 8)),
            units(10, ("out/kernel", 0)),
        ),
        normal(4, 3),
    ),
    "graph attention": Entry(
        FUNCTION, graph_attention_shapes, {"heads": 5, "size": 5}, {"heads": 3, "size": 3},
        (units(5, ("out", 0)), units(5, ("out", 1), ("send", 1), ("receive", 1))),
        normal(4, 3), apply=graph_attention,
    ),
}  # fmt: skip
