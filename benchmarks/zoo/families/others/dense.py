"""Dense nets: perceptrons, conditioning, sets, flows, autoencoders, recommenders."""

import itertools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import EQUINOX, FUNCTION, LINEN, NNX, Entry, normal, over_batch, units

TITLE = "dense nets"


class MLP(nnx.Module):
    def __init__(self, hidden, rngs):
        sizes = (6, *hidden, 3)
        self.layers = nnx.List([nnx.Linear(m, n, rngs=rngs) for m, n in itertools.pairwise(sizes)])

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


class MultiHead(nn.Module):
    """A net with two outputs that read the same units."""

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        for width in self.hidden:
            x = nn.gelu(nn.Dense(width)(x))
        return {"class": nn.Dense(4, name="class")(x), "value": nn.Dense(1, name="value")(x)}


class NeRF(nn.Module):
    """A net on sines of coordinates with a skip connection in the middle, which returns density and colour."""

    hidden: tuple[int, int, int]

    @nn.compact
    def __call__(self, x):
        points = jnp.concatenate([x, jnp.sin(x), jnp.cos(x), jnp.sin(2 * x), jnp.cos(2 * x)], axis=-1)
        x = nn.relu(nn.Dense(self.hidden[0])(points))
        x = jnp.concatenate([nn.relu(nn.Dense(self.hidden[1])(x)), points], axis=-1)
        x = nn.relu(nn.Dense(self.hidden[2])(x))
        return nn.softplus(nn.Dense(1)(x)), nn.sigmoid(nn.Dense(3)(x))


class ResidualTabular(eqx.Module):
    """A stream without a norm, so that it can shrink too. Blocks read it and add to it."""

    first: eqx.nn.Linear
    ups: list
    downs: list
    last: eqx.nn.Linear

    def __init__(self, stream, hidden, key):
        keys = iter(jax.random.split(key, 6))
        self.first, self.last = eqx.nn.Linear(6, stream, key=next(keys)), eqx.nn.Linear(stream, 2, key=next(keys))
        self.ups = [eqx.nn.Linear(stream, hidden, key=next(keys)) for _ in range(2)]
        self.downs = [eqx.nn.Linear(hidden, stream, key=next(keys)) for _ in range(2)]

    def __call__(self, x):
        x = self.first(x)
        for up, down in zip(self.ups, self.downs, strict=True):
            x = x + down(jax.nn.silu(up(x)))
        return self.last(x)


class FiLM(nnx.Module):
    """A condition scales and shifts each unit."""

    def __init__(self, hidden, condition, rngs):
        self.embed = nnx.Linear(3, condition, rngs=rngs)
        self.scale, self.shift = (nnx.Linear(condition, hidden, rngs=rngs) for _ in range(2))
        self.first, self.last = nnx.Linear(6, hidden, rngs=rngs), nnx.Linear(hidden, 2, rngs=rngs)

    def __call__(self, x, condition):
        condition = nnx.silu(self.embed(condition))
        return self.last(nnx.relu(self.first(x) * (1 + self.scale(condition)) + self.shift(condition)))


class Highway(nnx.Module):
    """A gate between a layer's output and its input."""

    def __init__(self, stream, rngs):
        self.first, self.last = nnx.Linear(5, stream, rngs=rngs), nnx.Linear(stream, 2, rngs=rngs)
        self.gate, self.layer = nnx.Linear(stream, stream, rngs=rngs), nnx.Linear(stream, stream, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        gate = nnx.sigmoid(self.gate(x))
        return self.last(gate * nnx.tanh(self.layer(x)) + (1 - gate) * x)


def pinn(params, x):
    """u and its derivatives along the inputs, as a physics-informed net needs them."""

    def u(point):
        h = jnp.tanh(point @ params["in"]["w"] + params["in"]["b"])
        return (jnp.tanh(h @ params["mid"]["w"] + params["mid"]["b"]) @ params["out"]["w"])[0]

    return jax.vmap(u)(x), jax.vmap(jax.grad(u))(x), jax.vmap(lambda point: jnp.diag(jax.hessian(u)(point)))(x)


def pinn_shapes(one, two):
    return {"in": {"w": (2, one), "b": (one,)}, "mid": {"w": (one, two), "b": (two,)}, "out": {"w": (two, 1)}}


def mlp(params, x):
    for layer in params[:-1]:
        x = jax.nn.elu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"]


def mlp_shapes(hidden):
    sizes = (6, *hidden)
    layers = [{"w": (m, n), "b": (n,)} for m, n in itertools.pairwise(sizes)]
    return [*layers, {"w": (hidden[-1], 2)}]


def with_condition(rng, batch):
    return rng.normal(size=(batch, 6)), rng.normal(size=(batch, 3))


ENTRIES = {
    "MLP": Entry(
        NNX, MLP, {"hidden": (10, 15)}, {"hidden": (6, 9)},
        (units(10, ("layers/1/kernel", 0)), units(15, ("layers/2/kernel", 0))),
        normal(6),
    ),
    "MLP, two outputs": Entry(
        LINEN, MultiHead, {"hidden": (10, 15)}, {"hidden": (6, 9)},
        (
            units(10, ("params/Dense_1/kernel", 0)),
            units(15, ("params/class/kernel", 0), ("params/value/kernel", 0)),
        ),
        normal(6),
    ),
    "MLP, plain": Entry(
        FUNCTION, mlp_shapes, {"hidden": (10, 15)}, {"hidden": (6, 9)},
        (units(10, ("1/w", 0)), units(15, ("2/w", 0))),
        normal(6), apply=mlp,
    ),
    "NeRF": Entry(
        LINEN, NeRF, {"hidden": (10, 10, 5)}, {"hidden": (6, 6, 3)},
        (
            units(10, ("params/Dense_1/kernel", 0)),
            units(10, ("params/Dense_2/kernel", 0, 1, 0, 10)),
            units(5, ("params/Dense_3/kernel", 0), ("params/Dense_4/kernel", 0)),
        ),
        normal(3),
    ),
    "residual MLP": Entry(
        EQUINOX, ResidualTabular, {"stream": 10, "hidden": 5}, {"stream": 6, "hidden": 3},
        (
            units(10, ("ups/0/weight", 1), ("ups/1/weight", 1), ("last/weight", 1)),
            units(5, ("downs/0/weight", 1)),
            units(5, ("downs/1/weight", 1)),
        ),
        normal(6), call=over_batch,
    ),
    "FiLM": Entry(
        NNX, FiLM, {"hidden": 10, "condition": 5}, {"hidden": 6, "condition": 3},
        (units(10, ("last/kernel", 0)), units(5, ("scale/kernel", 0), ("shift/kernel", 0))),
        with_condition,
    ),
    "highway": Entry(
        NNX, Highway, {"stream": 10}, {"stream": 6},
        (units(10, ("gate/kernel", 0), ("layer/kernel", 0), ("last/kernel", 0)),),
        normal(5),
    ),
    "physics-informed net": Entry(
        FUNCTION, pinn_shapes, {"one": 10, "two": 5}, {"one": 6, "two": 3},
        (units(10, ("mid/w", 0)), units(5, ("out/w", 0))),
        normal(2), apply=pinn,
    ),
}  # fmt: skip
