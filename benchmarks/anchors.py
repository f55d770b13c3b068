"""What RAMDA's anchor W_0 in bfloat16 does to whole trainings (`ramda(..., anchor_dtype=jnp.bfloat16)`).

    python -m benchmarks.anchors [--nets NAME ...] [--seeds N] [--steps N] [--json FILE] [--small]

Nets on scikit-learn's digits are trained by RAMDA with the group LASSO in three stages, in float32. The averaging
reaches 1 in the last one, so that the parameters end with exact zeros. The same initial nets and batches are used with
the anchor in float32, with the anchor in bfloat16, and, as a measure of how far rounding alone carries a training, with
the anchor in float32 from initial weights that differ in their last bit. The table has, over the seeds,

distance   the relative distance of the parameters to those of the float32 run, at the end of each stage
zero       zero groups at the end
differ     groups that are zero at the end in only one of the two runs
accuracy   on the held-out quarter
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tabulate import tabulate

import ramda_jax
from benchmarks import recording
from benchmarks.fixed_passes import Logistic

NETS = recording.NETS | {"logistic": Logistic}
FLOAT32, BFLOAT16, LAST_BIT = "float32", "bfloat16", "float32, last bit"


def trained(net, data, optimizer, seed, ends, changes_last_bit):
    """The parameters after each stage, and the accuracy at the end."""
    graph, params = nnx.split(NETS[net](nnx.Rngs(seed)))
    if changes_last_bit:
        params = jax.tree.map(lambda w: jnp.nextafter(w, jnp.inf), params)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            logits = nnx.merge(graph, params)(images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    shuffle, order, found = np.random.default_rng(seed), np.array([], int), []
    for number in range(1, max(ends) + 1):
        if len(order) < recording.BATCH:
            order = shuffle.permutation(len(data.images))
        batch, order = order[: recording.BATCH], order[recording.BATCH :]
        params, state = step(params, state, data.images[batch], data.labels[batch])
        if number in ends:
            found.append(jax.tree.map(np.asarray, params))
    predicted = jnp.argmax(nnx.merge(graph, params)(data.test_images), axis=-1)
    return found, float(np.mean(predicted == data.test_labels))


def distance(one, other):
    """`||one - other|| / ||other||` over all leaves."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    return float(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs) / sum(np.sum(b**2) for _, b in pairs)))


def zero_groups(params):
    """Which groups are zero, one boolean array."""
    return np.concatenate([~np.ravel(x) for x in ramda_jax.metrics.support(recording.REGULARIZER, params).values()])


def measured(net, steps, seeds):
    """The rows of one net: one for each kind of anchor and seed."""
    data = recording.Trainer("mlp", "ramda", steps)  # its images alone
    ends = (steps // 3, 2 * steps // 3, steps)
    settings = ramda_jax.stages(learning_rate=5e-2, averaging=0.1, eps=1e-6, ends=ends[:2])
    for seed in range(seeds):
        runs = {}
        for kind in (FLOAT32, BFLOAT16, LAST_BIT):
            dtype = jnp.bfloat16 if kind == BFLOAT16 else None
            optimizer = ramda_jax.ramda(
                regularizer=recording.REGULARIZER, strength=1e-4, anchor_dtype=dtype, **settings
            )
            runs[kind] = points, accuracy = trained(net, data, optimizer, seed, ends, kind == LAST_BIT)
            reference = runs[FLOAT32][0]
            yield {
                "net": net,
                "anchor": kind,
                "seed": seed,
                "steps": steps,
                "distances": [distance(a, b) for a, b in zip(points, reference, strict=True)],
                "groups": len(zero_groups(points[-1])),
                "zero": int(np.sum(zero_groups(points[-1]))),
                "differ": int(np.sum(zero_groups(points[-1]) != zero_groups(reference[-1]))),
                "accuracy": accuracy,
            }


def summary(rows):
    """One line for each net and kind of anchor: the range over the seeds."""
    lines = []
    for net, kind in dict.fromkeys((row["net"], row["anchor"]) for row in rows):
        found = [row for row in rows if (row["net"], row["anchor"]) == (net, kind)]
        farthest = np.max([row["distances"] for row in found], axis=0)
        lines.append(
            {
                "net": net,
                "anchor": kind,
                "largest distance, by stage": ", ".join(f"{x:.1g}" for x in farthest),
                "groups": found[0]["groups"],
                "zero": ", ".join(str(row["zero"]) for row in found),
                "differ": ", ".join(str(row["differ"]) for row in found),
                "accuracy": ", ".join(f"{100 * row['accuracy']:.1f}" for row in found),
            }
        )
    return lines


def markdown(rows):
    """The table of `docs/scale.md`."""
    return tabulate(summary(rows), headers="keys", tablefmt="pipe", disable_numparse=True)


def main(argv=None):
    """Trains, prints and writes; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--small", action="store_true", help="only shows that it runs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    nets, seeds, steps = (["logistic"], 1, 6) if args.small else (args.nets, args.seeds, args.steps)
    rows = []
    for net in nets:
        for row in measured(net, steps, seeds):
            rows.append(row)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(tabulate(summary(rows), headers="keys", disable_numparse=True))
    return rows


if __name__ == "__main__":
    main()
