"""The programs that JAX hands to XLA, for every method, regularizer and tree: saved, or compared with saved ones.

    python -m benchmarks.stablehlo --save out/stablehlo            # on the state before a change
    python -m benchmarks.stablehlo --compare out/stablehlo         # on the state after it

A refactoring must not change any program. Programs with different texts may still have the same operations on arrays,
in another order, or with other operations on scalars; these are counted separately. If operations on arrays differ,
`--lines` of them are printed. Nothing is compiled or run.
"""

import argparse
import collections
import itertools
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import ramda_jax

METHODS = {
    "ramda": lambda regularizer, **settings: ramda_jax.ramda(0.1, regularizer, 0.5, restarts=(10,), **settings),
    "rmda": lambda regularizer, **settings: ramda_jax.rmda(0.1, regularizer, 0.5, restarts=(10,), **settings),
    "prox_sgd": lambda regularizer, **settings: ramda_jax.prox_sgd(0.1, regularizer, 0.5, **settings),
    "prox_adamw": lambda regularizer, **settings: ramda_jax.prox_adamw(
        0.1, regularizer, 0.5, weight_decay=0.1, **settings
    ),
    "prox_ssi": lambda regularizer, **settings: ramda_jax.prox_ssi(0.1, regularizer, 0.5, **settings),
}
REGULARIZERS = {
    "null": ramda_jax.Null(),
    "l1": ramda_jax.L1(),
    "group_lasso": ramda_jax.GroupLasso(),
    "output_groups": ramda_jax.GroupLasso("output", group_weight="sqrt_layer_size"),
    "sparse_group_lasso": ramda_jax.SparseGroupLasso(),
    "mcp": ramda_jax.MCP(omega=1.0),
    "group_mcp": ramda_jax.GroupMCP(gamma=1.0),
    "sparse_group_mcp": ramda_jax.SparseGroupMCP(omega=1.0),
    "nuclear_norm": ramda_jax.NuclearNorm(),
    "box": ramda_jax.Box(-1.0, 1.0),
    "quantized": ramda_jax.Quantized((-1.0, 0.0, 1.0)),
}
SOLVERS = {
    "secular_newton": ramda_jax.SecularNewton(),
    "proximal_gradient": ramda_jax.ProximalGradient(),
    "newton_raphson": ramda_jax.NewtonRaphson(),
}
PLATFORMS = ("cpu", "cuda")
DEVICES = 4


def trees(sharded):
    """Trees of shapes by how they are solved, for one device or for several."""

    def shapes(dtype=jnp.float32, **leaves):
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in leaves.items()}

    if not sharded:
        few = {"kernel": (6, 4), "bias": (4,), "conv": (3, 3, 2, 6)}
        many = {f"layer_{i}": (8, 8) if i % 2 else (8,) for i in range(40)}
        return {
            "small": shapes(**few),
            "bfloat16": shapes(jnp.bfloat16, **few),
            "tiled": shapes(kernel=(1024, 2048)),
            "many": shapes(**many),
        }
    mesh = Mesh(jax.devices(), ("devices",))
    rows, replicated = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("devices",), ()))
    return {
        "sharded": {
            "kernel": jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=rows),
            "bias": jax.ShapeDtypeStruct((16,), jnp.float32, sharding=replicated),
        }
    }


def programs(sharded=False):
    """Pairs of a name and a lowered program's text."""
    cases = [(method, name, {}) for method, name in itertools.product(METHODS, REGULARIZERS)]
    cases += [("ramda", "group_lasso", {"solver": name}) for name in SOLVERS]
    for tree, params in trees(sharded).items():
        for method, name, settings in cases:
            solver = {key: SOLVERS[value] for key, value in settings.items()}
            optimizer = METHODS[method](REGULARIZERS[name], **solver)
            state = jax.eval_shape(optimizer.init, params)
            for function_name, function, arguments in (
                ("update_fn", optimizer.update, (params, state, params)),
                ("eval_params", ramda_jax.eval_params, (state, params)),
            ):
                traced = jax.jit(function).trace(*arguments)
                for platform in PLATFORMS:
                    text = traced.lower(lowering_platforms=(platform,)).as_text()
                    yield ".".join([tree, method, name, *settings.values(), function_name, platform]), text


# Operations that only name or pass on values and functions.
_NAMES = re.compile(r"%\w+(:\d+)?(#\d+)?|@\w+")
_HANDING_ON = ("func.func", "call @", "return", "stablehlo.while", "cond {", "}, ")


def array_operations(text):
    """The number of times that a program has each operation on arrays that are not scalars."""
    lines = (line.strip() for line in text.splitlines() if not any(word in line for word in _HANDING_ON))
    return collections.Counter(_NAMES.sub("%", line) for line in lines if re.search(r"tensor<\d", line))


def compare(name, before, after, lines):
    """ "same text", "same operations on arrays" or "differ"; prints which operations differ."""
    if before == after:
        return "same text"
    one, other = array_operations(before), array_operations(after)
    if one == other:
        return "same operations on arrays"
    difference = [f"- {line}" for line in (one - other).elements()] + [f"+ {line}" for line in (other - one).elements()]
    print(f"{name}: {len(difference)} operations on arrays differ")
    print("".join(f"    {line}\n" for line in difference[:lines]), end="")
    return "differ"


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--save", metavar="DIR", type=pathlib.Path, help="write every program into a folder")
    action.add_argument("--compare", metavar="DIR", type=pathlib.Path, help="compare with the programs of a folder")
    parser.add_argument("--lines", type=int, default=0, help="the number of lines to print for each difference")
    parser.add_argument("--sharded", action="store_true", help="only the trees for several devices")
    arguments = parser.parse_args()
    folder = arguments.save or arguments.compare
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = collections.Counter()
    for name, text in programs(arguments.sharded):
        file = folder / f"{name}.txt"
        if arguments.save:
            file.write_text(text)
            outcomes["saved"] += 1
        else:
            outcomes[compare(name, file.read_text() if file.exists() else "", text, arguments.lines)] += 1
    figures = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{jax.device_count()} device(s), {outcomes.total()} programs: {figures}", flush=True)
    failed = outcomes["differ"] > 0
    if not arguments.sharded:
        # With several devices no leaf is cut into tiles and no leaves are joined, so these programs need another
        # process.
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
        again = [sys.executable, "-m", "benchmarks.stablehlo", *sys.argv[1:], "--sharded"]
        failed |= bool(subprocess.run(again, env={**os.environ, "XLA_FLAGS": flags}, check=False).returncode)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
