"""Measures how exact the step on accelerators is, at every step of whole trainings: zeros, residuals and bounds.

    python -m benchmarks.fixed_passes [--nets NAME ...] [--methods NAME ...] [--steps N] [--json FILE] [--small]

Nets on scikit-learn's digits are trained by the solver as accelerators run it, with a fixed number of passes
(`solvers.secular_passes`), and once more by `SecularNewton(strict=True)`. A group-step is one group of a regularised
leaf at one step; the first step is included. The table has

zeros      group-steps whose zero is not that of the exact solution, `||rhs|| <= lambda omega_g` in float64. Those next
           to the threshold, where rounding decides and both answers are right, are counted separately.
4 eps      the share of group-steps whose KKT residual is at most four machine eps times `||rhs||`
worst      the largest residual of a group in units of eps `||rhs||`, and its step
bound      steps at which the residual over all groups, apart from rounding, is above the one that the solver reports
support    at the end: groups that are zero in only one of the two trainings
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tabulate import tabulate

import ramda_jax
from benchmarks import recording
from ramda_jax.solvers import Solution
from ramda_jax.xla.execution import AtOnce


class Logistic(nnx.Module):
    """Logistic regression."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        return self.dense(images.reshape(len(images), -1))


class Transformer(nnx.Module):
    """A layer of attention and a block of two dense layers, over the rows of an image."""

    def __init__(self, rngs, width=32):
        self.embed = nnx.Linear(8, width, rngs=rngs)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (8, width)))
        self.attention = nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)
        self.head = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, images):
        x = self.embed(images[..., 0]) + self.position
        x = x + self.attention(x)
        x = x + self.down(nnx.relu(self.up(x)))
        return self.head(x.mean(axis=1))


NETS = {"conv": recording.ConvNet, "mlp": recording.MLP, "transformer": Transformer, "logistic": Logistic}
PATTERNS = {".*kernel": recording.REGULARIZER}


@dataclasses.dataclass(frozen=True)
class FixedPasses(ramda_jax.SecularNewton):
    """The solver as accelerators run it, on any device; it keeps its results in the current trace."""

    found: list = dataclasses.field(default_factory=list, compare=False)
    # Use neither tiles nor batches, so that each leaf is found once.
    by_group = False
    iterates = False

    def solve(self, model, regularizer, context):
        leaf = model, regularizer, dataclasses.replace(context, run=AtOnce())
        solved = self.solve_at_once([leaf], to_rounding=False)
        self.found.append((regularizer, model, solved.values[0], solved.residual))
        return Solution(solved.values[0], solved.radii[0], solved.num_steps, solved.residual, solved.converged)


def train(net, method, steps, solver, watch):
    """The last structured point of a training; `watch` gets the results of a `FixedPasses` after each step."""
    data = recording.Trainer("mlp", "ramda", 1)
    model = NETS[net](nnx.Rngs(0))
    graph, params = nnx.split(model)
    optimizer = recording.METHODS[method](steps, solver, PATTERNS)
    state, shuffle = optimizer.init(params), np.random.default_rng(0)

    def train_step(params, state, images, labels):
        def loss(params):
            logits = nnx.merge(graph, params)(images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        if isinstance(solver, FixedPasses):
            solver.found.clear()
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        found = solver.found if isinstance(solver, FixedPasses) else []
        regularizers.extend(regularizer for regularizer, *_ in found)
        return optax.apply_updates(params, updates), state, [rest for _, *rest in found]

    regularizers: list[Any] = []
    step_compiled = jax.jit(train_step)
    order = np.array([], int)
    for step in range(1, steps + 1):
        if len(order) < recording.BATCH:
            order = shuffle.permutation(len(data.images))
        batch, order = order[: recording.BATCH], order[recording.BATCH :]
        params, state, found = step_compiled(params, state, data.images[batch], data.labels[batch])
        watch(step, regularizers, found)
    return ramda_jax.eval_params(state, params)


class Watch:
    """Adds up how exact the group-steps were."""

    def __init__(self):
        self.groups = self.wrong = self.border = self.exact = self.above_bound = 0
        self.worst = (0.0, 0)

    def __call__(self, step, regularizers, found):
        eps = float(np.finfo(np.float32).eps)
        missing, reported = 0.0, 0.0
        for regularizer, (model, value, residual) in zip(regularizers, found, strict=False):
            model = jax.tree.map(lambda x: np.asarray(x, np.float64), model)
            w, axes = np.asarray(value, np.float64), regularizer.inner_axes(value.ndim)
            # Round once, as the solver does.
            rhs = np.asarray(np.float32(model.metric * model.anchor) - np.float32(model.slope), np.float64)
            lam = float(model.weight) * regularizer.weights(w.shape)

            def norms(x, axes=axes):
                return np.sqrt(np.sum(x * x, axis=axes))

            size, radius = norms(rhs), norms(w)
            shift = lam / np.where(radius == 0, 1, radius)
            alive = norms(model.metric * w - rhs + np.expand_dims(shift, axes) * w)
            residuals = np.where(radius == 0, np.maximum(size - lam, 0), alive)
            near = np.abs(size - lam) <= 8 * eps * size
            differs = (radius == 0) != (size <= lam)
            self.groups += radius.size
            self.wrong += int(np.sum(differs & ~near))
            self.border += int(np.sum(differs & near))
            self.exact += int(np.sum(residuals <= 4 * eps * size))
            relative = float(np.max(residuals / np.where(size == 0, 1, eps * size), initial=0))
            self.worst = max(self.worst, (relative, step))
            missing += float(np.sum(np.maximum(residuals - 8 * eps * size, 0) ** 2))
            reported += float(residual) ** 2
        self.above_bound += missing > reported * (1 + 1e-3)


def row(net, method, steps):
    """One row of the table."""
    watch = Watch()
    fixed = train(net, method, steps, FixedPasses(), watch)
    strict = train(net, method, steps, ramda_jax.SecularNewton(strict=True), lambda *_: None)
    supports = [ramda_jax.metrics.support(PATTERNS, params) for params in (fixed, strict)]
    differing = sum(int(jnp.sum(supports[0][path] != supports[1][path])) for path in supports[0])
    zeros = sum(int(jnp.sum(~alive)) for alive in supports[0].values())
    return {
        "net": net,
        "method": method,
        "steps": steps,
        "group_steps": watch.groups,
        "wrong_zeros": watch.wrong,
        "border": watch.border,
        "at_4_eps": watch.exact / watch.groups,
        "worst": watch.worst[0],
        "worst_step": watch.worst[1],
        "above_bound": watch.above_bound,
        "zero_groups": zeros,
        "support_differs": differing,
    }


def main():
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--methods", nargs="+", choices=recording.METHODS, default=list(recording.METHODS))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--small", action="store_true", help="logistic regression, 12 steps: shows that it runs")
    args = parser.parse_args()
    nets, steps = (["logistic"], 12) if args.small else (args.nets, args.steps)
    rows = [row(net, method, steps) for net in nets for method in args.methods]
    print(tabulate(rows, headers="keys", floatfmt=".6g"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
