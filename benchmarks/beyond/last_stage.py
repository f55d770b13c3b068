"""A last stage with a constant or a falling rate, for first rates that suit and for ones that are too high or low."""

import itertools

import numpy as np

from benchmarks.beyond.ablation import DEFAULT, TASKS, averagings_of, ends_of, summary, trainer
from benchmarks.beyond.runs import Run, many

#: (factor of the first rate, power by which it falls) in the last stage; `stages` has the first one.
SETTINGS = ((1e-3, 0.0), (0.1, 0.0), (1.0, 0.0), (1.0, 0.6), (0.1, 0.6))
MORE = {"logistic": ((1e-2, 0.0), (0.01, 0.6), (1.0, 0.9)), "conv": ()}
RATES = {"rmda": (10.0, 1.0, 0.1), "ramda": (0.3, 0.03, 0.003)}


def rates_of(factor, power, num_steps):
    """The learning rates by step, of a first rate of 1."""
    step, ends = np.arange(num_steps), ends_of(num_steps)
    in_last = np.maximum(step - ends[-1] + 1.0, 1)
    return np.where(step < ends[-1], 0.1 ** np.searchsorted(ends, step, side="right"), factor * in_last**-power)


def part(name, method, length, small, seeds):
    """The rows of one program."""
    task = TASKS[name](small)
    task = task._replace(num_steps=round(length * task.num_steps))
    steps = task.num_steps
    averagings = averagings_of(DEFAULT, steps).astype(np.float32)
    pairs = list(itertools.product(RATES[method], SETTINGS[::3] if small else SETTINGS + MORE[name]))
    cells = list(itertools.product(pairs, range(seeds)))
    runs = [
        Run((rate * rates_of(*setting, steps)).astype(np.float32), averagings, seed, seed)
        for (rate, setting), seed in cells
    ]
    results = many(trainer(task, method, ends_of(steps), None), runs)
    rows = []
    for rate, (factor, power) in pairs:
        own = [result for cell, result in zip(cells, results, strict=True) if cell[0] == (rate, (factor, power))]
        row = {"problem": name, "method": method, "steps": steps, "rate": rate, "factor": factor, "power": power}
        rows.append(row | summary(name, own))
    return rows


def parts(small=False, seeds=3):
    """(name, function from the rows so far to new ones) of each program."""
    lengths = {"logistic": (0.25, 1.0), "conv": (1.0,)}
    for name, method in itertools.product(TASKS, RATES):
        for length in lengths[name]:

            def make(found, name=name, method=method, length=length):
                del found
                return part(name, method, length, small, seeds)

            yield f"{name}, {method}, {length:g}", make
