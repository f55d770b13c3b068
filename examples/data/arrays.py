"""Data that fit in memory: arrays on the device, batches of them by index."""

from typing import NamedTuple

import numpy as np

from examples.data.errors import check_enough


class Split(NamedTuple):
    """One part of a data set, in memory.

    Attributes:
        images: the inputs, `[n, ...]`; bytes stay bytes until a batch is prepared.
        labels: int32 `[n]`, or None.
    """

    images: np.ndarray
    labels: np.ndarray | None


class ArrayData:
    """Training and validation splits on the device; batches are rows of indices, gathered inside the jitted step.

    Attributes:
        resident: the training split, to be passed to the step with the indices.
        steps_per_epoch: batches in an epoch, the last of them shorter unless `drop_last`.
        truth: for generated data, the parameters that gave the labels, by path.
    """

    in_memory = True
    truth: dict | None = None

    def __init__(self, train, valid, batch_size, drop_last=False):
        check_enough(len(train.images), batch_size, "training examples")
        self.resident, self.valid = train, valid
        self.count, self.batch_size = len(train.images), batch_size
        self.steps_per_epoch = self.count // batch_size if drop_last else -(-self.count // batch_size)

    def order(self, seed, epoch):
        """All training indices in the order of an epoch."""
        return np.random.default_rng((seed, epoch)).permutation(self.count).astype(np.int32)

    def batches(self, seed, epoch, start=0):
        """The batches of an epoch from the start-th on."""
        order = self.order(seed, epoch)
        for step in range(start, self.steps_per_epoch):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]

    def valid_batches(self, batch_size=1000):
        """The validation split in order, `Split`s of up to `batch_size`."""
        for first in range(0, len(self.valid.images), batch_size):
            rows = slice(first, first + batch_size)
            yield Split(self.valid.images[rows], None if self.valid.labels is None else self.valid.labels[rows])

    def fetch(self, resident, indices):
        """The batch of some indices; part of the jitted step."""
        return Split(resident.images[indices], None if resident.labels is None else resident.labels[indices])
