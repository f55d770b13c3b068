"""Solvers of the group LASSO's subproblem, on subproblems recorded from real training.

    python -m benchmarks.solvers [--json FILE] [--png FILE] [--steps N] [--small]

This is the solver study of the RAMDA paper (Tables 1 and 2, Theorem 1) at the size of a laptop, in three tables: the
error and the time of each solver; how the iterations of proximal gradient grow with the accuracy; and whether the
solver matters to the trained net.
"""

import argparse
import dataclasses
import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tabulate import tabulate

import ramda_jax
from benchmarks.plots import draw
from benchmarks.recording import METHODS, NETS, REGULARIZER, Recorder, Trainer
from benchmarks.reference import Exact
from benchmarks.timing import alternate, ratios
from ramda_jax import NewtonRaphson, ProximalGradient, SecularNewton, metrics

# epsilon_1 of condition (7), in the units of the NeurIPS paper's objective: about a hundredth of the first step's
# ||rhs||.
EPSILON = {"ramda": 1e-3, "prox_adamw": 0.3}
EXACT, EARLY, FIXED, CONDITION = "secular Newton", "PG, early stop", "PG, 100 iterations", "PG, condition (7)"


class Unscreened(ramda_jax.GroupLasso):
    """The group LASSO without the test that finds zeros beforehand: proximal gradient has to find them."""

    def screen(self, rhs, weight):
        return None


@dataclasses.dataclass(frozen=True)
class UnscreenedGradient(ProximalGradient):
    """Proximal gradient without the screening."""

    def solve(self, model, regularizer, context):
        assert isinstance(regularizer, ramda_jax.GroupLasso)
        return super().solve(model, Unscreened(regularizer.groups, regularizer.group_weight), context)


@functools.cache
def solvers(method):
    """Maps names to solvers for this method."""
    tolerance = ramda_jax.summable_tolerance(EPSILON[method])
    return {
        EXACT: SecularNewton(),
        "Newton-Raphson (ProxSSI)": NewtonRaphson(),
        "Newton-Raphson, atol 1e-5": NewtonRaphson(atol=1e-5, rtol=1e-5),
        EARLY: ProximalGradient(),
        FIXED: ProximalGradient(rtol=0.0),
        FIXED + ", unscreened": UnscreenedGradient(rtol=0.0),
        FIXED + ", unscreened, a step per leaf": UnscreenedGradient(rtol=0.0, stepsize="leaf"),
        CONDITION: ProximalGradient(max_steps=1000, tolerance=tolerance),
        CONDITION + ", a step per leaf": ProximalGradient(max_steps=1000, tolerance=tolerance, stepsize="leaf"),
    }


@functools.partial(jax.jit, static_argnums=1)
def solve(subproblems, solver):
    """The solutions of all the leaves of one step."""
    return [subproblem.solve(solver) for subproblem in subproblems]


def row(study, tree, method, **values):
    """A row of the JSON file."""
    names = {"study": study, "tree": tree, "method": method, "regularizer": "group_lasso", "dtype": "float32"}
    return names | values


def accuracy_rows(tree, method, names, recorded, rounds):
    """A row for each solver: accuracy, iterations and time over all leaves of all recorded steps."""
    exact = {step: [Exact(subproblem) for subproblem in subproblems] for step, subproblems in recorded.items()}
    chosen = {name: solver for name, solver in solvers(method).items() if name in names}
    solutions, times = {name: [] for name in chosen}, []
    for step, subproblems in recorded.items():
        runs = {name: functools.partial(solve, subproblems, solver) for name, solver in chosen.items()}
        times.append(ratios(alternate(runs, rounds), EXACT))
        for name, run in runs.items():
            solutions[name] += zip(exact[step], run(), strict=True)
    rows = []
    for name, pairs in solutions.items():
        compared = [exact_solution.compare(solution.value) for exact_solution, solution in pairs]
        iterations = [int(solution.num_steps) for _, solution in pairs]
        quarter, median, three_quarters = np.quantile(
            np.concatenate([seconds[name] for seconds in times]), (0.25, 0.5, 0.75)
        )
        values = {
            "iterations": float(np.mean(iterations)),
            "most_iterations": max(iterations),
            "converged": float(np.mean([solution.converged for _, solution in pairs])),
            "ratio": float(median),
            "ratio_quartiles": [float(quarter), float(three_quarters)],
            "kkt_residual": max(measured["kkt_residual"] for measured in compared),
            "error": float(np.nanmedian([measured["error"] for measured in compared])),
            "largest_error": float(np.nanmax([measured["error"] for measured in compared])),
        }
        counts = {key: sum(measured[key] for measured in compared) for key in ("zeros", "zeros_missed", "zeros_false")}
        rows.append(row("solvers", tree, method, solver=name, subproblems=len(pairs), **values, **counts))
    return rows


# The tolerance is given as the step, which is traced, so that all tolerances share one compilation.
RATE_SOLVER = ProximalGradient(max_steps=1_000_000, tolerance=lambda step: step)


def rate_row(tree, method, recorded, decades):
    """Iterations of proximal gradient in float64 until condition (7) holds with tolerance = 10^-k ||rhs||."""
    iterations = []
    with jax.enable_x64(True):
        for subproblem in itertools.chain.from_iterable(recorded.values()):
            subproblem = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), subproblem)
            subproblem = dataclasses.replace(
                subproblem, share=1.0, model=subproblem.model._replace(objective_scale=jnp.ones([]))
            )
            size = jnp.linalg.norm(subproblem.model.rhs)
            asked = [dataclasses.replace(subproblem, step=10.0**-k * size) for k in decades]
            iterations.append([int(solve([problem], RATE_SOLVER)[0].num_steps) for problem in asked])
    # Fit lines to the second half: the theorem is about small tolerances, and slow modes do not show before.
    x = np.array(decades)[len(decades) // 2 :]
    counts = np.array(iterations, float)[:, len(decades) // 2 :]
    lines = [np.polyfit(x, y, 1) for y in counts]
    fits = [np.corrcoef(np.polyval(line, x), y)[0, 1] ** 2 for line, y in zip(lines, counts, strict=True)]
    steps = np.diff(counts, axis=1)
    values = {
        "iterations_per_decade": float(np.mean([line[0] for line in lines])),
        "r_squared": float(np.median(fits)),
        "least_r_squared": float(np.min(fits)),
        "growth": float(np.median(steps[:, -1] / steps[:, -2])),
        "largest_growth": float(np.max(steps[:, -1] / steps[:, -2])),
    }
    mean = np.mean(iterations, axis=0).tolist()
    return row("rate", tree, method, decades=list(decades), iterations=mean, **values) | {"dtype": "float64"}


def training_rows(tree, method, names, steps, seeds, width):
    """One row for each solver: the results of a net trained with it; all have the same nets and batches."""
    rows = []
    for name in names:
        trainer = Trainer(tree, method, steps, solvers(method)[name], width)
        runs = [trainer.run(seed) for seed in range(seeds)]
        structured = [ramda_jax.eval_params(run.state, run.params) for run in runs]
        values = {
            "accuracy": [run.accuracy for run in runs],
            "sparsity": [float(metrics.weighted_group_sparsity(REGULARIZER, run.params)) for run in runs],
            "sparsity_eval": [float(metrics.weighted_group_sparsity(REGULARIZER, point)) for point in structured],
            "iterations": float(np.mean([run.iterations for run in runs])),
        }
        rows.append(row("training", tree, method, solver=name, steps=steps, **values))
    return rows


def print_tables(rows):
    """The three tables."""

    def select(study):
        return [row for row in rows if row["study"] == study]

    def spread(values):
        return f"{100 * np.mean(values):.1f} ± {100 * np.std(values):.1f}"

    print("\nSolvers on recorded subproblems (time: median and quartiles, secular Newton = 1; errors are relative)")
    table = [
        [r["tree"], r["method"], r["solver"], f"{r['iterations']:.1f}", r["most_iterations"]]
        + [
            f"{100 * r['converged']:.0f} %",
            "{:.1f}".format(r["ratio"]),
            "{:.1f} - {:.1f}".format(*r["ratio_quartiles"]),
        ]
        + [f"{r[key]:.0e}" for key in ("kkt_residual", "error", "largest_error")]
        + [f"{r['zeros_missed']} of {r['zeros']}", r["zeros_false"]]
        for r in select("solvers")
    ]
    headers = ["net", "method", "solver", "iterations\nmean", "\nmost", "rule\nmet", "time", "\nquartiles"]
    headers += ["KKT residual\nworst", "error\nmedian", "\nworst", "zeros\nmissed", "false\nzeros"]
    print(tabulate(table, headers, disable_numparse=True))

    print("\nTheorem 1: mean iterations of proximal gradient until condition (7) holds with tolerance 10^-k ||rhs||")
    print("(b, R^2: of lines a + b k through the second half of the columns, one for each subproblem; growth: the last")
    print("decade's extra iterations over those of the decade before, 1 if logarithmic, 10 if like 1 / tolerance)")
    fits = ("r_squared", "least_r_squared", "growth", "largest_growth")
    table = [
        [r["tree"], r["method"], *(f"{count:.0f}" for count in (*r["iterations"], r["iterations_per_decade"]))]
        + [f"{r[key]:.3f}" for key in fits]
        for r in select("rate")
    ]
    headers = ["net", "method", *(f"k = {k}" for r in select("rate")[:1] for k in r["decades"])]
    headers += ["b\nmean", "R^2\nmedian", "\nleast", "growth\nmedian", "\nmost"]
    print(tabulate(table, headers, disable_numparse=True))

    print("\nTrained with each solver (accuracy and weighted group sparsity in %, mean ± deviation over the seeds)")
    table = [
        [r["tree"], r["method"], r["solver"], f"{r['iterations']:.1f}"]
        + [spread(r[key]) for key in ("accuracy", "sparsity", "sparsity_eval")]
        for r in select("training")
    ]
    headers = ["net", "method", "solver", "iterations\nper step", "test\naccuracy", "sparsity\nof W"]
    headers += ["sparsity\nof eval_params"]
    print(tabulate(table, headers, disable_numparse=True))


def main(argv=None):
    """Reads the command line, runs the three studies, prints their tables; returns the rows."""
    parser = argparse.ArgumentParser(description="Solvers on subproblems of real training.")
    parser.add_argument("--steps", type=int, default=300, help="training steps (default: 300)")
    parser.add_argument(
        "--small", action="store_true", help="RAMDA on a narrow MLP, few solvers, one round: to see that it runs"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--png", type=Path, help="draw the first two tables into this file")
    args = parser.parse_args(argv)

    nets, width, rounds, seeds = (("mlp",), 16, 1, 1) if args.small else (tuple(NETS), None, 5, 3)
    methods = ("ramda",) if args.small else tuple(METHODS)
    compared = (EXACT, EARLY, CONDITION) if args.small else tuple(solvers(methods[0]))
    trained_with = (EXACT,) if args.small else (EXACT, EARLY, FIXED, CONDITION)
    decades = range(1, 7 if args.small else 10)
    record_at = sorted({step for step in (1, 10, 100, args.steps) if step <= args.steps})
    print(f"Recording at steps {', '.join(map(str, record_at))} of trainings on scikit-learn's digits.", flush=True)
    rows = []
    for tree in nets:
        for method in methods:
            recorded = Trainer(tree, method, args.steps, Recorder(), width).run(record_at=record_at).recorded
            rows += accuracy_rows(tree, method, compared, recorded, rounds)
            rows.append(rate_row(tree, method, recorded, decades))
    for method in methods:
        rows += training_rows(nets[0], method, trained_with, args.steps, seeds, width)
    print_tables(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if args.png:
        draw(rows, args.png)
    return rows


if __name__ == "__main__":
    main()
