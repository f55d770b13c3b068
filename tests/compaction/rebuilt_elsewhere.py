"""Small models that one process stores, and another process rebuilds with only their code.

python -m tests.compaction.rebuilt_elsewhere FOLDER
"""

import sys
from pathlib import Path

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ramda_jax.compaction import load_compact, rebuild
from tests.compaction import nets_branches, nets_linen, nets_nnx, nets_stacked


class EquinoxConvolving(eqx.Module):
    """A norm, a convolution, a grouped convolution and a recurrent cell over their outputs."""

    first: eqx.nn.Conv1d
    norm: eqx.nn.LayerNorm
    second: eqx.nn.Conv1d
    cell: eqx.nn.GRUCell
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.first, self.norm = eqx.nn.Conv1d(3, 8, 3, padding=1, key=keys[0]), eqx.nn.LayerNorm(3)
        self.second = eqx.nn.Conv1d(8, 6, 3, padding=1, groups=2, key=keys[1])
        self.cell, self.last = eqx.nn.GRUCell(6, 8, key=keys[2]), eqx.nn.Linear(8, 3, key=keys[3])

    def __call__(self, x):
        x = jax.vmap(self.norm)(x)
        x = jax.nn.relu(self.second(jax.nn.relu(self.first(x.T)))).T
        hidden, _ = jax.lax.scan(lambda hidden, one: (self.cell(one, hidden), None), jnp.zeros(8), x)
        return self.last(hidden)


class Encoder(nn.Module):
    """The part of `Both` before the head."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(6, name="down")(nn.relu(nn.Dense(8, name="up")(x)))


class Both(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="head")(nn.relu(Encoder(name="encoder")(x)))


def over_batch(model, x):
    return jax.vmap(model)(x)


#: Maps names to (class or function that makes the model, batch). The first word of a name is the library.
MODELS = {
    **{f"nnx {name}": nets_nnx.NETS[name][:2] for name in ("mobilenet", "lstm", "layer_norm")},
    **{
        f"nnx {name}": nets_stacked.NNX[name][:2]
        for name in ("scan of attention", "scan of convolutions", "vmap of recurrent nets")
    },
    **{f"linen {name}": (nets_linen.NETS[name][0], nets_linen.make(name)[2]) for name in ("transformer", "mobilenet")},
    "linen stack": nets_stacked.LINEN["scan"][:2],
    "equinox stack": nets_stacked.EQUINOX[:2],
    "equinox convolutions": (EquinoxConvolving, nets_stacked.SEQUENCES),
    "nnx branches": (nets_branches.Nnx, nets_branches.IMAGES),
    "linen branches": (nets_branches.Linen(), nets_branches.IMAGES),
    "equinox branches": (nets_branches.Equinox, nets_branches.IMAGES),
}


def how_called(name):
    return over_batch if name.startswith("equinox") else None


def fresh(name):
    """A model without values, as in another process."""
    kind, _ = MODELS[name]
    if name.startswith("nnx"):
        return nnx.eval_shape(lambda: kind(rngs=nnx.Rngs(0)))
    return eqx.filter_eval_shape(kind, jax.random.key(0)) if name.startswith("equinox") else kind


def output(name, model, variables):
    """The output for the batch of a small model, such as `Compaction.model`."""
    batch = MODELS[name][1]
    if name.startswith("nnx"):
        model.eval()
        return nnx.jit(lambda model, x: model(x))(model, batch)
    if name.startswith("linen"):
        return jax.jit(model)(variables, batch)
    return jax.jit(lambda x: over_batch(eqx.nn.inference_mode(model), x))(batch)


def main(folder):
    for name, (_, batch) in MODELS.items():
        plan, variables = load_compact(folder / name)
        model = fresh(name)
        if name.startswith("linen"):
            variables = load_compact(folder / name, like=jax.eval_shape(model.init, jax.random.key(0), batch))[1]
        model = rebuild(model, plan, variables, batch, call=how_called(name))
        np.save(folder / f"{name}.npy", output(name, model, variables))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
