"""The problems: a net as a function of parameters of any width, and data for training, tuning and testing."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from benchmarks.alternatives.decoder import HEAD_SIZE, decoder_shapes, next_logits
from examples.data.idx import read_idx


class Problem(NamedTuple):
    """A net and its data.

    Attributes:
        shapes: a tree of the shapes of the whole net's parameters.
        apply: a function from parameters of any width and inputs to logits.
        traced: the same function in the form that is traced and whose FLOPs are counted.
        batch: a function from a part's arrays and int32 indices `[n]` to (inputs, labels).
        data: a dict from "train", "val" and "test" to arrays.
        counts: the number of indices of each part.
        batch_size, epochs: of a training run.
        bits: whether the score is minus the bits per label; else it is the accuracy in percent.
        ratio: RAMDA's learning rate, as a multiple of Adam's.
        divisions: the number of seeds for tuning.
    """

    shapes: Any
    apply: Callable[[Any, jax.Array], jax.Array]
    traced: Callable[[Any, jax.Array], jax.Array]
    batch: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    data: dict[str, Any]
    counts: dict[str, int]
    batch_size: int
    epochs: int
    bits: bool = False
    ratio: float = 10.0
    divisions: int = 12

    @property
    def epoch_steps(self):
        """The number of steps of an epoch."""
        return self.counts["train"] // self.batch_size

    @property
    def num_steps(self):
        """The number of steps of a training run."""
        return self.epochs * self.epoch_steps

    def order(self, seed):
        """The indices of all batches of a training run, `[num_steps, batch_size]`. Each epoch is a permutation."""
        shuffle, steps = np.random.default_rng(seed), self.epoch_steps
        epochs = [shuffle.permutation(self.counts["train"])[: steps * self.batch_size] for _ in range(self.epochs)]
        return jnp.asarray(np.concatenate(epochs).reshape(self.num_steps, self.batch_size), jnp.int32)

    def divided(self, seed):
        """The problem with another division of the images into training and tuning; for a text the problem itself."""
        if not isinstance(self.data["train"], tuple):
            return self
        images, labels = (np.concatenate([self.data[part][n] for part in ("train", "val")]) for n in (0, 1))
        order, count = np.random.default_rng(10_000 + seed).permutation(len(labels)), self.counts["train"]
        parts = {"train": order[:count], "val": order[count:]}
        return self._replace(data={name: (jnp.asarray(images[i]), jnp.asarray(labels[i])) for name, i in parts.items()})

    def initial(self, key, shapes=None):
        """He's initial weights of the whole net, or of a net with these shapes."""
        named, tree = jax.tree_util.tree_flatten_with_path(
            self.shapes if shapes is None else shapes, is_leaf=lambda node: isinstance(node, (tuple, list))
        )
        keys = jax.random.split(key, len(named))
        return tree.unflatten(_fill(one, path[-1].key, shape) for one, (path, shape) in zip(keys, named, strict=True))

    def loss(self, params, inputs, labels):
        """The mean cross entropy."""
        return optax.softmax_cross_entropy_with_integer_labels(self.apply(params, inputs), labels).mean()

    def score(self, params, part):
        """The accuracy on a part of the data in percent, or minus the bits per label. Higher is better."""
        return float(_score(self.apply, self.batch, self.bits, self.counts[part], params, self.data[part]))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _score(apply, batch, bits, count, params, data):
    pieces = next(pieces for pieces in range(1 + count // 1000, 0, -1) if count % pieces == 0)

    def of_piece(indices):
        inputs, labels = batch(data, indices)
        logits = apply(params, inputs)
        if bits:
            return -optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean() / jnp.log(2)
        return 100 * jnp.mean(jnp.argmax(logits, -1) == labels)

    return jnp.mean(jax.lax.map(of_piece, jnp.arange(count).reshape(pieces, -1)))


def _fill(key, name, shape):
    """Initial values: biases are 0, gains 1. Queries, keys and values have one axis of inputs, `out` has two."""
    if len(shape) == 1:
        return jnp.full(tuple(shape), float(name == "gain"))
    inputs = {"query": shape[:1], "key": shape[:1], "value": shape[:1], "table": (1,)}.get(name, shape[:-1])
    scale = {"table": 0.1, "out": 0.5}.get(name, 1.0)
    return scale * np.sqrt(2 / np.prod(inputs)) * jax.random.normal(key, tuple(shape))


def net_shapes(side, channels, widths):
    """The shapes of 3 x 3 convolutions with stride 2, then dense layers, for square images with one channel."""
    shapes, inputs = {}, 1
    for number, outputs in enumerate(channels):
        shapes[f"conv{number}"] = {"kernel": (3, 3, inputs, outputs), "bias": (outputs,)}
        side, inputs = side // 2, outputs
    inputs *= side * side
    for number, outputs in enumerate(widths):
        shapes[f"dense{number}"] = {"kernel": (inputs, outputs), "bias": (outputs,)}
        inputs = outputs
    return shapes


def patches_times(x, kernel):
    """A 3 x 3 convolution with stride 2 as a matrix product, which is fast in a loop on CPUs."""
    half = x.shape[1] // 2
    # Pad as "SAME" does for a stride of 2.
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    parts = [x[:, i : i + 2 * half : 2, j : j + 2 * half : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate(parts, -1) @ kernel.reshape(-1, kernel.shape[-1])


def convolved(x, kernel):
    """The same with JAX's convolution."""
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def net_logits(params, images, convolve=patches_times):
    """The logits of a net with `net_shapes`, with a ReLU between the layers."""
    x = images
    for name in sorted(params):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        if name.startswith("conv"):
            x = convolve(x, kernel) + bias
        else:
            x = x.reshape(len(x), -1) @ kernel + bias
        if name != max(params):
            x = jax.nn.relu(x)
    return x


def _of_images(data, indices):
    images, labels = data
    return images[indices], labels[indices]


def _images(side, channels, widths, parts, batch_size, epochs):
    data = {name: (jnp.asarray(images), jnp.asarray(labels)) for name, (images, labels) in parts.items()}
    counts = {name: len(labels) for name, (_, labels) in parts.items()}
    traced = functools.partial(net_logits, convolve=convolved)
    return Problem(net_shapes(side, channels, widths), net_logits, traced, _of_images, data, counts, batch_size, epochs)


def digits(small=False):
    """scikit-learn's digits: 1,000 images for training, 347 for tuning and 450 for testing; 51,498 parameters."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16
    labels = labels.astype(np.int32)
    images, test_images, labels, test_labels = train_test_split(
        images, labels, test_size=450, stratify=labels, random_state=0
    )
    parts = {
        "train": (images[:1000], labels[:1000]),
        "val": (images[1000:], labels[1000:]),
        "test": (test_images, test_labels),
    }
    if small:
        return _images(8, (4, 6), (8, 10), parts, 100, 3)
    return _images(8, (32, 64), (128, 10), parts, 50, 30)


def fashion(folder, small=False):
    """Fashion-MNIST: the first 10,000 images for training, 5,000 others for tuning, and all 10,000 for testing."""

    def read(part):
        images, labels = (read_idx(Path(folder) / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        return images[..., None].astype(np.float32) / 255, labels.astype(np.int32)

    images, labels = read("train")
    count = 256 if small else 10_000
    parts = {
        "train": (images[:count], labels[:count]),
        "val": (images[50_000:55_000], labels[50_000:55_000]),
        "test": read("t10k"),
    }
    return _images(28, (24, 48), (128, 10), parts, 128, 4 if small else 15)._replace(divisions=3)


#: Of the text: the characters of a segment, the number of different characters, the segments of a batch, and the
#: batches of the epoch.
LENGTH, VOCABULARY, SEGMENTS, STEPS = 64, 96, 16, 600


def text(folder, small=False):
    """WikiText-2 by characters: segments of 64; 614,400 for training, 100,000 each for tuning and testing."""
    train, valid, test = (
        (Path(folder) / f"wiki.{part}.tokens").read_text(encoding="utf-8") for part in ("train", "valid", "test")
    )
    train, valid, test = train[: STEPS * SEGMENTS * LENGTH + 1], valid[:100_001], test[:100_001]
    found, counts = np.unique(list(train), return_counts=True)
    known = {character: number for number, character in enumerate(found[np.argsort(-counts)][: VOCABULARY - 1])}
    parts = {
        name: np.array([known.get(character, VOCABULARY - 1) for character in part], np.int32)
        for name, part in (("train", train), ("val", valid), ("test", test))
    }
    counts = {name: (len(tokens) - 1) // LENGTH for name, tokens in parts.items()}
    if small:
        counts["train"] = 64

    def batch(tokens, indices):
        windows = tokens[indices[:, None] * LENGTH + jnp.arange(LENGTH + 1)]
        return windows[:, :-1], windows[:, 1:]

    data = {name: jnp.asarray(tokens) for name, tokens in parts.items()}
    shapes = decoder_shapes(VOCABULARY, 32, layers=2, heads=8, hidden=512, size=HEAD_SIZE)
    return Problem(shapes, next_logits, next_logits, batch, data, counts, SEGMENTS, 4 if small else 1, True, 30.0)
