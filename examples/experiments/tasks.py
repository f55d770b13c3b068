"""Tasks: what is trained on what, with which loss, and how it is judged."""

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
    """What a validation batch adds: the mean over all batches is `total / number`."""

    total: jax.Array
    number: jax.Array


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """A model on data.

    `metric` names what the paper reports; `higher_is_better` says which way it is read. `carry` is what one batch hands
    to the next (a memory), an empty tuple for most.
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
        """(what a validation batch adds to the metric, the next carry)."""

    def start_carry(self, model, batch_size) -> Any:
        """What an epoch starts with."""
        return ()

    def final(self, mean):
        """The metric, from the mean of the scores."""
        return mean


def dense_prepare(mean, std):
    """Normalisation alone."""

    def prepare(images, key, train):
        return augment.normalise(images, mean, std)

    return prepare


def crop_and_flip(mean, std, mode="constant"):
    """A random crop of images padded by 4 and a flip, in training."""

    def prepare(images, key, train):
        if train:
            crop_key, flip_key = jax.random.split(key)
            images = augment.random_flip(flip_key, augment.random_crop(crop_key, images, mode=mode))
        return augment.normalise(images, mean, std)

    return prepare


def as_they_are(images, key, train):
    """Numbers that need nothing."""
    return images


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """Cross entropy of labels; the metric is the accuracy on the test split, which serves as validation split.

    Attributes:
        model: a function of `rngs` and `dtype`.
        read: from a folder to (training, test) `Split`.
        prepare: from (images, key, train) to what the model sees.
        smoothing: label smoothing s: (1 - s) times the loss plus s times its mean over all classes.
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
    """Classification of a folder of images, too many for the memory."""

    read: Callable = folder.FolderData
    side: int = 224

    def load(self, data_dir, batch_size, seed):
        return self.read(data_dir, batch_size, self.side)

    def make_model(self, data, rngs, dtype):
        return self.model(classes=data.classes, rngs=rngs, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class MaskedImages(Task):
    """Filling in masked patches of CIFAR-10; the metric is the validation loss.

        sum over masked pixels of |x - x_hat| / (3 (number of masked pixels + 1e-5))

    Of the training images 85 % train and 15 % validate, with the same augmentation and random masks, as the paper's
    code does; the test images are not used. (Here the validation's masks are the same in every epoch.)
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
