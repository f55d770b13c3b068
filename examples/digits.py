"""RAMDA trains a small convolutional net on real digits until its structure has settled, compared with dense AdamW.

    python -m examples.digits

The group LASSO has one group per input channel of a convolution and per input feature of a dense layer. Groups that are
zero at the end can be cut out of the net. The only difference between the two runs is the line in `OPTIMIZERS`.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tabulate import tabulate
from tqdm import tqdm

import ramda_jax
from examples.training.arguments import at_least, command
from ramda_jax import files, metrics

BATCH = 128
EPOCHS, STAGE_ENDS = 240, (30, 60, 90, 120, 150)
# Tuned for accuracy on a part of the training images and for a structure that settles; README.md says how.
# A group has the weights that read an input channel. With -2 the images' single channel is a group too, for which #
# "input" would make groups by output channel.
REGULARIZER, STRENGTH = ramda_jax.GroupLasso(-2), 1e-4


def ramda(ends):
    """RAMDA in stages. In the last one c_t = 0.1 sqrt(i) reaches 1 after 100 steps: from there W has exact zeros."""
    settings = ramda_jax.stages(learning_rate=5e-2, averaging=0.1, eps=1e-6, ends=ends)
    return ramda_jax.ramda(regularizer=REGULARIZER, strength=STRENGTH, **settings)


OPTIMIZERS = {
    "RAMDA": ramda,
    "AdamW": lambda ends: optax.adamw(1e-3),
}


class ConvNet(nnx.Module):
    """Two convolutions and two dense layers, 151,306 parameters."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 32, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), strides=2, rngs=rngs)
        self.dense1 = nnx.Linear(4 * 4 * 64, 128, rngs=rngs)
        self.dense2 = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.conv1(images))
        x = nnx.relu(self.conv2(x))
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
        return self.dense2(x)


def digits():
    """(training images, test images, training labels, test labels); a quarter is held out."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16
    return train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)


@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(model, optimizer, images, labels):
    """One step; returns which groups of the new parameters are not zero."""

    def loss_fn(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    optimizer.update(model, nnx.grad(loss_fn)(model))
    return metrics.support(REGULARIZER, nnx.state(model, nnx.Param))


@nnx.jit
def accuracy(model, images, labels):
    """The share of images that the model labels correctly."""
    return jnp.mean(jnp.argmax(model(images), axis=-1) == labels)


@dataclasses.dataclass
class Run:
    """The record of a training, with a number for each epoch."""

    accuracy: list = dataclasses.field(default_factory=list)
    sparsity: list = dataclasses.field(default_factory=list)
    sparsity_eval: list = dataclasses.field(default_factory=list)
    changed_groups: list = dataclasses.field(default_factory=list)
    solver_iterations: list = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    layers: str = ""


def train(name, epochs, ends, seed):
    """Trains a fresh net; the seed, and so the initial net and the batches, are the same for all optimizers."""
    images, test_images, labels, test_labels = digits()
    steps = len(images) // BATCH
    model = ConvNet(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, OPTIMIZERS[name](tuple(end * steps for end in ends)), wrt=nnx.Param)
    shuffle = np.random.default_rng(seed)
    params = nnx.state(model, nnx.Param)
    run, history, start = Run(), metrics.StructureHistory(), time.perf_counter()

    with tqdm(range(epochs), desc=name, unit="epoch", mininterval=0.5) as progress:
        for _ in progress:
            for batch in shuffle.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH):
                support = train_step(model, optimizer, images[batch], labels[batch])
                history.add(len(history.steps), support)
            params = nnx.state(model, nnx.Param)
            run.accuracy.append(float(accuracy(model, test_images, test_labels)))
            run.sparsity.append(float(metrics.weighted_group_sparsity(REGULARIZER, params)))
            run.changed_groups.append(sum(history.changes[-steps:]))
            if name == "RAMDA":
                structured = ramda_jax.eval_params(optimizer.opt_state, params)
                run.sparsity_eval.append(float(metrics.weighted_group_sparsity(REGULARIZER, structured)))
                run.solver_iterations.append(int(ramda_jax.solver_info(optimizer.opt_state).num_steps))
            progress.set_postfix(accuracy=f"{run.accuracy[-1]:.1%}", sparsity=f"{run.sparsity[-1]:.1%}", refresh=False)
    run.seconds = time.perf_counter() - start
    run.layers = metrics.layer_table(REGULARIZER, params)
    return run


def result_table(runs, last=10):
    """The results of the runs side by side, as text."""

    def column(run):
        iterations = run.solver_iterations
        return {
            "test accuracy": f"{run.accuracy[-1]:.1%}",
            "weighted group sparsity of W": f"{run.sparsity[-1]:.1%}",
            "weighted group sparsity of eval_params": f"{run.sparsity_eval[-1]:.1%}" if run.sparsity_eval else "-",
            f"groups changed in the last {last} epochs": " ".join(map(str, run.changed_groups[-last:])),
            "solver iterations per step, mean (most)": (
                f"{np.mean(iterations):.1f} ({max(iterations)})" if iterations else "-"
            ),
            "seconds": f"{run.seconds:.0f}",
        }

    columns = [column(run) for run in runs.values()]
    return tabulate([[row, *(cells[row] for cells in columns)] for row in columns[0]], headers=["", *runs])


def draw(runs, ends, path):
    """Draws accuracy and sparsity over the epochs, and on the right the last stage enlarged."""
    ours, dense = runs["RAMDA"], runs["AdamW"]
    epochs = np.arange(1, len(ours.accuracy) + 1)
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", width_ratios=(3, 2))
    for (top, bottom), first in zip(axes.T, (0, len(epochs) // 4 * 3), strict=True):
        shown = slice(first, None)
        top.plot(epochs[shown], dense.accuracy[shown], color="tab:gray", label="AdamW")
        top.plot(epochs[shown], ours.accuracy[shown], color="tab:blue", label="RAMDA")
        bottom.plot(epochs[shown], ours.sparsity_eval[shown], color="tab:orange", label="RAMDA, eval_params")
        bottom.plot(epochs[shown], ours.sparsity[shown], "--", color="tab:blue", label="RAMDA, W")
        bottom.set_xlabel("epoch")
    bottom_left = axes[1, 0]
    bottom_left.plot(epochs, dense.sparsity, color="tab:gray", label="AdamW")
    bottom_left.legend(loc="lower right", bbox_to_anchor=(1, 0.08))
    axes[0, 0].legend(loc="lower right")
    for axis in axes[:, 0]:
        for end in ends:
            axis.axvline(end, color="lightgray", linestyle=":", zorder=0)
    axes[0, 0].set(ylabel="test accuracy", ylim=(0.8, 1.0), title="all epochs (dotted: a stage ends)")
    axes[0, 1].set(ylim=(0.95, 1.0), title="the last quarter")
    bottom_left.set(ylabel="weighted group sparsity", ylim=(-0.03, 1.03))
    for axis in axes.flat:
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Reads the command line, trains with each optimizer, prints the tables and draws the figure."""
    parser = command("digits", "RAMDA and AdamW on scikit-learn's digits.")
    parser.add_argument("--epochs", type=at_least(1), default=EPOCHS, help=f"default: {EPOCHS}")
    parser.add_argument("--seed", type=at_least(0), default=1, help="of the initial net and the batches (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the figure (default: out)")
    parser.add_argument("--json", type=Path, help="also write the numbers of every epoch to this file")
    args = parser.parse_args(argv)

    ends = sorted({args.epochs * end // EPOCHS for end in STAGE_ENDS} - {0})
    runs = {name: train(name, args.epochs, ends, args.seed) for name in OPTIMIZERS}
    print("\nWhat is left of the net trained with RAMDA:\n" + runs["RAMDA"].layers)
    print("\n" + result_table(runs))
    args.out.mkdir(parents=True, exist_ok=True)
    draw(runs, ends, args.out / "digits.png")
    print(f"\nThe figure: {args.out / 'digits.png'}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        numbers = {name: dataclasses.asdict(run) for name, run in runs.items()}
        files.write_whole(args.json, json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
