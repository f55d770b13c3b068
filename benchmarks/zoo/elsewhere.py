"""Rebuilds the small models, in a separate process, from their code and the saved files, and compares.

python -m benchmarks.zoo.elsewhere FOLDER
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.zoo.check import FRESH, OTHER, difference
from benchmarks.zoo.entries import ENTRIES
from benchmarks.zoo.entry import EQUINOX, FUNCTION, LINEN, NNX
from ramda_jax.compaction import load_compact, rebuild


def rebuilt_error(entry, folder):
    """The largest difference of a small model's outputs from those of the whole model in the first process."""
    model, shapes = entry.fresh()
    like = shapes if entry.library in (LINEN, FUNCTION) else None
    plan, variables = load_compact(folder, like=like)
    inputs = [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), one) for one in entry.batch(2, 0)]
    model = rebuild(model, plan, variables, *(() if entry.resize else inputs), call=entry.call, fit=entry.fit)
    if entry.library == NNX:
        model.eval()
    whole, worst = np.load(folder / "whole.npz"), 0.0
    for kind, batch in {"fresh": FRESH, "other": OTHER}.items():
        given, structure = jax.tree.flatten(entry.batch(*batch))
        given = structure.unflatten(jnp.asarray(whole[f"{kind} in {i}"]) for i in range(len(given)))
        leaves = jax.tree.leaves(output(entry, model, variables, given))
        error = difference([whole[f"{kind} out {i}"] for i in range(len(leaves))], leaves)
        worst = float(np.maximum(worst, error))
    return worst


def output(entry, model, variables, inputs):
    """The outputs of a small model, called as a user calls it."""
    call = entry.call or (lambda model, *inputs: model(*inputs))
    if entry.library == NNX:
        found = nnx.jit(call)(model, *inputs)
    elif entry.library == EQUINOX:
        found = jax.jit(lambda *inputs: call(model, *inputs))(*inputs)
    else:
        found = jax.jit(model)(variables, *inputs)
    return found if entry.compared is None else entry.compared(found)


def main(folder):
    """Writes the differences, or what was raised, by name."""
    found = {}
    for name, (_, entry) in ENTRIES.items():
        if (folder / name / "whole.npz").exists():
            try:
                found[name] = rebuilt_error(entry, folder / name)
            except Exception as error:  # whatever it is, the table shows it
                found[name] = f"{type(error).__name__}: {error}"
    (folder / "elsewhere.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
