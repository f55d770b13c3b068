"""How much of the structure is the problem's own: five seeds, beside what chance would give at the same shares."""

import itertools

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

import ramda_jax
from benchmarks.beyond import tasks
from benchmarks.beyond.runs import many, train
from ramda_jax import metrics

RATE, DRAWS = 0.03, 20
TARGETS = {"mlp": (0.5, 0.65, 0.8), "kernels": (0.5, 0.8)}
#: By net: what its leaves' groups are, and the axes of units that two runs number differently.
NETS = {
    "mlp": (tasks.mlp, {"dense0/kernel": "inputs", "dense1/kernel": "hidden 1", "dense2/kernel": "hidden 2"}),
    "kernels": (lambda small: tasks.conv(small, "kernel"), {"conv1/kernel": "kernels"}),
}
UNITS = {
    "mlp": [{"dense1/kernel": 0}, {"dense2/kernel": 0}],
    "kernels": [{"conv1/kernel": 2}, {"conv1/kernel": 3}],
}


def varying():
    """Which of the 64 inputs are not the same in all images, and their variances."""
    images = np.asarray(tasks.digits()[0]).reshape(-1, 64)
    return images.std(axis=0) > 0, images.var(axis=0)


def trained(task, target, seeds):
    """(parameters, accuracy) of each seed, by RAMDA with a `Target`."""
    settings = ramda_jax.stages(RATE, total_steps=task.num_steps)
    optimizer = ramda_jax.ramda(regularizer=task.regularizer, strength=ramda_jax.Target(target), **settings)

    def run(seed):
        params, _, _ = train(task, optimizer, seed, seed)
        return params, task.accuracy(params)

    return many(run, range(seeds), chunk=seeds)


def shuffled(support, rng, fixed):
    """The support with the groups of each leaf in random order; those in `fixed` stay where they are."""
    found = {}
    for path, alive in support.items():
        free = ~fixed[path].ravel() if path in fixed else np.ones(alive.size, bool)
        flat = np.array(alive).ravel()
        flat[free] = rng.permutation(flat[free])
        found[path] = flat.reshape(alive.shape)
    return found


def rewired(alive, rng):
    """A random matrix with as many alive in each row and in each column; two rows at a time trade what they differ in.

    Strona and others, `A fast and unbiased procedure to randomize ecological binary matrices`, 2014.
    """
    rows = [set(np.flatnonzero(row)) for row in alive]
    for _ in range(20 * len(rows)):
        a, b = rng.choice(len(rows), 2, replace=False)
        only, both = rows[a] - rows[b], rows[a] & rows[b]
        mixed = rng.permutation(sorted(rows[a] ^ rows[b])).tolist()
        rows[a], rows[b] = both | set(mixed[: len(only)]), both | set(mixed[len(only) :])
    found = np.zeros_like(alive)
    for row, own in zip(found, rows, strict=True):
        row[sorted(own)] = True
    return found


def matched(first, second):
    """The mean correlation of the units of two nets, paired so that it is largest; columns are units."""
    first, second = ((one - one.mean(0)) / np.maximum(one.std(0), 1e-12) for one in (first, second))
    correlation = first.T @ second / len(first)
    return float(correlation[linear_sum_assignment(correlation, maximize=True)].mean())


def similarity(params, support, task, seeds):
    """By hidden layer: the mean correlation of paired living units, and that with units of untrained nets."""
    images = tasks.digits()[1]
    living = (
        [support_of["dense1/kernel"].ravel() for support_of in support],
        [support_of["dense2/kernel"].ravel() for support_of in support],
    )
    trained_units = [[np.asarray(x) for x in tasks.hidden(one, images)] for one in params]
    fresh = [jax.tree.map(np.asarray, task.initial(jax.random.key(1000 + seed))) for seed in range(seeds)]
    fresh_units = [[np.asarray(x) for x in tasks.hidden(one, images)] for one in fresh]
    found = {}
    for layer, alive in enumerate(living):
        pairs, by_chance = [], []
        for a, b in itertools.combinations(range(seeds), 2):
            units = [trained_units[one][layer][:, alive[one]] for one in (a, b)]
            pairs.append(matched(*units))
            by_chance.append(matched(units[0], fresh_units[b][layer][:, : units[1].shape[1]]))
        found[f"hidden {layer + 1}"] = float(np.mean(pairs)), float(np.mean(by_chance))
    return found


def part(net, target, small, seeds):
    """A row for each leaf."""
    make, leaves = NETS[net]
    task = make(small)
    found = trained(task, target, seeds)
    params = [one for one, _ in found]
    support = [
        {path: np.asarray(leaf) for path, leaf in metrics.support(task.regularizer, one).items()} for one in params
    ]
    varies, variances = varying()
    fixed = {"dense0/kernel": ~varies}
    similar = similarity(params, support, task, seeds) if net == "mlp" else {}
    rng = np.random.default_rng(0)
    overlaps, chances, degrees = [], [], []
    for a, b in itertools.combinations(support, 2):
        overlaps.append(metrics.overlap(a, b, units=UNITS[net]).leaves)
        drawn = [metrics.overlap(a, shuffled(b, rng, fixed), units=UNITS[net]).leaves for _ in range(DRAWS)]
        chances.append({path: np.mean([one[path] for one in drawn]) for path in leaves})
        if net == "kernels":
            (path,) = leaves
            drawn = [{path: rewired(b[path][0, 0], rng)[None, None]} for _ in range(DRAWS)]
            degrees.append(np.mean([metrics.overlap(a, one, units=UNITS[net]).total for one in drawn]))
    rows = []
    for path, name in leaves.items():
        row = {
            "net": net,
            "target": target,
            "groups": name,
            "of": int(support[0][path].size),
            "widths": [int(one[path].sum()) for one in support],
            "overlap": float(np.mean([one[path] for one in overlaps])),
            "least": float(np.min([one[path] for one in overlaps])),
            "most": float(np.max([one[path] for one in overlaps])),
            "chance": float(np.mean([one[path] for one in chances])),
            "accuracy": float(np.mean([accuracy for _, accuracy in found])),
        }
        if name == "inputs":
            row["by_variance"] = float(np.mean([_by_variance(one[path].ravel(), variances) for one in support]))
        if degrees:
            row["chance_by_channel"] = float(np.mean(degrees))
        if name in similar:
            row["similarity"], row["similarity_chance"] = similar[name]
        rows.append(row)
    return rows


def _by_variance(alive, variances):
    """The overlap with as many inputs as are alive, those with the largest variances."""
    best = np.argsort(np.argsort(-variances)) < alive.sum()
    return np.sum(best & alive) / np.sum(best | alive)


def parts(small=False, seeds=5):
    """(name, function from the rows so far to new ones) of each program."""
    for net, target in ((net, target) for net, targets in TARGETS.items() for target in targets):

        def make(found, net=net, target=target):
            del found
            return part(net, target, small, seeds)

        yield f"{net}, {target:g}", make
