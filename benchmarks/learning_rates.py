"""Which learning rate of RAMDA and RMDA corresponds to that of AdamW and SGD?

    python -m benchmarks.learning_rates --mnist DIR --fashion DIR --text DIR
    python -m benchmarks.learning_rates --table docs/learning_rates.json       # prints the tables of these rows again

Every problem is trained with every rate of a grid: by AdamW and by SGD with momentum 0.9, both with a cosine decay, and
by RAMDA and RMDA with `stages` and without a regularizer. All rates and seeds of a problem and a method are one
program. A row has the final losses on the training data, by rate and seed. The first table has the best rates, and the
second says how far the rates of `RULES` are from the best, also on problems that were not used to find them
(`HELD_OUT`).
"""

import argparse
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tabulate import tabulate

import ramda_jax
from benchmarks.small_problems import add_data_options, problems

#: The methods and the range of their grids, as exponents of 10. Neighbours differ by a factor of 1.78.
GRIDS = {"adamw": (-3.75, -1.25), "sgd": (-2.25, 0.25), "ramda": (-3.25, -0.5), "rmda": (-2, 0.75)}
STEPS_OF_TEN = 4
#: The rules: whose best rate is taken, and how many times.
RULES = {"ramda": ("adamw", 10**0.25), "rmda": ("sgd", 10.0)}
#: Problems that were not used to find them.
HELD_OUT = ("fashion_residual", "fashion_recurrent")
#: A loss counts as good within this factor of the lowest.
GOOD = 1.2
NUM_STEPS, SEEDS, MEASURED_ON = 600, 2, 1_024


def grid(method):
    """The learning rates of a method."""
    low, high = GRIDS[method]
    return [10 ** (low + number / STEPS_OF_TEN) for number in range(round((high - low) * STEPS_OF_TEN) + 1)]


def optimizer_of(method, rate, num_steps):
    """The method at a rate that may be traced."""
    if method in ("ramda", "rmda"):
        settings = ramda_jax.stages(rate, total_steps=num_steps)
        return (ramda_jax.ramda if method == "ramda" else ramda_jax.rmda)(regularizer=None, strength=0.0, **settings)

    def schedule(step):
        return rate * 0.5 * (1 + jnp.cos(jnp.pi * step / num_steps))

    return optax.adamw(schedule) if method == "adamw" else optax.sgd(schedule, momentum=0.9)


def sweep(problem, method, rates, seeds, num_steps):
    """Final losses `[rates, seeds]`; infinite where a run did not stay finite."""
    data = problem.data["train"]
    measured = jnp.arange(min(MEASURED_ON, problem.counts["train"]))

    def run(data, rate, seed):
        key = jax.random.key(seed)
        params = problem.initial(key)
        optimizer = optimizer_of(method, rate, num_steps)

        def step(carry, key):
            params, state = carry
            indices = jax.random.randint(key, (problem.batch_size,), 0, problem.counts["train"])
            grads = jax.grad(problem.loss)(params, *problem.batch(data, indices))
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.fold_in(key, 1), num_steps)
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
        return problem.loss(params, *problem.batch(data, measured))

    pairs = [(rate, seed) for rate in rates for seed in range(seeds)]
    columns = [jnp.asarray(column) for column in zip(*pairs, strict=True)]
    program = jax.jit(lambda data, *columns: jax.lax.map(lambda pair: run(data, *pair), columns))
    found = program(data, *columns)
    found = np.asarray(found, float).reshape(len(rates), seeds)
    return np.where(np.isfinite(found), found, np.inf)


def row(name, problem, method, seeds, num_steps, rates=None):
    """The results of a sweep."""
    rates = grid(method) if rates is None else rates
    losses = sweep(problem, method, rates, seeds, num_steps)
    losses = [[loss if math.isfinite(loss) else None for loss in of_rate] for of_rate in losses.tolist()]
    return {"problem": name, "method": method, "steps": num_steps, "rates": rates, "losses": losses}


def curve(row):
    """(rates, mean losses) of a row; a loss is infinite where a run did not stay finite."""
    losses = np.array([[math.inf if loss is None else loss for loss in of_rate] for of_rate in row["losses"]])
    return np.array(row["rates"]), losses.mean(1)


def best_rates(row):
    """A line of the first table."""
    rates, losses = curve(row)
    best = int(losses.argmin())
    good = rates[losses <= GOOD * losses[best]]
    return {
        "problem": row["problem"],
        "method": row["method"],
        "best rate": f"{rates[best]:.2g}" + (" (edge)" if best in (0, len(rates) - 1) else ""),
        "loss": f"{losses[best]:.3f}",
        "good from, to": f"{good.min():.2g}, {good.max():.2g}",
    }


def by_rule(rows, method):
    """Lines of the second table: for each problem, the rate of the rule and its loss beside the lowest."""
    peer, factor = RULES[method]
    found = {(row["problem"], row["method"]): curve(row) for row in rows}
    for name in dict.fromkeys(row["problem"] for row in rows):
        if (name, method) not in found or (name, peer) not in found:
            continue
        peer_rates, peer_losses = found[name, peer]
        rates, losses = found[name, method]
        peer_best = peer_rates[peer_losses.argmin()]
        # The grids have common points. Beyond its end the last rate is taken.
        index = int(np.argmin(np.abs(np.log(rates / (factor * peer_best)))))
        yield {
            "problem": name + (" (held out)" if name in HELD_OUT else ""),
            f"{peer}'s best": f"{peer_best:.2g}",
            f"{method}'s best": f"{rates[losses.argmin()]:.2g}",
            "ratio": f"{rates[losses.argmin()] / peer_best:.2g}",
            "by the rule": f"{rates[index]:.2g}",
            "its loss over the lowest": f"{losses[index] / losses.min():.2f}",
            f"lowest over {peer}'s": f"{losses.min() / peer_losses.min():.2f}",
        }


def tables(rows):
    """Both tables as text."""
    parts = [tabulate(map(best_rates, rows), headers="keys", tablefmt="github", disable_numparse=True)]
    for method in RULES:
        lines = list(by_rule(rows, method))
        if lines:
            parts.append(tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True))
    return "\n\n".join(parts)


def main(argv=None):
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_data_options(parser)
    parser.add_argument("--problems", nargs="+", help="names of problems; all by default")
    parser.add_argument("--methods", nargs="+", choices=GRIDS, default=tuple(GRIDS))
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
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
    made = problems(arguments.mnist, arguments.fashion, arguments.text)
    for name in made if arguments.problems is None else arguments.problems:
        for method in arguments.methods:
            if any((row["problem"], row["method"]) == (name, method) for row in rows):
                continue
            steps, rates = (16, grid(method)[::6]) if arguments.small else (arguments.steps, None)
            rows.append(row(name, made[name](), method, arguments.seeds, steps, rates))
            print(best_rates(rows[-1]), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows).replace('{"problem"', '\n{"problem"') + "\n")
    print(tables(rows))


if __name__ == "__main__":
    main()
