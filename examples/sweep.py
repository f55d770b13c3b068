"""Many small models in one program: `jax.vmap` over strength and learning rate.

    python -m examples.sweep

Every pair of a strength and a learning rate trains its own model on scikit-learn's digits, all of them in one compiled
program. The figure shows accuracy against sparsity.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tabulate import tabulate

import ramda_jax
from examples.training.arguments import at_least, command
from ramda_jax import metrics

BATCH, STEPS = 128, 600
STRENGTHS = (3e-5, 1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 6e-3, 8e-3)
LEARNING_RATES = (3e-3, 1e-2, 3e-2)
REGULARIZER = ramda_jax.GroupLasso("input")


def digits():
    """(training images, test images, training labels, test labels); a quarter is held out."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32) / 16
    return train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)


def init_params():
    """A multilayer perceptron, 64 pixels to 32 hidden units to 10 classes."""
    first, second = jax.random.split(jax.random.key(0))
    return {
        "hidden": {"kernel": jax.random.normal(first, (64, 32)) / 8, "bias": jnp.zeros(32)},
        "out": {"kernel": jax.random.normal(second, (32, 10)) / 6, "bias": jnp.zeros(10)},
    }


def predict(params, images):
    """Logits."""
    hidden = jax.nn.relu(images @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


@functools.partial(jax.jit, static_argnames="steps")
def train_one(strength, learning_rate, images, labels, steps=STEPS):
    """Trains one model. `strength` and `learning_rate` may be traced numbers."""
    optimizer = ramda_jax.ramda(
        learning_rate, REGULARIZER, strength, averaging=ramda_jax.sqrt_growth(0.1, steps // 2), restarts=(steps // 2,)
    )

    def loss_fn(params, batch):
        logits = predict(params, images[batch])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

    def train_step(carry, key):
        params, state = carry
        batch = jax.random.choice(key, len(images), (BATCH,), replace=False)
        updates, state = optimizer.update(jax.grad(loss_fn)(params, batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = init_params()
    keys = jax.random.split(jax.random.key(1), steps)
    (params, _), _ = jax.lax.scan(train_step, (params, optimizer.init(params)), keys)
    return params


def sweep(strengths, learning_rates, images, labels, steps=STEPS):
    """The parameters of all pairs, stacked along two new axes."""

    def run(strength, learning_rate):
        return train_one(strength, learning_rate, images, labels, steps)

    over_rates = jax.vmap(run, in_axes=(None, 0))
    return jax.jit(jax.vmap(over_rates, in_axes=(0, None)))(jnp.asarray(strengths), jnp.asarray(learning_rates))


def score(params, images, labels):
    """(accuracy, share of the weights in groups that are zero) of one model."""
    accuracy = jnp.mean(jnp.argmax(predict(params, images), axis=-1) == labels)
    return accuracy, metrics.weighted_group_sparsity(REGULARIZER, params)


def draw(accuracies, sparsities, path):
    """Accuracy against sparsity, one line for each learning rate."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for column, rate in enumerate(LEARNING_RATES):
        axis.plot(sparsities[:, column], accuracies[:, column], "o-", label=f"learning rate {rate:g}")
    axis.set(xlabel="weighted group sparsity", ylabel="test accuracy", title="each dot a model, all trained at once")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.legend()
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Trains all models, prints the table and draws the figure."""
    parser = command("sweep", "A sweep of RAMDA over strength and learning rate.")
    parser.add_argument("--steps", type=at_least(2), default=STEPS, help=f"default: {STEPS}")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the figure (default: out)")
    args = parser.parse_args(argv)

    images, test_images, labels, test_labels = (jnp.asarray(part) for part in digits())
    params = sweep(STRENGTHS, LEARNING_RATES, images, labels, args.steps)
    score_all = jax.vmap(jax.vmap(lambda params: score(params, test_images, test_labels)))
    accuracies, sparsities = map(np.asarray, score_all(params))
    rows = [
        [f"{strength:g}", *(f"{a:.1%} at {s:.1%}" for a, s in zip(*pair, strict=True))]
        for strength, *pair in zip(STRENGTHS, accuracies, sparsities, strict=True)
    ]
    print("Test accuracy at weighted group sparsity:")
    print(tabulate(rows, headers=["strength", *(f"learning rate {rate:g}" for rate in LEARNING_RATES)]))
    args.out.mkdir(parents=True, exist_ok=True)
    draw(accuracies, sparsities, args.out / "sweep.png")
    print(f"\nThe figure: {args.out / 'sweep.png'}")


if __name__ == "__main__":
    main()
