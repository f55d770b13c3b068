"""Measures how much smaller and faster compaction makes a net, and how long the analysis takes.

    python -m benchmarks.compaction [--json FILE] [--png FILE] [--rounds N] [--round-to N] [--small]

It chooses channels and units at random and sets everything that reads them to zero, as a regularizer would. Then it
compacts the net, and measures it and the whole net in the same process.
"""

import argparse
import functools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tabulate import tabulate

import ramda_jax
from benchmarks.timing import alternate, ratios
from examples.models import VGG19, LeNet5, ResNet50
from ramda_jax.compaction import compact_model, compaction_report, draw_report, plan_compaction, trace_dims
from ramda_jax.compaction.adapters.choose import adapter_for
from ramda_jax.structure.paths import named_leaves

BATCH = 32
REGULARIZER = ramda_jax.GroupLasso("input")
#: XLA:CPU uses its new convolutions (YNNPACK) only for more than 16 output channels. Its old ones (Eigen) are several
#: times
#: slower for the narrow layers of the small net. The second line has both nets with the old convolutions.
COMPILERS = {"default": {}, "without YNNPACK": {"xla_cpu_experimental_ynn_fusion_type": ""}}


def cases(small):
    """Maps names to (net, batch)."""
    rngs = nnx.Rngs(0)
    vgg19 = VGG19(widths=(8, 8, 16, 16, 16), depths=(1, 1, 1, 1, 1), rngs=rngs) if small else VGG19(rngs=rngs)
    lenet5 = LeNet5((8, 8), (16,), rngs=rngs) if small else LeNet5(rngs=rngs)
    return {"vgg19": (vgg19, images(32, 3)), "lenet5": (lenet5, images(28, 1))}


def images(size, channels):
    """A batch of noise."""
    return jax.random.normal(jax.random.key(1), (BATCH, size, size, channels))


def with_dead_channels(net, batch, share, seed=0):
    """The net with that share of the indices of every free width read by zeros only; and all biases at random."""
    adapter = adapter_for(net)
    state = adapter.variables
    rng = np.random.default_rng(seed)
    values = {}
    for path, leaf in named_leaves(state):
        # With a bias of 0 a dead channel would be zero, which would be too easy.
        values[path] = rng.normal(size=leaf.shape) if "bias" in path else np.array(leaf)
    for width in trace_dims(adapter.apply, state, batch).widths:
        if width.reason:
            continue
        dead = rng.permutation(width.size)[: round(share * width.size)]
        for member in width.readers:
            np.moveaxis(values[member.path], member.axis, 0)[np.isin(member.index, dead)] = 0
    flat = [jnp.asarray(values[path], leaf.dtype) for path, leaf in named_leaves(state)]
    nnx.update(net, jax.tree.structure(state).unflatten(flat))
    return net


def saving_row(name, net, batch, share, rounds, round_to=1, png=None):
    """One row: what was removed, and how much faster the rest is."""
    net = with_dead_channels(net, batch, share)
    start = time.perf_counter()
    small = compact_model(net, batch, round_to=round_to)
    seconds = time.perf_counter() - start
    # Only the picture shows the report's own times; those of the rows are `latency`'s.
    report = compaction_report(
        small, batch, regularizer=REGULARIZER, params=nnx.state(net, nnx.Param), rounds=3 if png else 0
    )
    if png:
        draw_report(report, png)
    return {
        "study": "saving",
        "net": name,
        "batch": BATCH,
        "dead_channels": share,
        "round_to": round_to,
        "weighted_group_sparsity": report.weighted_group_sparsity,
        "params": [report.before.params, report.after.params],
        "removed_params": report.removed_params,
        "flops": [report.before.flops, report.after.flops],
        "removed_flops": report.removed_flops,
        "latency": {name: latency(small, batch, rounds, options) for name, options in COMPILERS.items()},
        "error": report.error,
        "compact_seconds": seconds,
    }


def latency(small, batch, rounds, options):
    """The time of a call of the whole and of the small net; None if XLA does not have these options."""
    runs = {}
    for name, (apply, variables) in {"whole": small.whole, "small": (small.apply, small.variables)}.items():
        try:
            compiled = jax.jit(apply).lower(variables, batch).compile(compiler_options=options)
        except jax.errors.JaxRuntimeError:
            return None
        runs[name] = functools.partial(compiled, variables, batch)
    times = alternate(runs, rounds)
    quarter, median, three_quarters = np.quantile(1 / ratios(times, "whole")["small"], (0.25, 0.5, 0.75))
    return {
        "milliseconds": [1e3 * float(np.median(times[run])) for run in ("whole", "small")],
        "speedup": float(median),
        "speedup_quartiles": [float(quarter), float(three_quarters)],
    }


def analysis_row(small, rounds=3):
    """One row: how long `trace_dims` and `plan_compaction` take for ResNet50."""
    net = ResNet50(width=4, depths=(1, 1, 1, 1), rngs=nnx.Rngs(0)) if small else ResNet50(rngs=nnx.Rngs(0))
    batch = images(32, 3)
    adapter = adapter_for(net)
    state = adapter.variables

    def analyse():
        start = time.perf_counter()
        dims = trace_dims(adapter.apply, state, batch)
        plan = plan_compaction(dims, state)
        return dims, plan, time.perf_counter() - start

    analyses = [analyse() for _ in range(rounds)]
    dims, plan, _ = analyses[-1]
    seconds = [seconds for *_, seconds in analyses]
    return {
        "study": "analysis",
        "net": "resnet50",
        "params": plan.num_params[0],
        "equations": len(dims.walk.visits),
        "widths": len(dims.widths),
        "first_seconds": seconds[0],
        "seconds": float(np.median(seconds)),
    }


def print_tables(rows):
    """The two tables."""
    print("\nCompaction of nets with dead channels (latency: median and quartiles of the ratio, round by round)")
    headers = ["net", "dead\nchannels", "weighted\nsparsity", "parameters\nremoved", "FLOPs\nremoved"]
    headers += [
        "largest\ndifference",
        "seconds to\ncompact",
        "XLA",
        "ms\nwhole",
        "\nsmall",
        "times\nfaster",
        "\nquartiles",
    ]
    table = []
    for row in rows:
        if row["study"] != "saving":
            continue
        shares = ("dead_channels", "weighted_group_sparsity", "removed_params", "removed_flops")
        cells = [row["net"], *(f"{100 * row[key]:.1f} %" for key in shares)]
        cells += [f"{row['error']:.0e}", f"{row['compact_seconds']:.1f}"]
        for compiler, times in row["latency"].items():
            if times is not None:
                speed = [f"{times['speedup']:.1f}", "{:.1f} - {:.1f}".format(*times["speedup_quartiles"])]
                table.append([*cells, compiler, *(f"{ms:.2f}" for ms in times["milliseconds"]), *speed])
    print(tabulate(table, headers, disable_numparse=True))
    for row in rows:
        if row["study"] == "analysis":
            print(
                f"\nAnalysis of {row['net']} ({row['params']:,} parameters, {row['equations']} equations, "
                f"{row['widths']} widths): {row['first_seconds']:.2f} s the first time, {row['seconds']:.2f} s in the "
                "median"
            )


def main(arguments=None):
    """Runs the command; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--png", type=Path, help="draw what is left of VGG19 to this file")
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each net")
    parser.add_argument("--share", type=float, default=0.75, help="share of the channels that are dead")
    parser.add_argument("--round-to", type=int, default=1, help="widths become multiples of this number")
    parser.add_argument("--small", action="store_true", help="tiny nets: only shows that it runs")
    options = parser.parse_args(arguments)
    rows = []
    for name, (net, batch) in cases(options.small).items():
        png = options.png if name == "vgg19" else None
        rows.append(saving_row(name, net, batch, options.share, options.rounds, options.round_to, png))
    rows.append(analysis_row(options.small))
    print_tables(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return rows


if __name__ == "__main__":
    main()
