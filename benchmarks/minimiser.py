"""Solves logistic regression on MNIST to the end, and proves which groups are zero in the minimiser.

    python -m benchmarks.minimiser --data-dir data/mnist --runs out/mnist_logistic/rmda-1 out/mnist_logistic/ramda-1

The objective is that of the experiment `mnist_logistic`: the mean cross entropy of the 60,000 training images plus
lambda sqrt(10) times the norm of each pixel's ten weights; the bias is not penalised. It is convex. `logistic.solve`
solves it, and `logistic.certify` proves, by a point of the dual problem, which groups are zero in every minimiser.
`--runs` compares the final parameters of runs of `examples.train`.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from benchmarks.logistic import Problem, certify, solve
from examples.experiments import CONFIGS
from examples.training.checkpoints import Checkpoints
from examples.training.loop import Trainer

CONFIG = CONFIGS["mnist_logistic"]


def load(data_dir, num_samples=None):
    """The problem, with the inputs of the experiment."""
    train, _ = CONFIG.task.read(data_dir)
    images = np.asarray(CONFIG.task.prepare(np.asarray(train.images[:num_samples], np.float32), None, False))
    inputs = images.reshape(len(images), -1).astype(np.float64)
    labels = np.eye(10)[train.labels[:num_samples]]
    return Problem(inputs, labels, CONFIG.methods["ramda"].strength * np.sqrt(10))


class Left(NamedTuple):
    """The results of a run.

    Attributes:
        method: its name.
        kernel, bias: the parameters.
        average, pull: by group, the norms of V_t / alpha_t and of D_t W_0 / alpha_t, what the last stage's gradients
            and its anchor contribute; None for a method that does not average.
    """

    method: str
    kernel: np.ndarray
    bias: np.ndarray
    average: np.ndarray | None
    pull: np.ndarray | None


def left_by(folder, data_dir):
    """The results of a run of `examples.train` in its folder."""
    report = json.loads((folder / "report.json").read_text())
    trainer = Trainer(CONFIG, report["method"], data_dir, seed=report["seed"])
    with Checkpoints(folder / "checkpoint") as checkpoints:
        state, _ = checkpoints.restore(trainer.init())
    kernel, bias = (np.asarray(state.params["dense"][name], np.float64) for name in ("kernel", "bias"))
    sums: Any = state.opt_state[0]
    if not hasattr(sums, "anchor"):
        return Left(report["method"], kernel, bias, None, None)
    average, anchor, metric = (
        np.asarray(tree["dense"]["kernel"]) for tree in (sums.grad_sum, sums.anchor, sums.quadratic_model().metric)
    )
    alpha = float(sums.step_size_sum)
    average, pull = (np.linalg.norm(each / alpha, axis=1) for each in (average, metric * anchor))
    return Left(report["method"], kernel, bias, average, pull)


def compare(problem, optimum, certificate, runs):
    """A row for each run, with the differences between its zeros and the minimiser's."""
    kernel, bias = optimum
    alive, best = np.linalg.norm(kernel, axis=1) > 0, problem.gradient(kernel, bias)[2]
    rows = []
    for run in runs:
        lives = np.linalg.norm(run.kernel, axis=1) > 0
        missed, wrong = lives & ~alive, ~lives & alive
        rows.append(
            {
                "method": run.method,
                "zero": int(np.sum(~lives)),
                "zero_in_both": int(np.sum(~lives & ~alive)),
                "only_in_minimiser": int(np.sum(missed)),
                "only_in_run": int(np.sum(wrong)),
                "largest_margin_missed": float(certificate.margins[missed].max(initial=0) / problem.group_weight),
                "longest_group_lost": float(np.linalg.norm(kernel[wrong], axis=1).max(initial=0)),
                "objective_above": float(problem.gradient(run.kernel, run.bias)[2] - best),
            }
        )
        if run.average is not None and missed.any():
            rows[-1]["average_of_missed"] = float(run.average[missed].max() / problem.group_weight)
            rows[-1]["anchor_of_missed"] = float(run.pull[missed].max() / problem.group_weight)
    return rows


def main(argv=None):
    """Solves, certifies, compares and prints."""
    parser = argparse.ArgumentParser(description="The minimiser of the MNIST experiment, with a certificate.")
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of MNIST's four files")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of runs to compare")
    parser.add_argument("--samples", type=int, help="use only this many images, for a trial")
    parser.add_argument("--json", type=Path, help="also write what is printed to this file")
    args = parser.parse_args(argv)
    problem = load(args.data_dir, args.samples)
    optimum = solve(problem, progress=True)
    certificate = certify(problem, *optimum)
    norms = np.linalg.norm(optimum[0], axis=1)
    row = {
        "objective": problem.gradient(*optimum)[2],
        "residual": problem.residual(*optimum),
        "gap": certificate.gap,
        "zero": int(np.sum(norms == 0)),
        "certified": int(np.sum(certificate.zero)),
        "smallest_margin": float(certificate.margins[norms == 0].min() / problem.group_weight),
        "shortest": float(norms[norms > 0].min()),
        "margins_below_1_percent": int(np.sum((norms == 0) & (certificate.margins < 0.01 * problem.group_weight))),
        "shorter_than_0.01": int(np.sum((norms > 0) & (norms < 0.01))),
    }
    print(tabulate([row], headers="keys", floatfmt=".10g"))
    rows = compare(problem, optimum, certificate, [left_by(folder, args.data_dir) for folder in args.runs])
    print("\n" + tabulate(rows, headers="keys", floatfmt=".4g"))
    if args.json:
        args.json.write_text(json.dumps({"minimiser": row, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
