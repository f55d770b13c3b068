"""A whole training step of a large decoder, compiled for 16, 64 or 256 TPU chips, none of which is needed.

    python -m benchmarks.decoder_at_scale [--sizes 1b 7b] [--chips 16 64 256] [--methods adamw ramda ...] [--json FILE]

`--json docs/decoder_at_scale.json` only compiles the rows that the file does not have yet, and prints all.

It needs an environment that has jax[tpu] (`make compiled` makes one, `.venv-tpu`). The decoder has grouped heads,
rotary positions, a gated MLP and RMSNorm. Its layers are stacked and run by `lax.scan`, and each is computed again in
the backward pass. Weights are float32, and the arithmetic is bfloat16. Parameters and optimizer state are sharded over
all chips, and every chip has one sequence of 2,048 tokens. Nothing is allocated: XLA compiles ahead of time for a
described machine. The table has

memory       GiB per chip: the arguments, and the memory that the step needs in addition. A TPU v5e has 16. If XLA
             says that the step does not fit, the row has its message.
collectives  the number in the program, and the number in the program of the gradients alone
optimizer    GiB per chip that the optimizer's step alone moves, and its share of the sum of that and of what the
             gradients move, by XLA's own count. (XLA counts a loop's body once. The traffic of a layer is the
             difference to a program that runs two layers in each pass.)
compile      seconds, which depend on the other load of the machine
"""

import argparse
import json
import os
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import ramda_jax
from benchmarks.hlo import read_program
from ramda_jax import compaction

TOKENS = 2048
CHIPS = {4: "v5e:2x2", 16: "v5e:4x4", 64: "v5e:8x8", 256: "v5e:16x16"}


class Size(NamedTuple):
    """The sizes of a decoder; `key_heads` is the number of heads of keys and values."""

    layers: int
    width: int
    heads: int
    key_heads: int
    hidden: int
    head_size: int
    vocabulary: int = 32000


SIZES = {
    "tiny": Size(2, 64, 4, 2, 128, 16, 256),
    "1b": Size(22, 2048, 32, 4, 5632, 64),  # TinyLlama
    "7b": Size(32, 4096, 32, 8, 14336, 128),  # Mistral 7B
}
METHODS = {
    "adamw": lambda groups: optax.adamw(1e-3),
    "ramda": lambda groups: ramda_jax.ramda(1e-2, groups, 1e-4),
    "rmda": lambda groups: ramda_jax.rmda(1e-2, groups, 1e-4),
}


def shapes(size: Size) -> dict:
    """The decoder's parameters, float32."""

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    layers, width = size.layers, size.width
    return {
        "table": array(size.vocabulary, width),
        "layers": {
            "attention_norm": array(layers, width),
            "query": array(layers, width, size.heads, size.head_size),
            "key": array(layers, width, size.key_heads, size.head_size),
            "value": array(layers, width, size.key_heads, size.head_size),
            "out": array(layers, size.heads, size.head_size, width),
            "mlp_norm": array(layers, width),
            "gate": array(layers, width, size.hidden),
            "up": array(layers, width, size.hidden),
            "down": array(layers, size.hidden, width),
        },
        "norm": array(width),
        "logits": array(width, size.vocabulary),
    }


def rms_norm(x, scale):
    """`scale x / sqrt(mean x^2)`, in float32."""
    x = x.astype(jnp.float32)
    return (scale * x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)).astype(jnp.bfloat16)


def rotated(x):
    """Rotary positions of (batch, time, heads, size)."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None, None] * 10000.0 ** (-jnp.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1)


def layer(x, weights, batched):
    """One layer of the decoder, from (batch, time, width) to the same shape."""
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), weights)
    y = rms_norm(x, weights["attention_norm"])
    query, key, value = (jnp.einsum("btw,whd->bthd", y, weights[name]) for name in ("query", "key", "value"))
    y = jax.nn.dot_product_attention(rotated(query), rotated(key), value, is_causal=True)
    x = batched(x + jnp.einsum("bthd,hdw->btw", y, weights["out"]))
    y = rms_norm(x, weights["mlp_norm"])
    y = (jax.nn.silu(y @ weights["gate"]) * (y @ weights["up"])) @ weights["down"]
    return batched(x + y)


def decoder(params, tokens, batched=lambda x: x, unroll=1):
    """Logits of (batch, time) tokens; `unroll` layers in each pass of the loop."""
    x = batched(params["table"].astype(jnp.bfloat16)[tokens])
    body = jax.checkpoint(lambda x, weights: (layer(x, weights, batched), None))
    x, _ = jax.lax.scan(body, x, params["layers"], unroll=unroll)
    return batched(rms_norm(x, params["norm"]) @ params["logits"].astype(jnp.bfloat16))


def loss(params, tokens, batched, unroll):
    """Mean cross-entropy of the next token."""
    logits = decoder(params, tokens[:, :-1], batched, unroll).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def groups_of(params):
    """Hidden units and heads, from the trace."""
    tokens = jax.ShapeDtypeStruct((1, 16), jnp.int32)
    return compaction.groups(compaction.trace_dims(decoder, params, tokens))


class Machine:
    """Described chips. Every array is sharded over them along its longest axis other than the layers' axis."""

    def __init__(self, devices):
        self.mesh = Mesh(np.array(devices), ("chips",))
        self.count = len(devices)

    def sharded(self, *spec):
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def batched(self, x):
        return jax.lax.with_sharding_constraint(x, self.sharded("chips"))

    def placed(self, path, x):
        """An array of parameters or state."""
        first = 1 if "layers" in jax.tree_util.keystr(path) else 0
        axes = [axis for axis in range(first, x.ndim) if x.shape[axis] % self.count == 0]
        where = max(axes, key=lambda axis: x.shape[axis]) if axes else x.ndim
        spec = (*(None,) * where, "chips") if where < x.ndim else ()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.sharded(*spec))

    def placed_tree(self, tree):
        return jax.tree_util.tree_map_with_path(self.placed, tree)


def compiled(function, *arguments, donate=()):
    """The compiled program and the seconds that it took."""
    start = time.perf_counter()
    shardings = jax.tree.map(lambda x: x.sharding, tuple(arguments[i] for i in donate)) if donate else None
    program = jax.jit(function, donate_argnums=donate, out_shardings=shardings).lower(*arguments).compile()
    return program, time.perf_counter() - start


def moved(program):
    """Bytes that a compiled program reads and writes on each chip, by XLA's count."""
    return program.cost_analysis()["bytes accessed"]


def gradients_of(machine, size):
    """The function from (params, tokens) to sharded gradients."""
    places = jax.tree.map(lambda x: x.sharding, machine.placed_tree(shapes(size)))

    def gradients(params, tokens, unroll=1):
        grads = jax.grad(partial(loss, batched=machine.batched, unroll=unroll))(params, tokens)
        return jax.tree.map(jax.lax.with_sharding_constraint, grads, places)

    return gradients


def measured(machine, size, methods, with_share=True):
    """The rows of one size on one machine."""
    params = shapes(size)
    groups = groups_of(params)
    params = machine.placed_tree(params)
    tokens = jax.ShapeDtypeStruct((machine.count, TOKENS + 1), jnp.int32, sharding=machine.sharded("chips"))
    gradients = gradients_of(machine, size)
    alone, _ = compiled(gradients, params, tokens)
    backward = {"collectives_of_gradients": read_program(alone.as_text() or "").collectives}
    if with_share:
        by_two, _ = compiled(partial(gradients, unroll=2), params, tokens)
        backward["gradient_bytes"] = moved(alone) + (size.layers - 1) * (moved(by_two) - moved(alone))
    for name in methods:
        optimizer = METHODS[name](groups)
        state = machine.placed_tree(jax.eval_shape(optimizer.init, params))

        def update(params, state, grads, optimizer=optimizer):
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        def step(params, state, tokens, update=update):
            return update(params, state, gradients(params, tokens))

        row = {
            "method": name,
            "chips": machine.count,
            "parameters": sum(x.size for x in jax.tree.leaves(params)),
            "jax": jax.__version__,
        }
        try:
            whole, seconds = compiled(step, params, state, tokens, donate=(0, 1))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield row | {"does_not_fit": shortage(str(error))}
            continue
        only, _ = compiled(update, params, state, params, donate=(0, 1))
        memory = whole.memory_analysis()
        yield (
            row
            | backward
            | {
                "arguments": memory.argument_size_in_bytes,  # pyright: ignore[reportOptionalMemberAccess]
                "temporaries": memory.temp_size_in_bytes,  # pyright: ignore[reportOptionalMemberAccess]
                "collectives": read_program(whole.as_text() or "").collectives,
                "optimizer_bytes": moved(only),
                "seconds": seconds,
            }
        )


def shortage(message):
    """What XLA says of the memory that is missing: the sentence of its message that has the sizes."""
    sizes = re.search(r"Used [^.]*\d\.\d+[A-Z] of \d+\.\d+[A-Z] \w+", message)
    return sizes.group(0) if sizes else message.splitlines()[0]


def line(row):
    """A row as printed."""
    start = f"{row['size']:5s} {row['chips']:5d} {row['method']:8s} "
    if "does_not_fit" in row:
        return start + f"does not fit: {row['does_not_fit']}"
    gib = 1 / 2**30
    counts = sum(row["collectives"].values()), sum(row["collectives_of_gradients"].values())
    own = row["optimizer_bytes"]
    share = f"{100 * own / (own + row['gradient_bytes']):6.1f} %" if "gradient_bytes" in row else f"{'-':>8s}"
    return (
        f"{start}{row['arguments'] * gib:9.2f} "
        f"{row['temporaries'] * gib:11.2f} {counts[0]:12d} {counts[1]:12d} {own * gib:13.2f} {share} "
        f"{row['seconds']:9.0f}"
    )


def cells(row):
    """A row as cells of the table in `docs/scale.md`, from the number of chips on."""
    name = {"adamw": "AdamW"}.get(row["method"], row["method"].upper())
    if "does_not_fit" in row:
        return [str(row["chips"]), name, f"does not fit: {row['does_not_fit']}"]
    gib, own = 1 / 2**30, row["optimizer_bytes"]
    share = f" ({100 * own / (own + row['gradient_bytes']):.1f} %)" if "gradient_bytes" in row else ""
    counts = ", ".join(str(sum(row[key].values())) for key in ("collectives", "collectives_of_gradients"))
    memory = [f"{row[key] * gib:.2f}" for key in ("arguments", "temporaries")]
    return [str(row["chips"]), name, *memory, counts, f"{own * gib:.2f}{share}"]


def main(argv=None):
    """Compiles and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1b", "7b"])
    parser.add_argument("--chips", nargs="+", type=int, choices=CHIPS, default=list(CHIPS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["adamw", "ramda"])
    parser.add_argument("--without-share", action="store_true", help="one program less, and no share of the traffic")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    rows = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    print("size  chips method   arguments temporaries  collectives of gradients  optimizer GiB  share   compile s")
    for name in args.sizes:
        for count in args.chips:
            known = [row for row in rows if (row["size"], row["chips"]) == (name, count)]
            print("".join(line(row) + "\n" for row in known if row["method"] in args.methods), end="", flush=True)
            missing = [method for method in args.methods if method not in [row["method"] for row in known]]
            if not missing:
                continue
            try:
                devices = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[count]).devices
            except (ImportError, RuntimeError) as error:
                sys.exit(
                    f"This environment cannot compile for TPUs: {error}; use the one of `make compiled`, .venv-tpu."
                )
            # The program of the gradients is the same for all methods.
            traffic = next(({key: row[key]} for row in known for key in ["gradient_bytes"] if key in row), {})
            with_share = not args.without_share and not traffic
            for row in measured(Machine(devices), SIZES[name], missing, with_share):
                rows.append({"size": name} | row | traffic)
                print(line(rows[-1]), flush=True)
                if args.json:  # after every row, so that an interrupted run keeps its rows
                    args.json.write_text(json.dumps(sorted(rows, key=place), indent=1) + "\n")


def place(row):
    """The key by which rows are sorted."""
    return list(SIZES).index(row["size"]), row["chips"], list(METHODS).index(row["method"])


if __name__ == "__main__":
    main()
