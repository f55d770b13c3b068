"""Step-by-step nets: recurrent cells of every library, state-space blocks, a differential equation."""

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, FUNCTION, LINEN, NNX, Entry, normal, over_batch, units

TITLE = "recurrent nets, state spaces"


class LinenRNN(nn.Module):
    cell: Any
    hidden: int

    @nn.compact
    def __call__(self, x):
        outputs: Any = nn.RNN(self.cell(self.hidden), name="rnn")(x)
        return nn.Dense(2)(outputs[:, -1])


class Bidirectional(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        forward, backward = nn.RNN(nn.LSTMCell(self.hidden)), nn.RNN(nn.LSTMCell(self.hidden))
        return nn.Dense(2)(nn.Bidirectional(forward, backward)(x))


class Stacked(nnx.Module):
    """Two stacked cells."""

    def __init__(self, one, two, rngs):
        self.rnn1 = nnx.RNN(nnx.OptimizedLSTMCell(3, one, rngs=rngs))
        self.rnn2 = nnx.RNN(nnx.GRUCell(one, two, rngs=rngs))
        self.dense = nnx.Linear(two, 2, rngs=rngs)

    def __call__(self, x):
        first: Any = self.rnn1(x)
        second: Any = self.rnn2(first)
        return self.dense(second[:, -1])


class EquinoxGRU(eqx.Module):
    cell: eqx.nn.GRUCell
    last: eqx.nn.Linear

    def __init__(self, hidden, key):
        keys = jax.random.split(key)
        self.cell, self.last = eqx.nn.GRUCell(3, hidden, key=keys[0]), eqx.nn.Linear(hidden, 2, key=keys[1])

    def __call__(self, x):
        start = jnp.zeros(self.cell.weight_hh.shape[1])
        return self.last(jax.lax.scan(lambda h, one: (self.cell(one, h), None), start, x)[0])


class NeuralODE(eqx.Module):
    """Runge-Kutta steps along a field that is a net; the state is the stream."""

    first: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, state, hidden, key):
        keys = jax.random.split(key, 4)
        sizes = ((3, state), (state, hidden), (hidden, state), (state, 2))
        self.first, self.up, self.down, self.last = (
            eqx.nn.Linear(m, n, key=k) for (m, n), k in zip(sizes, keys, strict=True)
        )

    def __call__(self, x):
        def field(y):
            return self.down(jnp.tanh(self.up(y)))

        def step(_, y):
            k1 = field(y)
            k2 = field(y + 0.05 * k1)
            return y + 0.1 * (k1 + k2) / 2

        return self.last(jax.lax.fori_loop(0, 3, step, self.first(x)))


def lstm(params, x):
    """An LSTM with all four gates from one kernel, which are split by a number from the shape."""

    def step(carry, one):
        h, c = carry
        i, f, g, o = jnp.split(one @ params["wx"] + h @ params["wh"] + params["b"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), None

    start = jnp.zeros((len(x), params["wh"].shape[0]))
    return jax.lax.scan(step, (start, start), jnp.swapaxes(x, 0, 1))[0][0] @ params["out"]


def lstm_shapes(hidden):
    return {"wx": (3, 4 * hidden), "wh": (hidden, 4 * hidden), "b": (4 * hidden,), "out": (hidden, 2)}


def diagonal(params, x):
    """A diagonal state space with `associative_scan`; complex states are two real numbers."""

    def combine(one, two):
        (a, b), (c, d) = one, two
        return a * c, b * c + d

    u = x @ params["in"]
    decay = jnp.exp(-jnp.exp(params["decay"]) + 1j * params["turn"])
    driven = jnp.einsum("btc,cn->btn", u, params["drive"] + 0j)
    _, states = jax.lax.associative_scan(combine, (jnp.broadcast_to(decay, driven.shape), driven), axis=1)
    y = jnp.einsum("btn,nc->btc", states.real, params["read"]) + jnp.einsum(
        "btn,nc->btc", states.imag, params["read_imaginary"]
    )
    return jax.nn.gelu(y + u * params["skip"]) @ params["out"]


def diagonal_shapes(channels, states):
    return {
        "in": (3, channels), "drive": (channels, states), "decay": (states,), "turn": (states,),
        "read": (states, channels), "read_imaginary": (states, channels), "skip": (channels,), "out": (channels, 2),
    }  # fmt: skip


def mamba(params, x):
    """A selective state space: a depthwise convolution, steps and matrices that depend on the input, and a gate."""
    u, gate = jnp.einsum("btc,ckd->kbtd", x, params["in"])
    width = params["conv"].shape[0]
    padded = jnp.pad(u, ((0, 0), (width - 1, 0), (0, 0)))
    u = sum(padded[:, i : i + x.shape[1]] * params["conv"][i] for i in range(width))
    u = jax.nn.silu(u + params["conv_bias"])
    step = jax.nn.softplus((u @ params["low"]) @ params["high"] + params["step_bias"])
    b, c = u @ params["b"], u @ params["c"]

    def one_step(h, given):
        u, step, b, c = given
        h = jnp.exp(-step[..., None] * jnp.exp(params["a"])) * h + (step * u)[..., None] * b[:, None]
        return h, jnp.einsum("bdn,bn->bd", h, c)

    start = jnp.zeros((len(x), *params["a"].shape))
    along = jax.tree.map(lambda one: jnp.swapaxes(one, 0, 1), (u, step, b, c))
    y = jnp.swapaxes(jax.lax.scan(one_step, start, along)[1], 0, 1) + u * params["d"]
    return x + (y * jax.nn.silu(gate)) @ params["out"]


def mamba_shapes(inner, states, rank):
    return {
        "in": (4, 2, inner), "conv": (3, inner), "conv_bias": (inner,), "low": (inner, rank), "high": (rank, inner),
        "step_bias": (inner,), "b": (inner, states), "c": (inner, states), "a": (inner, states), "d": (inner,),
        "out": (inner, 4),
    }  # fmt: skip


def linen_cell(kind, *gates):
    """The units of a cell's hidden state that neither its gates nor the next layer read."""
    name = f"params/{kind.__name__}_0"
    return Entry(
        LINEN, lambda hidden: LinenRNN(kind, hidden), {"hidden": 10}, {"hidden": 6},
        (units(10, *((f"{name}/{gate}/kernel", 0) for gate in gates), ("params/Dense_0/kernel", 0)),),
        normal(4, 3),
    )  # fmt: skip


ENTRIES = {
    "LSTM": linen_cell(nn.LSTMCell, "hi", "hf", "hg", "ho"),
    "GRU": linen_cell(nn.GRUCell, "hr", "hz", "hn"),
    "simple cell": linen_cell(nn.SimpleCell, "h"),
    "bidirectional LSTM": Entry(
        LINEN, Bidirectional, {"hidden": 5}, {"hidden": 3},
        tuple(
            units(
                5,
                *((f"params/{name}/{gate}/kernel", 0) for gate in ("hi", "hf", "hg", "ho")),
                ("params/Dense_0/kernel", 0, 1, start, start + 5),
            )
            for name, start in (("LSTMCell_0", 0), ("LSTMCell_1", 5))
        ),
        normal(4, 3),
    ),
    "two cells, one on the other": Entry(
        NNX, Stacked, {"one": 5, "two": 10}, {"one": 3, "two": 6},
        (
            units(5, ("rnn1/cell/dense_h/kernel", 0), ("rnn2/cell/dense_i/kernel", 0)),
            units(10, ("rnn2/cell/dense_h/kernel", 0), ("dense/kernel", 0)),
        ),
        normal(4, 3),
    ),
    "GRU by scan": Entry(
        EQUINOX, EquinoxGRU, {"hidden": 10}, {"hidden": 6},
        (units(10, ("cell/weight_hh", 1), ("last/weight", 1)),),
        normal(4, 3), call=over_batch,
    ),
    "LSTM with one kernel": Entry(
        FUNCTION, lstm_shapes, {"hidden": 10}, {"hidden": 6}, (units(10, ("wh", 0), ("out", 0)),),
        normal(4, 3), apply=lstm,
    ),
    "diagonal state space": Entry(
        FUNCTION, diagonal_shapes, {"channels": 5, "states": 10}, {"channels": 3, "states": 6},
        (
            units(10, ("read", 0), ("read_imaginary", 0)),
            units(5, ("drive", 0), ("out", 0)),
        ),
        normal(5, 3), apply=diagonal,
    ),
    "selective state space": Entry(
        FUNCTION, mamba_shapes, {"inner": 5, "states": 5, "rank": 5}, {"inner": 3, "states": 3, "rank": 3},
        (
            units(5, ("out", 0), ("low", 0), ("b", 0), ("c", 0)),
            units(5, ("c", 1)),
            units(5, ("high", 0)),
        ),
        normal(5, 4), apply=mamba,
    ),
    "neural differential equation": Entry(
        EQUINOX, NeuralODE, {"state": 5, "hidden": 10}, {"state": 3, "hidden": 6},
        (units(5, ("up/weight", 1), ("last/weight", 1)), units(10, ("down/weight", 1))),
        normal(3), call=over_batch,
    ),
}  # fmt: skip
