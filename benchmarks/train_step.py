"""The optimizer's share of a whole training step: RAMDA, RMDA, ProxSGD and AdamW on three nets.

    python -m benchmarks.train_step [--nets NAME ...] [--json FILE] [--small]

Three programs are compiled for each optimizer, or once for all: gradients and step together (what training runs), the
gradients alone, and the step alone. All take turns in one process.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tabulate import tabulate

from benchmarks.optimizers import make
from benchmarks.steps import ROUNDS, WARM_UP, labels
from benchmarks.timing import alternate
from benchmarks.trees import cross_entropy, digits, text
from examples.digits import ConvNet
from examples.models import LeNet5, TransformerXL

METHODS = ("adamw", "ramda", "rmda", "prox_sgd")
STRENGTH = 1e-4  # examples.digits's
# The largest share of a training step that RAMDA's step may take on two cores.
TARGETS = {("lenet5", "ramda"): 0.1}


class Task(NamedTuple):
    """A net, its loss from (net, *batch) to a number, and batches."""

    net: Any
    loss: Any
    batches: list


def demo():
    """The net of `examples.digits`, batches of 128."""
    return Task(ConvNet(nnx.Rngs(0)), cross_entropy, digits(8))


def lenet5():
    """LeNet5, batches of 128 digits of 28 x 28."""
    return Task(LeNet5(rngs=nnx.Rngs(0)), cross_entropy, digits(28))


def transformer():
    """Four layers of 128 features of a Transformer-XL, 16 segments of 64 bytes of text."""
    net = TransformerXL(256, 4, 128, 4, 32, 512, mem_len=64, dropout=0.0, rngs=nnx.Rngs(0))
    memory = net.empty_memory(16)
    return Task(net, lambda net, *batch: net.losses(*batch, memory)[0].mean(), text(16, 64, 8))


NETS = {"demo": demo, "lenet5": lenet5, "transformer": transformer}


class Program:
    """A compiled function called on its own parameters, on their state, and on the next of some inputs."""

    def __init__(self, function, params, state, inputs):
        self.inputs = itertools.cycle(inputs)
        # Copy, because these are donated and the state's first values may be the parameters themselves.
        self.params, self.state = jax.tree.map(jnp.copy, (params, state))
        self.function = jax.jit(function, donate_argnums=(0, 1))

    def __call__(self):
        self.params, self.state, *rest = self.function(self.params, self.state, *next(self.inputs))
        return self.params, self.state, rest


def programs(task, methods):
    """A dict from `gradients`, (method, `whole`) and (method, `step`) to functions without arguments."""
    graph, params, others = nnx.split(task.net, nnx.Param, ...)

    def gradient(params, *batch):
        return jax.grad(lambda params: task.loss(nnx.merge(graph, params, others), *batch))(params)

    def only_gradients(params, state, *batch):
        return params, state, gradient(params, *batch)

    gradients = [jax.jit(gradient)(params, *batch) for batch in task.batches[:4]]
    result: dict = {"gradients": Program(only_gradients, params, (), task.batches)}
    for method in methods:
        optimizer = make(method, "group_lasso", STRENGTH)

        def step(params, state, gradient, optimizer=optimizer):
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        def whole(params, state, *batch, step=step):
            return step(params, state, gradient(params, *batch))

        result[method, "whole"] = Program(whole, params, optimizer.init(params), task.batches)
        result[method, "step"] = Program(step, params, optimizer.init(params), [(grads,) for grads in gradients])
    return result


def rows_of(name, methods, warm_up, rounds):
    """One row for each method."""
    task = NETS[name]()
    functions = programs(task, methods)
    for function in functions.values():
        for _ in range(warm_up):
            jax.block_until_ready(function())
    times: dict[Any, np.ndarray] = alternate(functions, rounds)
    params = nnx.state(task.net, nnx.Param)
    rows = []
    for method in methods:
        whole, step = times[method, "whole"], times[method, "step"]
        samples = {
            "ratio": whole / times["adamw", "whole"],
            "step_ratio": step / times["adamw", "step"],
            "share": step / whole,
            "added_share": (whole - times["gradients"]) / whole,
        }
        values = {}
        for key, sample in samples.items():
            quarter, median, three_quarters = np.quantile(sample, (0.25, 0.5, 0.75)).tolist()
            values |= {key: median, key + "_quartiles": [quarter, three_quarters]}
        values |= {"rounds": rounds, "seconds": float(np.median(whole)), "step_seconds": float(np.median(step))}
        regularizer = "none" if method == "adamw" else "group_lasso"
        rows.append(labels(name, "float32", method, regularizer, params) | values)
    return rows


def print_table(rows, with_targets):
    """All nets."""

    def verdict(row):
        most = TARGETS.get((row["tree"], row["method"]))
        if most is None or row["device"] != "cpu" or not with_targets:
            return ""
        return f"share at most {100 * most:.0f} %: {'met' if row['share'] <= most else 'missed'}"

    table = [
        {
            "net": row["tree"],
            "method": row["method"],
            "regularizer": row["regularizer"],
            "training\nstep, ms": f"{1e3 * row['seconds']:.1f}",
            "adamw's\n= 1": f"{row['ratio']:.2f}",
            "\nquartiles": "{:.2f} - {:.2f}".format(*row["ratio_quartiles"]),
            "optimizer\nalone, ms": f"{1e3 * row['step_seconds']:.2f}",
            "adamw's \n= 1": f"{row['step_ratio']:.2f}",
            " \nquartiles": "{:.2f} - {:.2f}".format(*row["step_ratio_quartiles"]),
            "share\nalone": f"{100 * row['share']:.1f} %",
            "  \nquartiles": "{:.1%} - {:.1%}".format(*row["share_quartiles"]),
            "\nadded": f"{100 * row['added_share']:.1f} %",
            "   \nquartiles": "{:.1%} - {:.1%}".format(*row["added_share_quartiles"]),
            "target": verdict(row),
        }
        for row in rows
    ]
    print(tabulate(table, headers="keys", disable_numparse=True))


def main(argv=None):
    """Reads the command line, measures, prints the table; returns the rows."""
    parser = argparse.ArgumentParser(description="The optimizer's share of a training step.")
    parser.add_argument("--nets", nargs="+", choices=NETS, help="default: all")
    parser.add_argument("--rounds", type=int, default=3 * ROUNDS, help=f"default: {3 * ROUNDS}")
    parser.add_argument("--small", action="store_true", help="the demo's net, RMDA, two rounds: to see that it runs")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args(argv)

    nets = args.nets or (("demo",) if args.small else tuple(NETS))
    methods, warm_up, rounds = (("adamw", "rmda"), 2, 2) if args.small else (METHODS, WARM_UP, args.rounds)
    rows = []
    for name in nets:
        print(f"{name}: {NETS[name].__doc__}", flush=True)
        rows += rows_of(name, methods, warm_up, rounds)
    print_table(rows, not args.small)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
