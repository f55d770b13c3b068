"""Trains nets of the papers with each solver of the subproblem: what its stopping rule changes, and what it costs.

    python -m benchmarks.stopping --fashion DIR --mnist DIR [--nets NAME ...] [--steps N] [--json FILE]

These are Tables 1 and 2 of the NeurIPS paper, on small nets and a small part of its schedule. RAMDA and ProxAdamW (its
ProxGen) train with four solvers: proximal gradient with all of its 100 iterations, the same with the paper's early
stopping, ProxSSI's Newton-Raphson iteration, and this library's exact one. The seed, and so the batches, are the same.
The four take their steps in turns, and the time is the processor's, without compilation and evaluation.

A row that is in the file already is not run again.
"""

import argparse
import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tabulate import tabulate

import ramda_jax
from examples.experiments import CONFIGS
from examples.experiments.config import Solver
from examples.training.loop import Trainer

#: None is the default of each method, `SecularNewton()` for group norms.
SOLVERS: dict[str, Solver | None] = {
    "proximal gradient, 100 iterations": ramda_jax.ProximalGradient(rtol=0),
    "proximal gradient, early stopping": ramda_jax.ProximalGradient(),
    "Newton-Raphson (ProxSSI)": ramda_jax.NewtonRaphson(),
    "exact (default)": None,
}
METHODS = ("ramda", "prox_adamw")
#: What the NeurIPS paper has on other nets, in the order of the table: accuracy, weighted sparsity, seconds an epoch.
PAPER = [
    ("VGG19, CIFAR10", "ProxGen, 100 iterations", "92.7 ± 0.2", "88.8 ± 0.0", ""),
    ("VGG19, CIFAR10", "ProxGen, early stopping", "92.7 ± 0.1", "86.9 ± 0.4", ""),
    ("VGG19, CIFAR10", "RAMDA, 100 iterations", "92.7 ± 0.2", "86.7 ± 0.3", ""),
    ("VGG19, CIFAR10", "RAMDA, early stopping", "92.9 ± 0.2", "86.3 ± 0.4", ""),
    ("ResNet50, CIFAR100", "ProxGen, 100 iterations", "73.6 ± 0.1", "74.7 ± 0.6", ""),
    ("ResNet50, CIFAR100", "ProxGen, early stopping", "74.0 ± 0.1", "67.6 ± 3.1", ""),
    ("ResNet50, CIFAR100", "RAMDA, 100 iterations", "69.9 ± 1.5", "69.5 ± 2.1", ""),
    ("ResNet50, CIFAR100", "RAMDA, early stopping", "71.2 ± 1.4", "67.5 ± 1.6", ""),
    ("VGG19, CIFAR10", "ProxSSI", "92.8 ± 0.1", "88.4 ± 0.2", "79"),
    ("VGG19, CIFAR10", "ProxGen", "92.8 ± 0.0", "86.6 ± 0.1", "24"),
    ("VGG19, CIFAR100", "ProxSSI", "67.3 ± 0.1", "78.6 ± 0.3", "79"),
    ("VGG19, CIFAR100", "ProxGen", "68.1 ± 0.4", "75.5 ± 0.2", "26"),
    ("ResNet50, CIFAR10", "ProxSSI", "94.0 ± 0.1", "83.7 ± 0.6", "260"),
    ("ResNet50, CIFAR10", "ProxGen", "94.1 ± 0.1", "80.4 ± 0.4", "70"),
    ("ResNet50, CIFAR100", "ProxSSI", "73.7 ± 0.4", "70.4 ± 0.7", "251"),
    ("ResNet50, CIFAR100", "ProxGen", "73.6 ± 0.4", "65.5 ± 3.6", "74"),
]
#: The paper's c = 0.01 hardly moves W in so short a stage.
AVERAGING = 0.1


class Net(NamedTuple):
    """A net.

    Attributes:
        experiment: whose it is, with its data and schedule.
        data: the name of the option with its folder.
        strengths: by method, at which a short run has zeros; ours.
        steps: of a training; every stage of the experiment is shortened alike.
    """

    experiment: str
    data: str
    strengths: dict[str, float]
    steps: int


NETS = {
    "mlp": Net("fashion_mlp", "fashion", {"ramda": 7e-5, "prox_adamw": 5e-5}, 235),
    "lenet5_small": Net("lenet5_small_glasso_iclr", "mnist", {"ramda": 3e-5, "prox_adamw": 5e-5}, 235),
}


def make_trainer(net, method, solver, steps, data_dir):
    """A training of this many steps."""
    config = CONFIGS[net.experiment].with_method(
        method, solver=solver, strength=net.strengths[method], source="ours, for a short run"
    )
    if method == "ramda":
        config = config.with_method(method, averaging=AVERAGING)
    config = dataclasses.replace(config, scan=False, measure="weighted")
    trainer = Trainer(config, method, data_dir)
    return Trainer(config, method, data_dir, scale=steps / trainer.plan.total)


def run(net, method, steps, data_dir, turns=20):
    """The rows of the four solvers: what they found, and the processor's seconds of an epoch."""
    trainers = [make_trainer(net, method, solver, steps, data_dir) for solver in SOLVERS.values()]
    states: list[Any] = [trainer.init() for trainer in trainers]
    seconds, total = [0.0] * len(trainers), trainers[0].plan.total
    # The first step compiles.
    borders = sorted({0, 1} | {1 + (total - 1) * turn // turns for turn in range(turns + 1)})
    for first, last in itertools.pairwise(borders):
        for number, trainer in enumerate(trainers):
            begin = time.process_time()
            states[number], _ = trainer.run_round(states[number], first, last, lambda: False)
            jax.block_until_ready(states[number].params)
            if first:
                seconds[number] += time.process_time() - begin
    rows = []
    for name, trainer, state, taken in zip(SOLVERS, trainers, states, seconds, strict=True):
        found, _ = trainer.evaluate(state)
        row = {"method": method, "solver": name, "steps": total, "epochs": total / trainer.data.steps_per_epoch}
        row |= {"strength": net.strengths[method], "accuracy": found[trainer.task.metric]}
        row |= {which: found[which]["weighted"] for which in ("W", "W_hat")}
        rows.append(row | {"seconds_per_epoch": taken / (total - 1) * trainer.data.steps_per_epoch})
    return rows


def table(rows):
    """The rows, then the paper's, in Markdown."""
    ours = [
        {
            "net, steps": f"{row['net']}, {row['steps']}",
            "method": row["method"],
            "solver": row["solver"],
            "accuracy": f"{100 * row['accuracy']:.2f}",
            "weighted sparsity, W / W_hat": f"{100 * row['W']:.2f} / {100 * row['W_hat']:.2f}",
            "processor seconds per epoch": f"{row['seconds_per_epoch']:.1f}",
        }
        for row in rows
    ]
    headers = ["the paper's net", "method, solver", "accuracy", "weighted sparsity", "seconds per epoch"]
    settings: Any = {"tablefmt": "pipe", "disable_numparse": True}
    return tabulate(ours, headers="keys", **settings) + "\n\n" + tabulate(PAPER, headers=headers, **settings)


def main(argv=None):
    """Trains what is missing, and prints the tables."""
    parser = argparse.ArgumentParser(description="Trainings with each solver of the subproblem.")
    parser.add_argument("--fashion", type=Path, metavar="DIR", help="folder of Fashion-MNIST's four published files")
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="folder of MNIST's four published files")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--steps", type=int, help="of a training; by default of each net its own number")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the rows; what is there is kept")
    args = parser.parse_args(argv)
    rows = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    for name in args.nets:
        net = NETS[name]
        for method in args.methods:
            folder = getattr(args, net.data)
            if folder is None or any((row["net"], row["method"]) == (name, method) for row in rows):
                continue
            for row in run(net, method, args.steps or net.steps, folder):
                rows.append({"net": name} | row)
                print(rows[-1], file=sys.stderr, flush=True)
            if args.json:
                args.json.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(table(rows))
    return rows


if __name__ == "__main__":
    main()
