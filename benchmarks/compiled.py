"""The cost of an optimizer step that is compiled for an NVIDIA H100 or a TPU v5e. Neither is needed.

    make compiled                                      both chips, in environments of their own
    python -m benchmarks.compiled --chip h100          in an environment that has jax-cuda13-plugin
    python -m benchmarks.compiled --chip v5e           in one that has jax[tpu]
        [--trees NAME ...] [--methods NAME ...] [--sharded] [--swapped] [--fused] [--json FILE]

XLA compiles ahead of time for a described machine. The table compares with `optax.adamw` on the same tree in float32:

bytes        bytes per parameter that every step reads and writes in the device's memory: the operands and results of
             each instruction, without the branches of conditionals and the bodies of loops. A copy that runs in
             parallel with other work counts once. Data that stays in the chip's own memory does not count.
temporaries  bytes per parameter that the step needs in addition to its arguments and results
kernels      fusions, copies and calls of libraries
waits        conditionals and loops: a GPU waits for its host at each of them
compile      processor seconds of this process, and relative to AdamW's. The assembler of a GPU's kernels is a separate
             process, whose time is not included.

`--sharded` shards the tree over four chips and prints the collectives of a step. `--swapped` compiles a step that takes
(params, state) and returns (state, params), so that arrays which only pass through are copied. `--fused` adds RAMDA
with one kernel for each leaf (`ramda(..., fused=True)`): by `update` and `optax.apply_updates`, and by its `step`,
which writes the parameters too; without `--methods` only AdamW and RAMDA with the group LASSO are beside it.
"""

import argparse
import contextlib
import json
import math
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import AbstractDevice, AbstractMesh, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import ramda_jax
from benchmarks.hlo import read_program

# XLA's description of an H100 with 80 GB.
H100 = """gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3" """

GROUPS = ramda_jax.GroupLasso()
METHODS = {
    "adamw": lambda: optax.adamw(1e-3),
    "ramda none": lambda: ramda_jax.ramda(1e-2),
    "ramda l1": lambda: ramda_jax.ramda(1e-2, ramda_jax.L1(), 1e-4),
    "rmda group_lasso": lambda: ramda_jax.rmda(1e-2, GROUPS, 1e-4),
    "ramda group_lasso": lambda: ramda_jax.ramda(1e-2, GROUPS, 1e-4),
    "ramda strict": lambda: ramda_jax.ramda(1e-2, GROUPS, 1e-4, solver=ramda_jax.SecularNewton(strict=True)),
    "ramda sparse_group_lasso": lambda: ramda_jax.ramda(1e-2, ramda_jax.SparseGroupLasso(), 1e-4),
    "ramda group_mcp": lambda: ramda_jax.ramda(1e-2, ramda_jax.GroupMCP(omega=1.0), 1e-4),
    "prox_adamw group_lasso": lambda: ramda_jax.prox_adamw(1e-3, GROUPS, 1e-4),
}

# How the step of `ramda(..., fused=True)` is called.
FUSED = {"ramda fused, update": False, "ramda fused, step": True}


def fused_method():
    """RAMDA with the group LASSO in one kernel for each leaf."""
    return ramda_jax.ramda(1e-2, GROUPS, 1e-4, fused=True)


def decoder(*stack):
    """The shapes of a decoder's layer, 1,024 wide, with grouped heads; `stack` are axes before them."""
    return {
        "attention": {
            "query": {"kernel": (*stack, 1024, 16, 64)},
            "key": {"kernel": (*stack, 1024, 4, 64)},
            "value": {"kernel": (*stack, 1024, 4, 64)},
            "out": {"kernel": (*stack, 16, 64, 1024)},
        },
        "mlp": {
            "gate": {"kernel": (*stack, 1024, 4096)},
            "up": {"kernel": (*stack, 1024, 4096)},
            "down": {"kernel": (*stack, 4096, 1024)},
        },
    }


def resnet_stage(width, blocks):
    """The shapes of the convolutions of one stage of ResNet50."""
    return {
        f"block{i}": {
            "conv1": {"kernel": (1, 1, 4 * width, width)},
            "conv2": {"kernel": (3, 3, width, width)},
            "conv3": {"kernel": (1, 1, width, 4 * width)},
            **{f"norm{j}": {"scale": (4 * width if j == 3 else width,)} for j in (1, 2, 3)},
        }
        for i in range(blocks)
    }


TREES = {
    "matrix": {"dense": {"kernel": (4096, 4096), "bias": (4096,)}},
    "decoder": {f"layer{i}": decoder() for i in range(2)},
    "stacked_decoder": decoder(2),
    "resnet50": {f"stage{w}": resnet_stage(w, n) for w, n in ((64, 3), (128, 4), (256, 6), (512, 3))},
}


def topology(chip):
    """The described machine; exits with the reason if this environment cannot compile for it."""
    # Run on the CPU, because JAX would otherwise look for the chip and for cuDNN.
    jax.config.update("jax_platforms", "cpu")
    if chip == "v5e":
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    try:
        if chip == "v5e":
            return topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
        from jax_plugins import xla_cuda13  # pyright: ignore[reportMissingImports]

        try:
            xla_cuda13.initialize()
        except jax.errors.JaxRuntimeError as error:  # already registered by JAX
            if "ALREADY_EXISTS" not in str(error):
                raise
        return topologies.get_topology_desc(platform="cuda", topology_name="h100", target_config=H100, topology="1x1x1")
    except (ImportError, RuntimeError) as error:
        sys.exit(
            f"This environment cannot compile for {chip!r}: {str(error).splitlines()[0]}; use `make compiled`, which "
            "makes one that can."
        )


def described_gpu(chip):
    """A context that describes the GPU for Pallas, which asks for it since JAX 0.12."""
    if chip != "h100":
        return contextlib.nullcontext()
    kind = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    return jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=kind))


def compiled_step(optimizer, shapes, sharding, is_swapped=False, writes_params=False):
    """The compiled step of an optimizer, with donated arguments, and its number of parameters.

    Args:
        optimizer: an Optax transformation.
        shapes: a tree of shapes.
        sharding: a function from a shape to the sharding of such an array.
        is_swapped: whether the results come in another order than the arguments.
        writes_params: whether it is `fused_step(optimizer)`, not `optimizer.update`.
    """

    def described(shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding(shape))

    params = jax.tree.map(described, shapes, is_leaf=lambda x: isinstance(x, tuple))
    state = jax.tree.map(lambda x: described(x.shape, x.dtype), jax.eval_shape(optimizer.init, params))

    def step(params, state, gradients):
        if writes_params:
            params, state = ramda_jax.fused_step(optimizer)(gradients, state, params)
        else:
            updates, state = optimizer.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        return (state, params) if is_swapped else (params, state)

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    if is_swapped:
        return compiled, sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    # In every step but the first, the state has the sharding of the previous step's result.
    _, left = compiled.output_shardings
    later = jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state, left)
    same = jax.tree.map(lambda x, y: x.sharding.is_equivalent_to(y.sharding, x.ndim), state, later)
    if not all(jax.tree.leaves(same)):
        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, later, params).compile()
    return compiled, sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def measured(chip, tree, method, devices, is_sharded, is_swapped):
    """One row."""
    mesh = Mesh(np.array(devices), ("chips",))
    shapes = set(jax.tree.leaves(TREES[tree], is_leaf=lambda x: isinstance(x, tuple)))

    def sharding(shape):
        if not is_sharded:
            return SingleDeviceSharding(devices[0])
        # Shard parameters along the longest axis. Arrays of one number per group, and single numbers, start on every
        # chip.
        if shape not in shapes:
            return NamedSharding(mesh, PartitionSpec())
        axis = max(range(len(shape)), key=lambda i: shape[i])
        return NamedSharding(mesh, PartitionSpec(*(None,) * axis, "chips"))

    start = time.process_time()
    optimizer = fused_method() if method in FUSED else METHODS[method]()
    with described_gpu(chip):
        compiled, size = compiled_step(optimizer, TREES[tree], sharding, is_swapped, FUSED.get(method, False))
    seconds = time.process_time() - start
    program = read_program(compiled.as_text() or "")
    return {
        "chip": chip,
        "jax": jax.__version__,
        "tree": tree,
        "method": method,
        "bytes": program.bytes / size,
        "temporaries": compiled.memory_analysis().temp_size_in_bytes  # pyright: ignore[reportOptionalMemberAccess]
        / size,
        "kernels": program.kernels,
        "waits": program.conditionals + program.loops,
        "collectives": program.collectives,
        "compile": seconds,
    }


def line(row, first):
    """A row as printed."""
    if row["collectives"]:
        return f"{row['method']:26s} " + ", ".join(f"{count} {name}" for name, count in row["collectives"].items())
    return (
        f"{row['method']:26s} {row['bytes']:6.1f} {row['temporaries']:12.2f} {row['kernels']:8d} {row['waits']:6d} "
        f"{row['compile']:8.1f} s {row['compile'] / first['compile']:6.1f}"
    )


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=("h100", "v5e"), required=True)
    parser.add_argument("--trees", nargs="+", choices=TREES, default=list(TREES))
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--swapped", action="store_true")
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    methods = args.methods or (["adamw", "ramda group_lasso"] if args.fused else list(METHODS))
    methods += list(FUSED) if args.fused else []
    devices = topology(args.chip).devices
    if args.sharded and len(devices) == 1:
        sys.exit("`--sharded` needs a described machine of several chips; use --chip v5e.")
    rows = []
    for tree in args.trees:
        print(f"\n{tree} on {len(devices) if args.sharded else 1} x {args.chip}, JAX {jax.__version__}")
        if not args.sharded:
            print(f"{'':26s} {'bytes':>6s} {'temporaries':>12s} {'kernels':>8s} {'waits':>6s} {'compile':>10s} / AdamW")
        first = None
        for method in methods:
            row = measured(args.chip, tree, method, devices, args.sharded, args.swapped)
            first = first or row
            rows.append(row)
            print(line(row, first), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
