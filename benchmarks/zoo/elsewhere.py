"""Rebuilds the small models, in a separate process, from their code and the saved files, and compares.

    python -m benchmarks.zoo.elsewhere

It reads folders, one a line, and prints a line with the differences in each as JSON. So one process serves many
folders, because it takes longer to start than most models take to rebuild.
"""

import contextlib
import json
import os
import subprocess
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

ROOT = Path(__file__).parents[2]


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


def errors(folder):
    """The differences, or what was raised, by name."""
    found = {}
    for name, (_, entry) in ENTRIES.items():
        if (folder / name / "whole.npz").exists():
            try:
                found[name] = rebuilt_error(entry, folder / name)
            except Exception as error:  # whatever it is, the table shows it
                found[name] = f"{type(error).__name__}: {error}"
    return found


@contextlib.contextmanager
def another_process():
    """A function like `errors` that another process computes, which ends with the context."""
    command, environment = [sys.executable, "-m", "benchmarks.zoo.elsewhere"], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def errors_there(folder):
            assert process.stdin is not None and process.stdout is not None
            print(folder.resolve(), file=process.stdin, flush=True)
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the process that rebuilds the small models has ended with {process.wait()}.")
            return json.loads(line)

        yield errors_there


def main():
    """Answers each line of the input."""
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            found = errors(Path(line.rstrip("\n")))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
