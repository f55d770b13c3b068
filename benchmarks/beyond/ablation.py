"""What each part of the recipe does: averaging, stages, the metric, the last stage and the solver."""

import itertools
from typing import Any

import numpy as np

import ramda_jax
from benchmarks.beyond import tasks
from benchmarks.beyond.runs import Run, dual_averaging, many, numbers, train

TASKS = {"logistic": tasks.logistic, "conv": tasks.conv}
#: Learning rates to choose from, for each way in which the rate goes on: the one with the lowest objective.
RATES = {"rmda": (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03), "ramda": (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)}
TUNING_SEED, POWER = 100, 0.6
#: By whether the sums restart: how the rate goes on.
STAGES = {False: ("constant", "falls", "in steps"), True: ("in steps", "falls at the end")}
AVERAGINGS = ("1", "0.1", "growing by stage", "growing at the end")
DEFAULT = "growing at the end"
#: No averaging, at the rates that are best for that.
OWN_RATE = "1, its own rate"


def ends_of(num_steps):
    """Those of `stages`."""
    return num_steps // 4, 3 * num_steps // 8, num_steps // 2


def rates_of(way, num_steps):
    """The learning rates by step, of a first rate of 1."""
    step, ends = np.arange(num_steps), ends_of(num_steps)
    steps = 0.1 ** np.searchsorted(ends, step, side="right")
    if way == "constant":
        return np.ones(num_steps)
    if way == "falls":
        return (step + 1.0) ** -POWER
    if way == "in steps":
        return steps
    # From the first rate again, so that it can forget the anchor.
    return np.where(step < ends[-1], steps, np.maximum(step - ends[-1] + 1.0, 1) ** -POWER)


def averagings_of(name, num_steps):
    """c_t by step."""
    step, ends = np.arange(num_steps), ends_of(num_steps)
    if name == "growing by stage":
        return np.minimum(0.01 * 10.0 ** np.searchsorted(ends, step, side="right"), 1)
    if name == "growing at the end":  # as `stages`: 1 after a fifth of the last stage
        full = (num_steps - ends[-1]) // 5
        return np.where(step < ends[-1], 1, np.sqrt(np.clip(step - ends[-1] + 1, 1, full))) / np.sqrt(full)
    return np.full(num_steps, float(name.split(",")[0]))


def trainer(task, method, restarts, solver):
    """A function from a `Run` to its numbers."""

    def run(given):
        optimizer = dual_averaging(method, task, given, restarts, solver)
        return numbers(task, *train(task, optimizer, given.start, given.batches))

    return run


def run_of(task, way, rate, averaging, seed):
    """A `Run`; its seed is that of the parameters and of the batches."""
    steps = task.num_steps
    rates, averagings = rate * rates_of(way, steps), averagings_of(averaging, steps)
    return Run(rates.astype(np.float32), averagings.astype(np.float32), seed, seed)


def tuned(task, function, method, ways, averaging):
    """For each way in which the rate goes on, the first rate with the lowest objective, of a seed of its own."""
    tried = list(itertools.product(ways, RATES[method]))
    results = many(function, [run_of(task, way, rate, averaging, TUNING_SEED) for way, rate in tried])
    objectives = {
        pair: np.nan_to_num(result["objective"], nan=np.inf) for pair, result in zip(tried, results, strict=True)
    }
    return {way: min(RATES[method], key=lambda rate, way=way: objectives[way, rate]) for way in ways}


def part(cell, averagings, found, small, seeds):
    """The rows of one program: these averagings, and all ways in which the rate goes on."""
    name, method, has_restarts, solver = cell
    task, ways = TASKS[name](small), STAGES[has_restarts]
    restarts = ends_of(task.num_steps) if has_restarts else ()
    function = trainer(task, method, restarts, None if solver == "exact" else ramda_jax.ProximalGradient())
    if solver == "exact":
        chosen = tuned(task, function, method, ways, DEFAULT if DEFAULT in averagings else averagings[0])
    else:
        own = (name, method, has_restarts, DEFAULT)
        cells = [row for row in found if (row["problem"], row["method"], row["restarts"], row["averaging"]) == own]
        chosen = {row["way"]: row["rate"] for row in cells}
    cells = list(itertools.product(ways, averagings, range(seeds)))
    results = many(function, [run_of(task, way, chosen[way], averaging, seed) for way, averaging, seed in cells])
    rows = []
    for way, averaging in itertools.product(ways, averagings):
        own = [result for cell, result in zip(cells, results, strict=True) if cell[:2] == (way, averaging)]
        rows.append(
            {"problem": name, "method": method, "solver": solver, "restarts": has_restarts, "way": way}
            | {"rate": chosen[way], "averaging": averaging, "steps": task.num_steps}
            | summary(name, own)
        )
    return rows


def summary(name, results):
    """Means over the seeds, and for logistic regression what is known of the minimiser; None for what diverged."""
    row: dict[str, Any] = {
        key: float(np.mean([result[key] for result in results]))
        for key in ("accuracy", "objective", "zeros", "zeros_hat", "last_change", "last_change_hat", "late_changes_hat")
    }
    if not np.isfinite(row["objective"]):
        row["objective"] = None
    row["accuracy_std"] = float(np.std([result["accuracy"] for result in results], ddof=min(1, len(results) - 1)))
    if name == "logistic":
        lowest, living = tasks.minimum()
        right = [np.mean(result["alive_hat"]["dense0/kernel"].ravel() == living) for result in results]
        above = None if row["objective"] is None else row["objective"] - lowest
        row |= {"above_minimum": above, "right": 100 * float(np.mean(right))}
    return row


def parts(small=False, seeds=5):
    """(name, function from the rows so far to new ones) of each program."""
    kinds = (("rmda", "exact"), ("ramda", "exact"), ("ramda", "proximal gradient"))
    programs = [
        (name, *kind, restarts, AVERAGINGS if kind[1] == "exact" else (DEFAULT,))
        for name, kind, restarts in itertools.product(TASKS, kinds, (False, True))
    ]
    programs += [
        (name, method, "exact", True, (OWN_RATE,)) for name, method in itertools.product(TASKS, ("rmda", "ramda"))
    ]
    for name, method, solver, restarts, averagings in programs:
        title = f"{name}, {method}, {solver}, {'restarts' if restarts else 'one sum'}"
        title += f", c: {OWN_RATE}" if OWN_RATE in averagings else ""

        def make(found, cell=(name, method, restarts, solver), averagings=averagings):
            return part(cell, averagings, found, small, seeds)

        yield title, make
