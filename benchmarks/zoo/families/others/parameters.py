"""Nets that transform their parameters before use: adapters, norms of kernels, another precision."""

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.zoo.entry import FUNCTION, NNX, Entry, normal, units

TITLE = "what is done to parameters"


class Precise(nnx.Module):
    """A net that computes in bfloat16, with parameters and outputs in float32."""

    def __init__(self, hidden, rngs):
        self.layers = nnx.List([nnx.Linear(6, hidden, dtype=jnp.bfloat16, rngs=rngs)])
        self.layers.append(nnx.Linear(hidden, hidden, dtype=jnp.bfloat16, rngs=rngs))
        self.last = nnx.Linear(hidden, 3, dtype=jnp.bfloat16, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.silu(layer(x))
        return self.last(x).astype(jnp.float32)


def standardised(params, x):
    """Kernels are standardised over their inputs before use, so zeros do not stay zero."""

    def standard(kernel):
        return (kernel - kernel.mean(0)) / (kernel.std(0) + 1e-3)

    h = jax.nn.relu(x @ standard(params["one"]))
    return jax.nn.relu(h @ standard(params["two"])) @ params["out"]


def standard_shapes(one, two):
    return {"one": (6, one), "two": (one, two), "out": (two, 2)}


def normalised_weights(params, x):
    """Weight norm: a direction over its length, times a number for each output. Zero rows do not change the length."""

    def kernel(layer):
        return layer["v"] / jnp.sqrt((layer["v"] ** 2).sum(0)) * layer["g"]

    h = jnp.tanh(x @ kernel(params["one"]))
    return jnp.tanh(h @ kernel(params["two"])) @ params["out"]


def direction_shapes(one, two):
    return {"one": {"v": (6, one), "g": (one,)}, "two": {"v": (one, two), "g": (two,)}, "out": (two, 2)}


def lora(params, x):
    """Low-rank adapters beside the kernels."""
    for name in ("one", "two"):
        layer = params[name]
        x = jnp.tanh(x @ layer["w"] + 0.5 * (x @ layer["a"]) @ layer["b"])
    return x @ params["out"]


def lora_shapes(hidden, two, rank):
    return {
        "one": {"w": (5, hidden), "a": (5, rank), "b": (rank, hidden)},
        "two": {"w": (hidden, two), "a": (hidden, rank), "b": (rank, two)},
        "out": (two, 2),
    }


ENTRIES = {
    "LoRA": Entry(
        FUNCTION, lora_shapes, {"hidden": 10, "two": 10, "rank": 5}, {"hidden": 6, "two": 6, "rank": 3},
        (
            units(10, ("two/w", 0), ("two/a", 0)),
            units(10, ("out", 0)),
            units(5, ("one/b", 0)),
            units(5, ("two/b", 0)),
        ),
        normal(5), apply=lora,
    ),
    "bfloat16 inside": Entry(
        NNX, Precise, {"hidden": 10}, {"hidden": 6},
        (units(10, ("layers/1/kernel", 0)), units(10, ("last/kernel", 0))),
        normal(6), tolerance=5e-2,
    ),
    "weight norm": Entry(
        FUNCTION, direction_shapes, {"one": 5, "two": 10}, {"one": 3, "two": 6},
        (units(5, ("two/v", 0)), units(10, ("out", 0))),
        normal(6), apply=normalised_weights,
    ),
    "standardised kernels": Entry(
        FUNCTION, standard_shapes, {"one": 5, "two": 10}, {"one": 5, "two": 6},
        (units(10, ("out", 0)),),
        normal(6), apply=standardised,
    ),
}  # fmt: skip
