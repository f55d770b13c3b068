"""Small problems of several architectures, as functions of their parameters: what whole sweeps can be run on."""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from benchmarks.alternatives.decoder import HEAD_SIZE, decoder_shapes, next_logits
from benchmarks.alternatives.problems import Problem, convolved, net_logits, net_shapes
from examples.data.idx import read_idx

#: Of the text: characters of a segment, and how many are told apart.
LENGTH, VOCABULARY = 32, 64
#: Of the residual net: layers and features. Of the recurrent net: rows of pixels that are one step, and features.
BLOCKS, WIDTH = 3, 48
ROWS, STATES = 4, 48


def problem_of(shapes, apply, train, test, batch, counts=None, batch_size=64, traced=None):
    """A `Problem` with only a training and a test part."""
    counts = {"train": len(train[1]), "test": len(test[1])} if counts is None else counts
    traced = apply if traced is None else traced
    return Problem(shapes, apply, traced, batch, {"train": train, "test": test}, counts, batch_size, 1)


def _of_images(data, indices):
    images, labels = data
    return images[indices], labels[indices]


@functools.cache
def digits():
    """((images, labels) to train on, the same to test on) of scikit-learn's digits; a quarter is held out."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16
    images, test_images, labels, test_labels = train_test_split(
        images, labels.astype(np.int32), test_size=0.25, stratify=labels, random_state=0
    )
    return _arrays(images, labels), _arrays(test_images, test_labels)


@functools.cache
def idx_files(folder, trained_on=20_000, tested_on=2_000):
    """The same of the first images of the published files of MNIST or Fashion-MNIST."""
    parts = []
    for part, count in (("train", trained_on), ("t10k", tested_on)):
        images, labels = (
            read_idx(Path(folder) / f"{part}-{kind}-ubyte.gz")[:count] for kind in ("images-idx3", "labels-idx1")
        )
        parts.append(_arrays(images[..., None].astype(np.float32) / 255, labels.astype(np.int32)))
    return tuple(parts)


def _arrays(*arrays):
    return tuple(map(jnp.asarray, arrays))


def plain(data, channels, widths, batch_size=64):
    """Convolutions of 3 x 3 with stride 2, then dense layers, a ReLU between them; one layer is logistic regression."""
    train, test = data()
    side = train[0].shape[1]
    traced = functools.partial(net_logits, convolve=convolved)
    return problem_of(
        net_shapes(side, channels, widths), net_logits, train, test, _of_images, batch_size=batch_size, traced=traced
    )


def _normed(x, layer):
    """LayerNorm."""
    x = x - jnp.mean(x, -1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * layer["gain"] + layer["bias"]


def residual_logits(params, images):
    """Blocks `x + W_2 relu(W_1 LayerNorm(x))` between two dense layers."""
    x = images.reshape(len(images), -1) @ params["in"]["kernel"] + params["in"]["bias"]
    for name in sorted(name for name in params if name.startswith("block")):
        block = params[name]
        y = jax.nn.relu(_normed(x, block["norm"]) @ block["up"]["kernel"] + block["up"]["bias"])
        x = x + y @ block["down"]["kernel"] + block["down"]["bias"]
    return _normed(x, params["norm"]) @ params["out"]["kernel"] + params["out"]["bias"]


def residual(data):
    """A residual net with LayerNorm."""
    train, test = data()
    norm = {"gain": (WIDTH,), "bias": (WIDTH,)}

    def dense(inputs, outputs):
        return {"kernel": (inputs, outputs), "bias": (outputs,)}

    block = {"norm": norm, "up": dense(WIDTH, 2 * WIDTH), "down": dense(2 * WIDTH, WIDTH)}
    shapes = {"in": dense(train[0][0].size, WIDTH), "norm": norm, "out": dense(WIDTH, 10)}
    shapes |= {f"block{number}": block for number in range(BLOCKS)}
    return problem_of(shapes, residual_logits, train, test, _of_images)


def recurrent_logits(params, images):
    """A gated recurrent unit that reads the image from above, `ROWS` rows at a time."""
    rows = images.reshape(len(images), images.shape[1] // ROWS, -1)
    gates, new, out = (params[name] for name in ("gates", "new", "out"))

    def step(state, x):
        both = jnp.concatenate([x, state], -1)
        reset, update = jnp.split(jax.nn.sigmoid(both @ gates["kernel"] + gates["bias"]), 2, -1)
        both = jnp.concatenate([x, reset * state], -1)
        state = update * state + (1 - update) * jnp.tanh(both @ new["kernel"] + new["bias"])
        return state, None

    state, _ = jax.lax.scan(step, jnp.zeros((len(images), STATES)), jnp.swapaxes(rows, 0, 1))
    return state @ out["kernel"] + out["bias"]


def recurrent(data):
    """A recurrent net."""
    train, test = data()
    inputs = ROWS * train[0].shape[2] + STATES
    shapes = {
        "gates": {"kernel": (inputs, 2 * STATES), "bias": (2 * STATES,)},
        "new": {"kernel": (inputs, STATES), "bias": (STATES,)},
        "out": {"kernel": (STATES, 10), "bias": (10,)},
    }
    return problem_of(shapes, recurrent_logits, train, test, _of_images)


def text_decoder(folder):
    """Two layers of a decoder with attention and RMSNorm on the characters of WikiText-2."""
    train, test = ((Path(folder) / f"wiki.{part}.tokens").read_text(encoding="utf-8") for part in ("train", "test"))
    train, test = train[:1_000_000], test[: 500 * LENGTH + 1]
    found, counts = np.unique(list(train), return_counts=True)
    known = {character: number for number, character in enumerate(found[np.argsort(-counts)][: VOCABULARY - 1])}

    def numbers(part):
        return jnp.asarray([known.get(character, VOCABULARY - 1) for character in part], jnp.int32)

    def batch(tokens, indices):
        windows = tokens[indices[:, None] * LENGTH + jnp.arange(LENGTH + 1)]
        return windows[:, :-1], windows[:, 1:]

    train, test = numbers(train), numbers(test)
    counts = {"train": (len(train) - 1) // LENGTH, "test": (len(test) - 1) // LENGTH}
    shapes = decoder_shapes(VOCABULARY, 32, layers=2, heads=4, hidden=128, size=HEAD_SIZE)
    return problem_of(shapes, next_logits, train, test, batch, counts, batch_size=8)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the folders that `problems` takes."""
    parser.add_argument("--mnist", metavar="DIR", help="folder of MNIST's four published files")
    parser.add_argument("--fashion", metavar="DIR", help="folder of Fashion-MNIST's")
    parser.add_argument("--text", metavar="DIR", help="folder of WikiText-2's")


def problems(mnist=None, fashion=None, text=None) -> dict[str, Callable[[], Any]]:
    """Functions that make the problems whose data are there."""
    found: dict[str, Callable[[], Any]] = {
        "digits_logistic": functools.partial(plain, digits, (), (10,)),
        "digits_conv": functools.partial(plain, digits, (16, 32), (64, 10)),
    }
    if mnist is not None:
        data = functools.partial(idx_files, mnist)
        found["mnist_logistic"] = functools.partial(plain, data, (), (10,))
        found["mnist_conv"] = functools.partial(plain, data, (8, 16), (32, 10), 32)
    if fashion is not None:
        data = functools.partial(idx_files, fashion)
        found["fashion_mlp"] = functools.partial(plain, data, (), (64, 32, 10))
        found["fashion_residual"] = functools.partial(residual, data)
        found["fashion_recurrent"] = functools.partial(recurrent, data)
    if text is not None:
        found["text_decoder"] = functools.partial(text_decoder, text)
    return found
