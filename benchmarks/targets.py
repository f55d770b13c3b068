"""Does a `Target` reach its share, does what it finds stay, and at what accuracy?

    python -m benchmarks.targets                                               # on the digits that scikit-learn ships
    python -m benchmarks.targets --mnist DIR --fashion DIR --text DIR          # and on these, if their files are there
    python -m benchmarks.targets --problems digits_conv --shares 0.9 --seeds 5 --json targets.json
    python -m benchmarks.targets --table docs/targets.json                     # prints the tables of these rows again

Each run is RAMDA (or RMDA) with the group LASSO, `stages(learning_rate, total_steps)` and `Target(share, start=start)`,
for every seed and start. Shares, seeds and starts are traced: one program serves all runs of a problem. With `--sweep`
there are runs with eleven constant lambdas too. docs/targets.md says what the columns are.
"""

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax
from benchmarks.small_problems import add_data_options, problems
from benchmarks.target_tables import of_default_start, tables
from ramda_jax import compaction, metrics
from ramda_jax.phases.ramda_then_hold import rising

SHARES = (0.5, 0.7, 0.9, 0.95)
STARTS = (1e-7, 1e-4, 1e-1)
#: The number of lambdas of a sweep. It goes beyond what the targets have found by this factor, both ways.
LAMBDAS, BEYOND = 11, 3
#: A certificate's bound that is a promise: below it no zero group should become nonzero.
SMALL_BOUND = 0.05
#: What a row is that was written before rows had this field.
EARLIER = {"hold": None, "is_exact": False}


class Setting(NamedTuple):
    """How a problem is trained.

    Attributes:
        rates: the learning rate of the first stage, by method.
        num_steps: of a run.
        regularizer: what makes groups zero.
        batch_size: None for that of the problem.
    """

    rates: dict[str, float]
    num_steps: int
    regularizer: Any = ramda_jax.GroupLasso(-2)  # by input channel or feature, the images' single one included
    batch_size: int | None = None


SETTINGS = {
    "digits_logistic": Setting({"ramda": 3e-2, "rmda": 1.0}, 3_000),
    "digits_conv": Setting({"ramda": 3e-2, "rmda": 0.3}, 1_500),
    "fashion_mlp": Setting({"ramda": 1e-2, "rmda": 0.3}, 1_500),
    "mnist_conv": Setting({"ramda": 1e-2, "rmda": 0.3}, 1_000),
    # By name: hidden units, heads, and what else these leaves read.
    "text_decoder": Setting({"ramda": 1e-2, "rmda": 0.3}, 1_000, ramda_jax.GroupLasso(), 4),
}


class Found(NamedTuple):
    """What is seen of a run."""

    share: Any  # of the zero weights (or costs) of the parameters at the end
    weights: Any  # the share of the zero weights, whatever the target counts
    accuracy: Any
    strength: Any  # lambda at the end
    moved: Any  # the number of steps after `hold` whose lambda is not that of the step before
    expected: Any  # the certificate's expected revivals at nine tenths of the run
    revived: Any  # the number of groups that were zero then and are nonzero at a later step
    revived_small: Any  # the same of those with a small bound
    changed: Any  # the number of groups that are zero at one step of the last tenth and nonzero at another


def removable(problem):
    """(a regularizer of the groups that can be removed, the FLOPs of each group by path)."""
    params = problem.initial(jax.random.key(0))
    inputs, _ = problem.batch(problem.data["train"], jnp.arange(1))
    dims = compaction.trace_dims(problem.traced, params, inputs)
    costs = {path: jnp.asarray(array) for path, array in compaction.costs(dims, "flops").items()}
    return compaction.groups(dims), costs


def train(problem, setting, optimizer, held, share_of, data, key, start):
    """The `Found` of one run.

    Args:
        problem, setting: what is trained, and how.
        optimizer: with a regularizer, or without if held is None.
        held: the 0-based step from which on lambda should be constant; None to look neither at lambda nor at groups.
        share_of: the share of zeros of parameters.
        data: the problem's.
        key: of the initial parameters and of the batches.
        start: lambda's.
    """
    regularizer, num_steps = setting.regularizer, setting.num_steps
    params = problem.initial(key)
    state = optimizer.init(params)
    if held is not None:
        state = optax.tree.set(state, strength=optax.tree.get(state, "strength")._replace(next=start))

    def alive(params):
        return {path: jnp.ravel(one) for path, one in metrics.support(regularizer, params).items()}

    def step(number, carry):
        params, state, moved, ever, always = carry
        indices = jax.random.randint(jax.random.fold_in(key, number), (problem.batch_size,), 0, problem.counts["train"])
        grads = jax.grad(problem.loss)(params, *problem.batch(data["train"], indices))
        updates, after = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        if held is not None:
            strengths = [optax.tree.get(one, "strength").current for one in (state, after)]
            moved += (number > held) & (strengths[0] != strengths[1])
            now = alive(params)
            ever, always = jax.tree.map(jnp.logical_or, ever, now), jax.tree.map(jnp.logical_and, always, now)
        return params, after, moved, ever, always

    def segment(carry, bounds):
        params, state, earlier, moved = carry
        before = alive(params)
        certificate = None if held is None else metrics.certificate(state, params, earlier)
        seen = () if certificate is None else (certificate.expected_revivals, certificate.bound)
        params, after, moved, ever, always = jax.lax.fori_loop(
            bounds[0], bounds[1], step, (params, state, moved, before, before)
        )
        return (params, after, state, moved), (seen, before, ever, always)

    # In the middle of the last stage, and before the last tenth, when the certificate is read: the state before each
    # part of the run is `earlier` in the certificate of the next.
    borders = jnp.asarray([0, 3 * num_steps // 4, num_steps - num_steps // 10, num_steps])
    (params, state, _, moved), parts = jax.lax.scan(segment, (params, state, state, 0), (borders[:-1], borders[1:]))
    seen, before, ever, always = jax.tree.map(lambda parts: parts[-1], parts)
    inputs, labels = problem.batch(data["test"], jnp.arange(problem.counts["test"]))
    accuracy = 100 * jnp.mean(jnp.argmax(problem.apply(params, inputs), -1) == labels)
    weights = metrics.weighted_group_sparsity(regularizer, params)
    if held is None:
        return Found(share_of(params), weights, accuracy, *[0.0] * 6)
    expected, bound = seen
    revived = {path: ever[path] & ~before[path] for path in before}
    small = {path: one & (jnp.ravel(bound[path]) <= SMALL_BOUND) for path, one in revived.items()}
    changed = {path: ever[path] & ~always[path] for path in before}
    counts = (sum(jnp.sum(one) for one in tree.values()) for tree in (revived, small, changed))
    strength = optax.tree.get(state, "strength").current
    return Found(share_of(params), weights, accuracy, strength, moved, expected, *counts)


class Lab:
    """A problem and the programs that have been compiled for it.

    Attributes:
        name, problem, setting: what is trained, and how.
        method: "ramda" or "rmda".
        of: what a share counts.
        costs: the `of` of a target.
        rises: whether the share of a target rises in the first stage.
        hold: of a target.
        is_exact: whether a target is met in the last step, by `exact_at`.
    """

    def __init__(self, name, problem, setting, method, of: Any = "weights", rises=False, hold=None, is_exact=False):
        self.rises, self.hold, self.is_exact = rises, hold, is_exact
        self.name, self.problem, self.setting, self.method = name, problem, setting, method
        self.of: Any = of
        self.costs: Any = of
        if setting.batch_size is not None:
            self.problem = problem._replace(batch_size=setting.batch_size)
        if of == "flops":
            regularizer, self.costs = removable(problem)
            self.setting = setting._replace(regularizer=regularizer)
        self.settings = ramda_jax.stages(setting.rates[method], total_steps=setting.num_steps)
        self._programs = {}

    def found(self, kind, seeds, number, starts):
        """The `Found` of the runs of all seeds and starts, of arrays.

        Args:
            kind: "target", "lambda" or "dense".
            seeds: how many.
            number: the share, or lambda.
            starts: lambda's.
        """
        if kind not in self._programs:
            self._programs[kind] = jax.jit(functools.partial(self._runs, kind))
        pairs = [(seed, number, start) for seed in range(seeds) for start in starts]
        columns = tuple(jnp.asarray(column) for column in zip(*pairs, strict=True))
        return jax.tree.map(np.asarray, self._programs[kind](self.problem.data, columns))

    def _runs(self, kind, data, columns):
        restarts, regularizer = self.settings["restarts"], self.setting.regularizer
        held = ramda_jax.Target(0.5, hold=self.hold).within(restarts).held_from() if kind == "target" else None

        def run(column):
            seed, number, start = column
            strength = number
            if kind == "target":
                share = rising(number, restarts[0]) if self.rises else number
                exact_at = self.setting.num_steps - 1 if self.is_exact else None
                strength = ramda_jax.Target(share, of=self.costs, hold=self.hold, exact_at=exact_at)
            method = ramda_jax.ramda if self.method == "ramda" else ramda_jax.rmda
            optimizer: Any = method(
                regularizer=None if kind == "dense" else regularizer, strength=strength, **self.settings
            )
            if self.method == "rmda":
                # For the certificate.
                optimizer = optax.chain(metrics.second_moments(regularizer, restarts=restarts), optimizer)
            key = jax.random.key(seed)
            return train(self.problem, self.setting, optimizer, held, self.share_of, data, key, start)

        return jax.lax.map(run, columns)

    def share_of(self, params):
        """The share of zeros of parameters."""
        if isinstance(self.costs, str):
            return metrics.weighted_group_sparsity(self.setting.regularizer, params)
        alive = metrics.support(self.setting.regularizer, params)
        costs = {path: jnp.broadcast_to(self.costs[path], one.shape) for path, one in alive.items()}
        zero = sum(jnp.sum(jnp.where(one, 0, costs[path])) for path, one in alive.items())
        return zero / sum(jnp.sum(one) for one in costs.values())

    def floor(self):
        """The share of the weights that read pixels which are 0 in all training images."""
        shapes = self.problem.shapes
        if "dense0" not in shapes or "conv0" in shapes or not isinstance(self.costs, str):
            return 0.0
        images, _ = self.problem.data["train"]
        return float(jnp.sum(jnp.all(images == 0, 0)) * shapes["dense0"]["kernel"][1] / self._sizes()[1])

    def _sizes(self):
        """(what the largest group counts, what all count)."""
        params = jax.tree.map(jnp.ones_like, self.problem.initial(jax.random.key(0)))
        alive = metrics.support(self.setting.regularizer, params)
        if not isinstance(self.costs, str):
            costs = [np.broadcast_to(self.costs[path], one.shape) for path, one in alive.items()]
            return max(one.max() for one in costs), sum(one.sum() for one in costs)
        sizes = {path: leaf.size for path, leaf in _named(params) if path in alive}
        return max(size // alive[path].size for path, size in sizes.items()), sum(sizes.values())

    def largest_group(self):
        """The share that the largest group counts."""
        largest, total = self._sizes()
        return float(largest / total)


def _named(params):
    named, _ = jax.tree_util.tree_flatten_with_path(params)
    return [("/".join(key.key for key in path), leaf) for path, leaf in named]


def rows_of(lab, kind, seeds, number, starts):
    """A row: the lists of what was found, over seeds and within them over starts."""
    start = time.process_time()
    found = lab.found(kind, seeds, number, starts)
    return {
        "problem": lab.name, "method": lab.method, "kind": kind, "of": lab.of, "number": number,
        "starts": list(starts),
        "steps": lab.setting.num_steps,
        "hold": lab.hold if kind == "target" else None, "rises": lab.rises and kind == "target",
        "is_exact": lab.is_exact and kind == "target",
        "floor": lab.floor(), "largest group": lab.largest_group(),
        **{name: [float(f"{one:.6g}") for one in value] for name, value in found._asdict().items()},
        "seconds": round(time.process_time() - start, 1),
    }  # fmt: skip


def lambdas_around(rows):
    """The lambdas of a sweep, around those that targets have found from the default start."""
    found = [strength for row in rows for strength in of_default_start(row, "strength")]
    return np.geomspace(min(found) / BEYOND, max(found) * BEYOND, LAMBDAS).tolist()


def main(argv=None):
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_data_options(parser)
    parser.add_argument("--problems", nargs="+", choices=SETTINGS, help="all whose data are there by default")
    parser.add_argument("--method", choices=("ramda", "rmda"), default="ramda")
    parser.add_argument("--of", choices=("weights", "flops"), default="weights", help="what the share counts")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--starts", nargs="+", type=float, default=STARTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--times", type=int, default=1, help="how many times as many steps")
    parser.add_argument("--hold", type=float, metavar="SHARE", help="lambda is held after this share of the run")
    parser.add_argument("--rise", action="store_true", help="the share rises in the first stage")
    parser.add_argument("--exact", action="store_true", help="the share is met in the last step")
    parser.add_argument("--sweep", action="store_true", help="also eleven lambdas, around those that were found")
    parser.add_argument("--small", action="store_true", help="only show that it runs")
    parser.add_argument("--json", metavar="FILE", type=Path, help="rows that it has already are not run again")
    parser.add_argument("--table", metavar="FILE", type=Path, help="only print the tables of this file")
    arguments = parser.parse_args(argv)
    if arguments.table:
        print(tables(json.loads(arguments.table.read_text())))
        return
    rows = []
    if arguments.json and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())

    def add(lab, kind, number, starts):
        key = {"problem": lab.name, "method": lab.method, "kind": kind, "of": lab.of, "number": number}
        key |= {"steps": lab.setting.num_steps, "rises": lab.rises and kind == "target"}
        key |= {"hold": lab.hold} if kind == "target" else {}
        key |= {"is_exact": lab.is_exact and kind == "target"}
        if any(all(row.get(name, EARLIER.get(name)) == value for name, value in key.items()) for row in rows):
            return
        rows.append(rows_of(lab, kind, arguments.seeds, number, starts))
        print({name: rows[-1][name] for name in (*key, "share", "accuracy", "seconds")}, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows).replace('{"problem"', '\n{"problem"') + "\n")

    made = problems(arguments.mnist, arguments.fashion, arguments.text)
    for name, setting in SETTINGS.items():
        if name not in made or (arguments.problems and name not in arguments.problems):
            continue
        setting = setting._replace(num_steps=80 if arguments.small else arguments.times * setting.num_steps)
        hold = None if arguments.hold is None else round(arguments.hold * setting.num_steps)
        lab = Lab(name, made[name](), setting, arguments.method, arguments.of, arguments.rise, hold, arguments.exact)
        add(lab, "dense", 0.0, (0.0,))
        for share in arguments.shares:
            add(lab, "target", share, arguments.starts)
        if arguments.sweep:
            mine = [row for row in rows if row["problem"] == name and row["method"] == arguments.method]
            mine = [row for row in mine if row["of"] == arguments.of and row["steps"] == setting.num_steps]
            plain = [row for row in mine if row["kind"] == "target" and not (row["rises"] or row.get("hold"))]
            plain = [row for row in plain if not row.get("is_exact")]
            if sum(row["kind"] == "lambda" for row in mine) < LAMBDAS:
                for number in lambdas_around(plain):
                    add(lab, "lambda", number, (0.0,))
    print(tables(rows))


if __name__ == "__main__":
    main()
