"""Tasks: a model, its data, its loss and its metric."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from examples import models
from examples.data import augment, cifar, folder, idx, synthetic
from examples.data.arrays import ArrayData, Split


class Score(NamedTuple):
    """The contribution of a validation batch. The mean over all batches is `total / number`."""

    total: jax.Array
    number: jax.Array


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """A model with its data.

    `metric` is the name of the metric that the paper reports, and `higher_is_better` its direction. `carry` is a value
    that a batch passes to the next (a memory), an empty tuple for most tasks.
    """

    metric = "accuracy"
    higher_is_better = True

    @abc.abstractmethod
    def load(self, data_dir, batch_size, seed) -> Any:
        """The data, with `batches`, `valid_batches`, `fetch`, `resident`, `steps_per_epoch`."""

    @abc.abstractmethod
    def make_model(self, data, rngs, dtype) -> nnx.Module:
        """The model, initialised."""

    @abc.abstractmethod
    def loss(self, model, batch, carry, key, *, train=True) -> tuple[jax.Array, Any]:
        """(the mean loss of a batch, the next carry)."""

    @abc.abstractmethod
    def score(self, model, batch, carry, key) -> tuple[Score, Any]:
        """(the contribution of a validation batch, the next carry)."""

    def start_carry(self, model, batch_size) -> Any:
        """The carry at the start of an epoch."""
        return ()

    def final(self, mean):
        """The metric, from the mean of the scores."""
        return mean


def dense_prepare(mean, std):
    """Only normalises images."""

    def prepare(images, key, train):
        return augment.normalise(images, mean, std)

    return prepare


def crop_and_flip(mean, std, mode="constant"):
    """Normalises images; in training takes a random crop after padding by 4, and a random flip."""

    def prepare(images, key, train):
        if train:
            crop_key, flip_key = jax.random.split(key)
            images = augment.random_flip(flip_key, augment.random_crop(crop_key, images, mode=mode))
        return augment.normalise(images, mean, std)

    return prepare


def as_they_are(images, key, train):
    """Returns inputs that need no preparation."""
    return images


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """Cross entropy of labels. The metric is the accuracy on the test split, which also is the validation split.

    Attributes:
        model: a function of `rngs` and `dtype`.
        read: a function from a folder to (training, test) `Split`.
        prepare: a function from (images, key, train) to the model's inputs.
        smoothing: the label smoothing s: the loss is (1 - s) times the loss of the label, plus s times the mean over
            all classes.
    """

    model: Callable[..., nnx.Module]
    read: Callable
    prepare: Callable = as_they_are
    smoothing: float = 0.0

    def load(self, data_dir, batch_size, seed):
        train, valid = self.read(data_dir)
        return ArrayData(train, valid, batch_size)

    def make_model(self, data, rngs, dtype):
        return self.model(rngs=rngs, dtype=dtype)

    def loss(self, model, batch, carry, key, *, train=True):
        augment_key, dropout_key = jax.random.split(key)
        images = self.prepare(batch.images, augment_key, train)
        logits = model(images, rngs=nnx.Rngs(dropout=dropout_key)).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        if self.smoothing:
            losses = (1 - self.smoothing) * losses - self.smoothing * jnp.mean(jax.nn.log_softmax(logits), axis=-1)
        return jnp.mean(losses), carry

    def score(self, model, batch, carry, key):
        logits = model(self.prepare(batch.images, key, False))
        right = jnp.argmax(logits, axis=-1) == batch.labels
        return Score(jnp.sum(right), jnp.asarray(len(batch.labels))), carry


@dataclasses.dataclass(frozen=True)
class Synthetic(Classification):
    """Classification of generated data; `read` makes a `Truth` from a seed.

    `start_near` is the standard deviation of the noise that is added to the truth for the initial weights, in units of
    each leaf's root mean square; None for the model's own initialisation.
    """

    start_near: float | None = None

    def load(self, data_dir, batch_size, seed):
        truth = self.read(seed)
        data = ArrayData(truth.train, truth.valid, batch_size)
        data.truth = truth.params
        return data

    def make_model(self, data, rngs, dtype):
        model = super().make_model(data, rngs, dtype)
        if self.start_near is not None:
            for path, leaf in data.truth.items():
                layer, name = path.split("/")
                noise = jax.random.normal(rngs.params(), leaf.shape) * float(np.sqrt(np.mean(leaf**2)))
                getattr(getattr(model, layer), name)[...] = leaf + self.start_near * noise
        return model


@dataclasses.dataclass(frozen=True)
class FolderClassification(Classification):
    """Classification of a folder of images that do not fit into memory."""

    read: Callable = folder.FolderData
    side: int = 224

    def load(self, data_dir, batch_size, seed):
        return self.read(data_dir, batch_size, self.side)

    def make_model(self, data, rngs, dtype):
        return self.model(classes=data.classes, rngs=rngs, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class MaskedImages(Task):
    """Fills in masked patches of CIFAR-10; the metric is the validation loss.

        sum over masked pixels of |x - x_hat| / (3 (number of masked pixels + 1e-5))

    As in the paper's code, 85 % of the training images are for training and 15 % for validation, with the same
    augmentation and random masks, and the test images are not used. (Here the masks for validation are the same in
    every epoch.)
    """

    model: Callable[..., nnx.Module] = models.ViTMIM
    read: Callable = cifar.load_cifar10
    side: int = 224
    grid: int = 14
    blocks: int = 7
    metric = "validation loss"
    higher_is_better = False

    def load(self, data_dir, batch_size, seed):
        images = self.read(data_dir)[0].images
        order = np.random.default_rng(0).permutation(len(images))
        count = round(0.85 * len(images))
        train, valid = (Split(images[rows], None) for rows in (order[:count], order[count:]))
        return ArrayData(train, valid, batch_size)

    def make_model(self, data, rngs, dtype):
        return self.model(rngs=rngs, dtype=dtype)

    def loss(self, model, batch, carry, key, *, train=True):
        crop_key, flip_key, mask_key = jax.random.split(key, 3)
        images = augment.random_resized_crop(crop_key, batch.images, self.side)
        images = augment.normalise(augment.random_flip(flip_key, images), 0.5, 0.5)
        masked = augment.block_masks(mask_key, len(images), self.grid, self.blocks)
        error = jnp.mean(jnp.abs(images - model(images, masked).astype(jnp.float32)), axis=-1)
        size = self.side // self.grid
        pixels = jnp.repeat(jnp.repeat(masked, size, axis=1), size, axis=2)
        return jnp.sum(error * pixels) / (jnp.sum(pixels) + 1e-5), carry

    def score(self, model, batch, carry, key):
        loss, carry = self.loss(model, batch, carry, key, train=False)
        return Score(loss * len(batch.images), jnp.asarray(len(batch.images))), carry


MNIST_PIXELS = dense_prepare(0.1307, 0.3081)
mnist, fashion = idx.load_mnist, idx.load_fashion_mnist
logistic_data, conv_data = synthetic.logistic, synthetic.conv_net
