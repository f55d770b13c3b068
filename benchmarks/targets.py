"""Measures whether a `Target` reaches its share, and at what accuracy.

    python -m benchmarks.targets                                         # on the digits that scikit-learn ships
    python -m benchmarks.targets --fashion DIR --mnist DIR               # and on these, if their files are there
    python -m benchmarks.targets --problems digits_conv --shares 0.9 --seeds 5 --json targets.json

Each run is RAMDA with the group LASSO, `stages(learning_rate, total_steps)` and `Target(share, start=start)`, for
every seed and every start. A row has the shares of zero weights at the end, how many times lambda moved after it was
held, how many groups changed in the last tenth of the steps, the lambdas found, and the test accuracy beside that of
the same net without a regularizer.
"""

import argparse
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tabulate import tabulate

import ramda_jax
from examples.data.idx import read_idx
from ramda_jax import metrics

REGULARIZER = ramda_jax.GroupLasso(-2)  # by input channel, including the images' single one
SHARES = (0.5, 0.7, 0.9, 0.95)
STARTS = (1e-7, 1e-4, 1e-1)
BATCH = 64
# The numbers of images of Fashion-MNIST and MNIST: enough to learn from, few enough for two cores.
TRAINED_ON, TESTED_ON = 6_000, 2_000


class Problem(NamedTuple):
    """A net and its data.

    Attributes:
        widths: the widths of the dense layers, the output last; the first input is the output of the layers before.
        channels: the channels of the convolutions before them.
        learning_rate: of the first stage.
        num_steps: of a run.
        data: gives (training images, test images, training labels, test labels), images of shape `[n, h, w, 1]`.
    """

    widths: tuple[int, ...]
    channels: tuple[int, ...]
    learning_rate: float
    num_steps: int
    data: Callable[[], Sequence[Any]]


@functools.cache
def digits():
    """The digits of scikit-learn; a quarter is held out."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16
    return train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)


@functools.cache
def idx_files(folder):
    """The first images of the published files of MNIST or Fashion-MNIST."""
    arrays = []
    for part, count in (("train", TRAINED_ON), ("t10k", TESTED_ON)):
        images = read_idx(Path(folder) / f"{part}-images-idx3-ubyte.gz")[:count]
        labels = read_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz")[:count]
        arrays.append((images[..., None].astype(np.float32) / 255, labels.astype(np.int32)))
    (images, labels), (test_images, test_labels) = arrays
    return images, test_images, labels, test_labels


def problems(mnist, fashion):
    """The problems whose data are there."""
    found = {
        "digits_logistic": Problem((10,), (), 3e-2, 8_000, digits),
        "digits_conv": Problem((64, 10), (16, 32), 3e-2, 2_000, digits),
    }
    if fashion is not None:
        found["fashion_mlp"] = Problem((96, 48, 10), (), 1e-2, 4_000, functools.partial(idx_files, fashion))
    if mnist is not None:
        found["mnist_mlp"] = Problem((96, 48, 10), (), 1e-2, 4_000, functools.partial(idx_files, mnist))
        found["mnist_conv"] = Problem((64, 10), (8, 16), 1e-2, 4_000, functools.partial(idx_files, mnist))
    return found


def initial(problem, key, image_shape):
    """He's initial weights, by the names of Flax."""
    params: dict[str, Any] = {}
    height, width, fan_in = image_shape
    for number, channels in enumerate(problem.channels):
        shape = (3, 3, fan_in, channels)
        params[f"conv{number}"] = {"kernel": shape, "bias": (channels,)}
        height, width, fan_in = -(-height // 2), -(-width // 2), channels
    fan_in *= height * width
    for number, features in enumerate(problem.widths):
        params[f"dense{number}"] = {"kernel": (fan_in, features), "bias": (features,)}
        fan_in = features
    keys = iter(jax.random.split(key, 2 * len(params)))

    def fill(shape):
        scale = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.0
        return scale * jax.random.normal(next(keys), shape)

    return jax.tree.map(fill, params, is_leaf=lambda node: isinstance(node, tuple))


def logits(params, images):
    """Convolutions with stride 2, then dense layers, a ReLU between each."""
    x = images
    for name in sorted(params):
        layer = params[name]
        if name.startswith("conv"):
            x = jax.lax.conv_general_dilated(
                x, layer["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        else:
            x = x.reshape(len(x), -1) @ layer["kernel"]
        x = x + layer["bias"]
        if name != max(params):
            x = jax.nn.relu(x)
    return x


def train(problem, optimizer, seed, start):
    """(accuracy, share of zero weights, changed groups in the last tenth, lambda by step) of one run."""
    images, test_images, labels, test_labels = map(jnp.asarray, problem.data())
    key = jax.random.key(seed)
    params = initial(problem, key, images.shape[1:])
    state = optimizer.init(params)
    if start is not None:
        strength = optax.tree.get(state, "strength")
        state = optax.tree.set(state, strength=strength._replace(next=start))

    def loss(params, batch):
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, images[batch]), labels[batch]).mean()

    def step(carry, key):
        params, state, support = carry
        batch = jax.random.randint(key, (BATCH,), 0, len(images))
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        params = optax.apply_updates(params, updates)
        now = metrics.support(REGULARIZER, params)
        strength = jnp.zeros([]) if start is None else optax.tree.get(state, "strength").current
        return (params, state, now), (metrics.changed_groups(support, now), strength)

    carry = params, state, metrics.support(REGULARIZER, params)
    (params, _, _), (changes, strengths) = jax.lax.scan(
        step, carry, jax.random.split(jax.random.fold_in(key, 1), problem.num_steps)
    )
    accuracy = jnp.mean(jnp.argmax(logits(params, test_images), -1) == test_labels)
    share = metrics.weighted_group_sparsity(REGULARIZER, params)
    return accuracy, share, jnp.sum(changes[-problem.num_steps // 10 :]), strengths


def row(name, problem, share, seeds):
    """The results of all seeds and starts with a target, or without a regularizer if the share is None."""
    settings = ramda_jax.stages(problem.learning_rate, total_steps=problem.num_steps)
    if share is None:
        optimizer = ramda_jax.ramda(**settings)
        accuracy, *_ = jax.jit(jax.vmap(lambda seed: train(problem, optimizer, seed, None)))(jnp.arange(seeds))
        return {"problem": name, "target": None, "accuracy": float(jnp.mean(accuracy))}
    target = ramda_jax.Target(share)
    optimizer = ramda_jax.ramda(regularizer=REGULARIZER, strength=target, **settings)
    pairs = [(seed, start) for seed in range(seeds) for start in STARTS]
    run = jax.jit(jax.vmap(lambda seed, start: train(problem, optimizer, seed, start)))
    numbers, starts = (jnp.asarray(column) for column in zip(*pairs, strict=True))
    accuracy, shares, changes, strengths = map(np.asarray, run(numbers, starts))
    held = target.within(settings["restarts"]).held_from()
    return {
        "problem": name,
        "target": share,
        "runs": len(pairs),
        "lowest share": float(shares.min()),
        "highest share": float(shares.max()),
        "within 1 point": int(np.sum(np.abs(shares - share) <= 0.01)),
        "moved after hold": int(np.sum(strengths[:, held:] != strengths[:, held, None])),
        "changed groups": int(changes.max()),
        "lowest lambda": float(strengths[:, -1].min()),
        "highest lambda": float(strengths[:, -1].max()),
        "accuracy": float(accuracy.mean()),
        "accuracy std": float(accuracy.std()),
    }


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mnist", metavar="DIR", help="folder of MNIST's four published files")
    parser.add_argument("--fashion", metavar="DIR", help="folder of Fashion-MNIST's")
    parser.add_argument("--problems", nargs="+", help="names of problems (default: all)")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="tiny runs that only show that it works")
    parser.add_argument("--json", metavar="FILE", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name, problem in problems(arguments.mnist, arguments.fashion).items():
        if arguments.problems and name not in arguments.problems:
            continue
        if arguments.small:
            problem = problem._replace(num_steps=80)
        for share in (None, *arguments.shares):
            rows.append(row(name, problem, share, arguments.seeds))
            print(rows[-1], flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(tabulate(rows, headers="keys", floatfmt=".4g"))


if __name__ == "__main__":
    main()
