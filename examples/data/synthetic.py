"""Data with a known truth: labels from a model most of whose groups are zero."""

from typing import NamedTuple

import numpy as np

from examples.data.arrays import Split


class Truth(NamedTuple):
    """Generated data.

    Attributes:
        train, valid: `Split`s.
        params: the parameters that gave the labels, by path; their zeros are the truth to be found.
    """

    train: Split
    valid: Split
    params: dict


def rows(rng, count, columns):
    """Directions at random, all of the length that normal entries have on average: no group is nearly zero."""
    directions = rng.normal(size=(count, columns))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) * np.sqrt(columns)


def logistic(seed, samples=10_000, features=200, alive=40, classes=4):
    """A multinomial logistic regression of whose features only `alive` matter; normal inputs, no label noise."""
    rng = np.random.default_rng((seed, 101))
    kernel = np.zeros((features, classes), np.float32)
    kernel[rng.permutation(features)[:alive]] = rows(rng, alive, classes)
    inputs = rng.normal(size=(samples + samples // 5, features)).astype(np.float32)
    labels = np.argmax(inputs @ kernel, axis=1).astype(np.int32)
    return Truth(
        Split(inputs[:samples], labels[:samples]),
        Split(inputs[samples:], labels[samples:]),
        {"dense/kernel": kernel},
    )


def conv_net(seed, samples=30_000, side=6, channels=16, alive_channels=4, filters=8, alive_inputs=16, classes=4):
    """A convolution that reads `alive_channels` channels and a dense layer that reads `alive_inputs` of its outputs."""
    rng = np.random.default_rng((seed, 102))
    kernel = np.zeros((3, 3, channels, filters), np.float32)
    # Filters of length 1, so that no output is much smaller than another.
    windows = rows(rng, filters, 9 * alive_channels) * (9 * alive_channels) ** -0.5
    kernel[:, :, rng.permutation(channels)[:alive_channels]] = windows.T.reshape(3, 3, alive_channels, filters)
    inner = (side - 2) ** 2 * filters
    dense = np.zeros((inner, classes), np.float32)
    dense[rng.permutation(inner)[:alive_inputs]] = rows(rng, alive_inputs, classes)
    inputs = rng.normal(size=(samples + samples // 5, side, side, channels)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(inputs, (3, 3), axis=(1, 2))
    hidden = np.maximum(np.einsum("nabchw,hwcf->nabf", windows, kernel, optimize=True), 0)
    hidden = hidden.reshape(len(inputs), -1)
    # Centred, so that every class occurs.
    scores = (hidden - hidden.mean(axis=0)) @ dense
    labels = np.argmax(scores, axis=1).astype(np.int32)
    return Truth(
        Split(inputs[:samples], labels[:samples]),
        Split(inputs[samples:], labels[samples:]),
        {"conv/kernel": kernel, "dense/kernel": dense},
    )
