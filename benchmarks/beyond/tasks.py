"""Nets on scikit-learn's digits as functions of their parameters, with data to train and to test on."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import ramda_jax
from benchmarks.alternatives.problems import net_logits, net_shapes
from benchmarks.logistic import Problem, solve
from ramda_jax.typing import RegularizerSpec

BATCH = 64


class Task(NamedTuple):
    """A net, its data and its regularizer.

    Attributes:
        shapes: of the parameters, by layer.
        regularizer, strength: the optimizer's.
        num_steps: of a run.
        ridge: the weight of half the kernels' squares in the loss.
        from_zero: whether training starts at zero, and not at He's random weights.
    """

    shapes: dict[str, Any]
    regularizer: RegularizerSpec
    strength: float
    num_steps: int
    ridge: float = 0.0
    from_zero: bool = False

    def initial(self, key):
        """The parameters to begin with."""
        params = {}
        for one, (name, layer) in zip(jax.random.split(key, len(self.shapes)), self.shapes.items(), strict=True):
            kernel = jax.random.normal(one, layer["kernel"]) * np.sqrt(2 / np.prod(layer["kernel"][:-1]))
            params[name] = {"kernel": 0.0 * kernel if self.from_zero else kernel, "bias": jnp.zeros(layer["bias"])}
        return params

    def loss(self, params, images, labels):
        """Mean cross entropy, and the ridge."""
        losses = optax.softmax_cross_entropy_with_integer_labels(net_logits(params, images), labels)
        squares = sum(jnp.sum(layer["kernel"] ** 2) for layer in params.values())
        return losses.mean() + 0.5 * self.ridge * squares

    def objective(self, params):
        """The loss on all images to train on, plus strength times psi."""
        images, _, labels, _ = digits()
        return ramda_jax.metrics.objective(self.regularizer, params, self.loss(params, images, labels), self.strength)

    def accuracy(self, params):
        """On the images to test on, in percent."""
        _, images, _, labels = digits()
        return 100 * jnp.mean(jnp.argmax(net_logits(params, images), -1) == labels)


@functools.cache
def digits() -> tuple[Any, ...]:
    """(1,347 images to train on, 450 to test on, the labels of both)."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16
    return tuple(train_test_split(images, labels.astype(np.int32), test_size=450, stratify=labels, random_state=0))


def logistic(small=False):
    """Logistic regression, a group for each of the 64 pixels; a small ridge makes the minimiser unique."""
    shapes = net_shapes(8, (), (10,))
    return Task(shapes, ramda_jax.GroupLasso("input"), 5e-3, 80 if small else 8_000, ridge=1e-2, from_zero=True)


def conv(small=False, axes: Any = "input"):
    """Two convolutions and two dense layers, by default a group for each input of a layer."""
    shapes = net_shapes(8, (4, 6), (8, 10)) if small else net_shapes(8, (16, 32), (64, 10))
    leaves = r"(conv1|dense.)/kernel" if axes == "input" else r"conv1/kernel"
    regularizer = {leaves: ramda_jax.GroupLasso(axes)}
    return Task(shapes, regularizer, 1e-3, 80 if small else 2_000)


def mlp(small=False, width=1):
    """Three dense layers with `width` times 64 and 32 hidden units, a group for each input of a layer."""
    widths = (8 * width, 6 * width, 10) if small else (64 * width, 32 * width, 10)
    return Task(net_shapes(8, (), widths), ramda_jax.GroupLasso("input"), 1e-3, 80 if small else 2_000)


def hidden(params, images):
    """Activations of the hidden layers of `mlp`."""
    x, found = images.reshape(len(images), -1), []
    for name in sorted(params)[:-1]:
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
        found.append(x)
    return found


@functools.cache
def minimum():
    """(the lowest objective of `logistic`, which groups are alive there)."""
    images, _, labels, _ = digits()
    task = logistic()
    inputs = images.reshape(len(images), -1).astype(np.float64)
    problem = Problem(inputs, np.eye(10)[labels], task.strength * np.sqrt(10), task.ridge)
    kernel, bias = solve(problem, 1000)
    return float(problem.gradient(kernel, bias)[2]), np.any(kernel != 0, axis=1)
