"""Subproblems of real training: small nets on scikit-learn's handwritten digits."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import ramda_jax
from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.solvers import Context

BATCH = 64
REGULARIZER = ramda_jax.GroupLasso(-2)  # by input channel, including the images' single one


class MLP(nnx.Module):
    """Three dense layers, about 85,000 parameters."""

    def __init__(self, rngs, width=256):
        self.dense1 = nnx.Linear(64, width, rngs=rngs)
        self.dense2 = nnx.Linear(width, width, rngs=rngs)
        self.dense3 = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.dense1(images.reshape(len(images), -1)))
        return self.dense3(nnx.relu(self.dense2(x)))


class ConvNet(nnx.Module):
    """Two convolutions and two dense layers, about 75,000 parameters."""

    def __init__(self, rngs, width=32):
        self.conv1 = nnx.Conv(1, width, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(width, 2 * width, (3, 3), strides=2, rngs=rngs)
        self.dense1 = nnx.Linear(4 * 4 * 2 * width, 2 * width, rngs=rngs)
        self.dense2 = nnx.Linear(2 * width, 10, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(images))))
        return self.dense2(nnx.relu(self.dense1(x.reshape(len(x), -1))))


NETS = {"conv": ConvNet, "mlp": MLP}


def ramda(steps, solver=None, regularizer: Any = REGULARIZER):
    """RAMDA in three stages; c_t reaches 1 after 100 steps of the last one."""
    ends = tuple(sorted({steps // 3, 2 * steps // 3} - {0}))
    settings = ramda_jax.stages(learning_rate=5e-2, averaging=0.1, eps=1e-6, ends=ends)
    return ramda_jax.ramda(regularizer=regularizer, strength=1e-4, solver=solver, **settings)


def prox_adamw(steps, solver=None, regularizer: Any = REGULARIZER):
    """ProxAdamW at AdamW's usual learning rate."""
    del steps
    return ramda_jax.prox_adamw(1e-3, regularizer, 1e-3, solver=solver)


METHODS = {"ramda": ramda, "prox_adamw": prox_adamw}


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["model", "start", "step"], meta_fields=["regularizer", "share"]
)
@dataclasses.dataclass(frozen=True)
class Subproblem:
    """The subproblem of one leaf; a pytree, so that functions under `jit` take and return it."""

    model: QuadraticModel
    start: Any
    step: Any
    regularizer: Regularizer
    share: float

    def solve(self, solver):
        """The solver's `Solution`."""
        return solver.solve(self.model, self.regularizer, Context(self.start, self.step, self.share))


@dataclasses.dataclass(frozen=True)
class Recorder(ramda_jax.SecularNewton):
    """A solver that keeps the subproblems of the current trace: of whole leaves, not of tiles within a loop's trace."""

    by_group = False

    subproblems: list = dataclasses.field(default_factory=list, compare=False)

    def solve(self, model, regularizer, context):
        self.subproblems.append(Subproblem(model, context.start, context.step, regularizer, context.share))
        return super().solve(model, regularizer, context)


@dataclasses.dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        params, state: the last parameters and the optimizer's state.
        accuracy: on the held-out quarter.
        iterations: the largest number of iterations of any leaf's solver, one number per step.
        recorded: a dict from 1-based steps to the `Subproblem`s of the regularized leaves.
    """

    params: Any
    state: Any
    accuracy: float
    iterations: np.ndarray
    recorded: dict


class Trainer:
    """Trains fresh nets; the initial net and the batches, which the seed decides, are the same for every method."""

    def __init__(self, net, method, steps, solver=None, width=None):
        pixels, labels = load_digits(return_X_y=True)
        images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1) / 16
        self.images, self.test_images, self.labels, self.test_labels = train_test_split(
            images, labels, test_size=0.25, stratify=labels, random_state=0
        )
        self.make_net = functools.partial(NETS[net], **({"width": width} if width else {}))
        self.graph = nnx.graphdef(self.make_net(nnx.Rngs(0)))
        self.steps, self.solver = steps, solver
        self.optimizer = METHODS[method](steps, solver)
        self.train_step = jax.jit(self._train_step)

    def _train_step(self, params, state, images, labels):
        def loss(params):
            logits = nnx.merge(self.graph, params)(images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        subproblems = self.solver.subproblems if isinstance(self.solver, Recorder) else []
        subproblems.clear()
        updates, state = self.optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state, ramda_jax.solver_info(state).num_steps, list(subproblems)

    def run(self, seed=0, record_at=()):
        """A `Training`; `record_at` are the 1-based steps whose subproblems a `Recorder` keeps."""
        params = nnx.state(self.make_net(nnx.Rngs(seed)), nnx.Param)
        state = self.optimizer.init(params)
        shuffle = np.random.default_rng(seed)
        iterations, recorded, order = [], {}, np.array([], int)
        for step in range(1, self.steps + 1):
            if len(order) < BATCH:
                order = shuffle.permutation(len(self.images))
            batch, order = order[:BATCH], order[BATCH:]
            params, state, num_steps, subproblems = self.train_step(
                params, state, self.images[batch], self.labels[batch]
            )
            iterations.append(num_steps)
            if step in record_at:
                recorded[step] = subproblems
        predicted = jnp.argmax(nnx.merge(self.graph, params)(self.test_images), axis=-1)
        accuracy = float(np.mean(predicted == self.test_labels))
        return Training(params, state, accuracy, np.array(iterations), recorded)
