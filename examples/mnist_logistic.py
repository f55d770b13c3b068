"""Logistic regression on MNIST with the settings of the NeurIPS paper: a row of its Table 7.

    python -m examples.mnist_logistic --data-dir data/mnist --method ramda

A group is the ten weights of one input pixel: a group that is zero is a pixel that the classifier does not look at.
Another method is another line in `METHODS`.

The paper: Huang and Lee, `Regularized Adaptive Momentum Dual Averaging with an Efficient Inexact Subproblem Solver for
Training Structured Neural Network`, NeurIPS 2024, arXiv:2403.14398.
"""

import argparse
import dataclasses
import gzip
import json
import math
import struct
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pooch
from tqdm import tqdm

import ramda_jax
from ramda_jax import metrics

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels, scaled to [0, 1]
BATCH = 128
STAGES, FACTOR = 5, 0.1
REGULARIZER, STRENGTH = ramda_jax.GroupLasso("input"), 1e-3


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimizer and the paper's settings of it. Those that average their iterates also restart at stages."""

    optimizer: Callable
    learning_rate: float
    averaging: float | None = None
    eps: float | None = None

    def build(self, ends):
        """The optimizer, its learning rate multiplied by 0.1 after each of the steps in `ends`."""
        if self.averaging is None:
            scales = dict.fromkeys(ends, FACTOR)
            settings = {"learning_rate": optax.piecewise_constant_schedule(self.learning_rate, scales)}
        else:
            settings = ramda_jax.stages(self.learning_rate, self.averaging, ends, FACTOR, self.eps)
        return self.optimizer(regularizer=REGULARIZER, strength=STRENGTH, **settings)


METHODS = {
    "rmda": Method(ramda_jax.rmda, learning_rate=1e-1, averaging=0.1),
    "ramda": Method(ramda_jax.ramda, learning_rate=1e-2, averaging=0.01, eps=1e-6),
    "prox_sgd": Method(ramda_jax.prox_sgd, learning_rate=1e-1),
    "prox_adamw": Method(ramda_jax.prox_adamw, learning_rate=1e-3),
    "prox_ssi": Method(ramda_jax.prox_ssi, learning_rate=1e-3),
}


class DataError(Exception):
    """The data are missing or not what they should be; the message says which file and what to do."""


def read_idx(path):
    """The array in a gzipped IDX file of unsigned bytes."""
    try:
        content = gzip.decompress(path.read_bytes())
        dims = content[3]
        shape = struct.unpack_from(f">{dims}I", content, 4)
    except (OSError, EOFError, zlib.error, IndexError, struct.error) as error:
        raise DataError(f"{path} is not a complete gzipped IDX file ({error}); delete it and run again.") from error
    entries = content[4 + 4 * dims :]
    if content[:3] != b"\0\0\x08" or len(entries) != math.prod(shape):
        raise DataError(
            f"{path} is no IDX file of {' x '.join(map(str, shape))} bytes (it has {len(entries)}); "
            "delete it and run again."
        )
    return np.frombuffer(entries, np.uint8).reshape(shape)


def load_mnist(data_dir):
    """(images, labels) of the training and of the test set; what `data_dir` lacks is downloaded into it."""
    missing = [name for name in FILES if not (data_dir / name).exists()]
    files = pooch.create(path=data_dir, base_url=MIRROR, registry=FILES)
    try:
        for name in missing:
            files.fetch(name)
    except (OSError, ValueError) as error:  # no network, no room to write; pooch's ValueError is a wrong checksum
        reason = error if isinstance(error, ValueError) else type(error).__name__
        names = "".join(f"\n  {name}" for name in missing)
        raise DataError(
            f"Cannot download MNIST from {MIRROR} ({reason}).\n"
            f"Put these files into {data_dir.resolve()} yourself, gzipped as they are published:{names}"
        ) from error

    def load(prefix):
        images_path, labels_path = (data_dir / name for name in FILES if name.startswith(prefix))
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.ndim != 3 or images.shape[1:] != (28, 28):
            raise DataError(f"{images_path} must hold images of 28 x 28 pixels, not an array of shape {images.shape}.")
        if labels.shape != images.shape[:1] or (labels > 9).any():
            raise DataError(f"{labels_path} must hold {len(images)} labels from 0 to 9, one for each image.")
        return jnp.asarray(images.reshape(-1, 784)), jnp.asarray(labels.astype(np.int32))

    return load("train"), load("t10k")


def loss_fn(params, images, labels, is_example):
    """The mean cross-entropy over the rows that are examples and not padding."""
    losses = optax.softmax_cross_entropy_with_integer_labels(predict(params, images), labels)
    return jnp.sum(losses * is_example) / jnp.sum(is_example)


def predict(params, images):
    """Logits of images of bytes. The bytes are normalised here, so that only they need to be gathered."""
    return ((images / 255 - MEAN) / STD) @ params["kernel"] + params["bias"]


def batches_of(order):
    """Cuts an order of examples into batches, the last one padded: indices and which of them are examples."""
    steps = -(-len(order) // BATCH)
    padded = jnp.pad(order, (0, steps * BATCH - len(order)))
    is_example = jnp.arange(padded.size) < len(order)
    return padded.reshape(steps, BATCH), is_example.reshape(steps, BATCH).astype(jnp.float32)


@partial(jax.jit, static_argnames="optimizer", donate_argnames=("params", "state"))
def train_epoch(optimizer, params, state, key, images, labels):
    """One epoch in a new order, as a single scan: no return to Python between the steps."""

    def step(carry, batch):
        params, state, changed = carry
        index, is_example = batch
        grads = jax.grad(loss_fn)(params, images[index], labels[index], is_example)
        updates, state = optimizer.update(grads, state, params)
        new_params = optax.apply_updates(params, updates)
        before, after = metrics.support(REGULARIZER, params), metrics.support(REGULARIZER, new_params)
        return (new_params, state, changed + metrics.changed_groups(before, after)), None

    batches = batches_of(jax.random.permutation(key, len(images)))
    (params, state, changed), _ = jax.lax.scan(step, (params, state, jnp.zeros([], jnp.int32)), batches)
    return params, state, changed


def train(method, train_set, test_set, epochs, seed):
    """Trains for `epochs` in five stages of equal length; returns what the paper's table has, as fractions.

    `last_change_epoch` is strict: the last epoch in which a single step made a group of W zero or nonzero, even if a
    later step took it back. `changed_groups_last_epochs` counts these changes for each of the last ten epochs.
    """
    images, labels = train_set
    steps_per_epoch = -(-len(images) // BATCH)
    ends = tuple(stage * (epochs // STAGES) * steps_per_epoch for stage in range(1, STAGES))
    optimizer = METHODS[method].build(ends if epochs >= STAGES else ())
    params = {"bias": jnp.zeros(10), "kernel": jnp.zeros((784, 10))}
    state = optimizer.init(params)

    start, last_change, changes = time.perf_counter(), 0, []
    with tqdm(range(1, epochs + 1), desc=method, unit="epoch", mininterval=1) as progress:
        for epoch in progress:
            key = jax.random.fold_in(jax.random.key(seed), epoch)
            params, state, changed = train_epoch(optimizer, params, state, key, images, labels)
            changes.append(int(changed))
            if changed:
                last_change = epoch
                progress.set_postfix(last_change=last_change)
    seconds = time.perf_counter() - start

    test_images, test_labels = test_set
    structured = ramda_jax.eval_params(state, params)
    mean_loss = jax.jit(loss_fn)(params, images, labels, jnp.ones(len(images)))
    return {
        "method": method,
        "test_accuracy": float(jnp.mean(jnp.argmax(predict(params, test_images), axis=1) == test_labels)),
        "weighted_group_sparsity": float(metrics.weighted_group_sparsity(REGULARIZER, params)),
        "weighted_group_sparsity_eval": float(metrics.weighted_group_sparsity(REGULARIZER, structured)),
        "objective": float(metrics.objective(REGULARIZER, params, mean_loss, STRENGTH)),
        "seconds": seconds,
        "last_change_epoch": last_change,
        "changed_groups_last_epochs": changes[-10:],
    }


def main(argv=None):
    """Reads the command line, trains and prints the result; exits with 1 where the data cannot be had."""
    parser = argparse.ArgumentParser(description="Logistic regression on MNIST with the settings of the NeurIPS paper.")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the four IDX .gz files")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--epochs", type=int, default=500, help="in five stages of equal length (default: 500)")
    parser.add_argument("--seed", type=int, default=1, help="of the shuffling (default: 1)")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args(argv)
    if args.epochs < 1:
        parser.error("--epochs must be at least 1")
    try:
        train_set, test_set = load_mnist(args.data_dir)
    except DataError as error:
        raise SystemExit(str(error)) from None
    result = train(args.method, train_set, test_set, args.epochs, args.seed)
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
