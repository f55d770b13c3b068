"""Counts the zero groups that become nonzero again, over many runs, and compares with the certificate's bound.

    python -m benchmarks.certificate

For some steps t the table says how many of the zero groups at t are nonzero at a later step of the run, and gives
`bound`. There are three problems with 20 seeds each, and one program for all seeds: logistic regression and a small
convolutional net on scikit-learn's digits, by RAMDA in one stage; and a case made to break the premise, in which the
mean gradient of half of the groups begins to move in the middle of the run.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from tabulate import tabulate

import ramda_jax
from ramda_jax import GroupLasso, metrics

SEEDS, BATCH = 20, 32
#: Bounds are counted in these classes: [0, 0.01], (0.01, 0.05] and so on. Bounds in the last class say nothing.
LEVELS = (0.0, 0.01, 0.05, 0.2, 0.5, 0.999, 1.0)


def digits():
    """(images in [0, 1], labels)."""
    pixels, labels = load_digits(return_X_y=True)
    return jnp.asarray(pixels / 16, jnp.float32), jnp.asarray(labels)


def on_digits(forward, init):
    """A problem: parameters from a key, and the gradient of a batch drawn with replacement by a key."""
    images, labels = digits()

    def gradient(params, key, step):
        del step
        batch = jax.random.randint(key, (BATCH,), 0, len(labels))

        def loss(params):
            logits = forward(params, images[batch])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

        return jax.grad(loss)(params)

    return init, gradient


def logistic():
    """Logistic regression: one matrix with a group for each of the 64 pixels."""

    def init(key):
        del key
        return {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}

    return on_digits(lambda params, x: x @ params["kernel"] + params["bias"], init)


def conv_net():
    """The net of `examples.digits` with an eighth of its channels: two convolutions and two dense layers."""
    shapes = {"conv1": (3, 3, 1, 8), "conv2": (3, 3, 8, 8), "dense1": (128, 16), "dense2": (16, 10)}

    def init(key):
        keys = jax.random.split(key, len(shapes))
        he = jax.nn.initializers.he_normal()
        return {
            name: {"kernel": he(key, shape), "bias": jnp.zeros(shape[-1])}
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    def patches(x):
        # Write the convolution as a matrix product, which is fast under vmap on a CPU.
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = x.shape[1:3]
        return jnp.stack([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], 3)

    def forward(params, x):
        x = x.reshape(-1, 8, 8, 1)
        for name, stride in (("conv1", 1), ("conv2", 2)):
            kernel = params[name]["kernel"].reshape(9, *shapes[name][2:])
            x = jnp.einsum("bhwki,kio->bhwo", patches(x)[:, ::stride, ::stride], kernel)
            x = jax.nn.relu(x + params[name]["bias"])
        x = jax.nn.relu(x.reshape(len(x), -1) @ params["dense1"]["kernel"] + params["dense1"]["bias"])
        return x @ params["dense2"]["kernel"] + params["dense2"]["bias"]

    return on_digits(forward, init)


def moving(num_steps):
    """32 groups of 4 with mean gradients of 0.5 around 0; in half of them the mean grows to 3 from the middle on."""

    def init(key):
        del key
        return {"kernel": jnp.zeros((32, 4))}

    def gradient(params, key, step):
        noise = jax.random.normal(key, (32, 4))
        moved = 5 * jnp.clip(step / num_steps - 0.4, 0) * (jnp.arange(32) >= 16)
        return {"kernel": 0.1 * params["kernel"] + 0.25 + moved[:, None] + noise}

    return init, gradient


def observe(problem, regularizer, strength, learning_rate, num_steps, times, seeds):
    """For each t of `times`, by seed and group: whether zero, bound with and without drift, drifting, revived after t.

    Returns:
        A list of dicts of arrays [seeds, groups], one for each t.
    """
    init, gradient = problem
    optimizer = ramda_jax.ramda(learning_rate, regularizer, strength=strength, averaging=0.1)

    def flat(leaves):
        return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves.values()])

    def alive(state, params):
        return flat(metrics.support(regularizer, ramda_jax.eval_params(state, params)))

    def step(carry, number):
        params, state, key, revived = carry
        key, now = jax.random.split(key)
        updates, state = optimizer.update(gradient(params, now, number), state, params)
        params = optax.apply_updates(params, updates)
        # For each t: whether the group has been nonzero at a later step.
        later = number + 1 > jnp.asarray(times)
        revived = revived | (later[:, None] & alive(state, params)[None])
        return (params, state, key, revived), None

    def run(key):
        key, first = jax.random.split(key)
        params = init(first)
        state = optimizer.init(params)
        groups = alive(state, params).size
        carry = (params, state, key, jnp.zeros((len(times), groups), bool))
        seen, done = [], 0
        for t in times:
            carry, _ = jax.lax.scan(step, carry, jnp.arange(done, t // 2))
            earlier = carry[1]
            carry, _ = jax.lax.scan(step, carry, jnp.arange(t // 2, t))
            done = t
            plain = metrics.certificate(carry[1], carry[0])
            watched = metrics.certificate(carry[1], carry[0], earlier)
            seen.append(
                {
                    "zero": flat(plain.zero),
                    "bound": flat(plain.bound),
                    "bound_with_drift": flat(watched.bound),
                    "drifting": flat(watched.drifting),
                }
            )
        carry, _ = jax.lax.scan(step, carry, jnp.arange(done, num_steps))
        return [found | {"revived": carry[3][i]} for i, found in enumerate(seen)]

    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), seeds))
    return jax.tree.map(np.asarray, found)


def rows_of(name, times, found):
    """A row for each t, and one for each class of bounds over all t."""
    rows = []
    for t, record in zip(times, found, strict=True):
        zero, revived = record["zero"], record["zero"] & record["revived"]
        row = {"problem": name, "t": t, "zero": float(zero.sum(1).mean()), "revived": float(revived.sum(1).mean())}
        row["revived_standard_error"] = float(revived.sum(1).std(ddof=1) / np.sqrt(len(zero)))
        for bound in ("bound", "bound_with_drift"):
            row[f"expected_by_{bound}"] = float(np.sum(record[bound], where=zero, axis=1).mean())
        row["drifting"] = float((zero & record["drifting"]).sum(1).mean())
        row["revived_and_drifting"] = float((revived & record["drifting"]).sum(1).mean())
        rows.append(row)
    return rows


def classes_of(name, found):
    """How often groups with a bound in a class became nonzero again, over all t and seeds."""
    rows = []
    for kind in ("bound", "bound_with_drift"):
        zero = np.concatenate([record["zero"].ravel() for record in found])
        bound = np.concatenate([record[kind].ravel() for record in found])
        revived = np.concatenate([record["revived"].ravel() for record in found])
        for low, high in itertools.pairwise(LEVELS):
            here = zero & ((bound > low) | (low == 0)) & (bound <= high)
            if here.any():
                rows.append(
                    {
                        "problem": name,
                        "kind": kind,
                        "above": low,
                        "to": high,
                        "groups": int(here.sum()),
                        "mean_bound": float(bound[here].mean()),
                        "revived": float(revived[here].mean()),
                    }
                )
    return rows


def main(argv=None):
    """Runs the problems, prints the tables, and writes them."""
    parser = argparse.ArgumentParser(description="Revivals observed beside the certificate's bound.")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"default: {SEEDS}")
    parser.add_argument("--small", action="store_true", help="only shows that it runs")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args(argv)
    seeds, num_steps = (3, 160) if args.small else (args.seeds, 4000)
    times = tuple(num_steps * share // 16 for share in (1, 2, 4, 8))
    problems = {
        "logistic": (logistic(), GroupLasso("input"), 1e-2, 3e-2),
        "moving": (moving(num_steps), GroupLasso("input", group_weight=1.0), 1.0, 1e-2),
        "conv_net": (conv_net(), GroupLasso(-2), 1e-3, 1e-2),
    }
    rows, classes = [], []
    for name, (problem, regularizer, strength, learning_rate) in problems.items():
        if args.small and name == "conv_net":
            continue
        start = time.perf_counter()
        found = observe(problem, regularizer, strength, learning_rate, num_steps, times, seeds)
        rows += rows_of(name, times, found)
        classes += classes_of(name, found)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(f"Groups a run, {seeds} seeds, {num_steps} steps:\n" + tabulate(rows, headers="keys", floatfmt=".3g"))
    print("\nBy what the bound said:\n" + tabulate(classes, headers="keys", floatfmt=".3g"))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"by_step": rows, "by_bound": classes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
