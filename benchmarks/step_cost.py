"""The cost of an optimizer step: time, memory, compilation and iterations, compared with `optax.adamw`.

    python -m benchmarks.step_cost [--trees NAME ...] [--methods NAME ...] [--regularizers NAME ...]
                                   [--dtypes NAME ...] [--all] [--json FILE] [--small]

It prints a table for each tree and dtype, and works on any device that JAX finds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tabulate import tabulate

import ramda_jax
from benchmarks.optimizers import METHODS, REGULARIZERS
from benchmarks.steps import ROUNDS, WARM_UP, measured
from benchmarks.trees import TREES

DTYPES = ("float32", "bfloat16")
GROUPS = ramda_jax.GroupLasso("input")
# The targets on two cores, in float32: (tree, method, regularizer, field) -> the largest value.
TARGETS = {
    ("resnet50", "rmda", "group_lasso", "ratio"): 2.0,
    ("resnet50", "ramda", "none", "ratio"): 1.3,
    ("resnet50", "ramda", "l1", "ratio"): 1.6,
    ("resnet50", "ramda", "group_lasso", "ratio"): 3.0,
    ("resnet50", "prox_adamw", "group_lasso", "ratio"): 3.0,
    ("resnet50", "ramda", "group_lasso", "temporaries"): 0.5,
    ("small_2000", "ramda", "group_lasso", "compile_ratio"): 3.0,
}
GPU_TARGETS = {("resnet50", "ramda", "group_lasso", "ratio"): 1.5}


def verdicts(row):
    """How the row compares to its targets, as a phrase."""
    targets = TARGETS if row["device"] == "cpu" else GPU_TARGETS
    phrases = []
    for (*key, field), most in targets.items():
        if key == [row["tree"], row["method"], row["regularizer"]] and row["dtype"] == "float32":
            phrases.append(f"{field} at most {most}: {'met' if row[field] <= most else 'missed'}")
    return ", ".join(phrases)


def zero_groups(step):
    """The share of the parameters that lie in zero groups (the columns of a group LASSO) of the structured point."""
    point = ramda_jax.eval_params(step.state, step.params)
    return float(ramda_jax.metrics.weighted_group_sparsity(GROUPS, point))


def print_table(rows, with_targets):
    """The rows of one tree and dtype."""
    first = rows[0]
    adamw = 1e3 * np.median([row["peer_seconds"] for row in rows])
    print(
        f"\n{first['tree']}, {first['dtype']}, {first['device']}: {first['parameters']:,} parameters in "
        f"{first['leaves']:,} leaves; a step of optax.adamw takes {adamw:.2f} ms"
    )
    table = [
        {
            "method": row["method"],
            "regularizer": row["regularizer"],
            "time": f"{row['ratio']:.2f}",
            "\nquartiles": "{:.2f} - {:.2f}".format(*row["ratio_quartiles"]),
            "\nrounds": row["rounds"],
            "temporaries": f"{row['temporaries']:.2f}",
            "peak": f"{row['peak']:.2f}",
            "compile\nseconds": f"{row['compile_seconds']:.1f}",
            "\nratio": f"{row['compile_ratio']:.1f}",
            "fusions": row["fusions"],
            "loops": row["loops"],
            "iterations\nmean": f"{row['iterations']:.1f}",
            "\nmost": row["most_iterations"],
            "zero\ngroups": f"{100 * row['sparsity']:.0f} %",
            "target": verdicts(row) if with_targets else "",
        }
        for row in rows
    ]
    print(tabulate(table, headers="keys", disable_numparse=True), flush=True)


def main(argv=None):
    """Reads the command line, measures, prints the tables; returns the rows."""
    parser = argparse.ArgumentParser(description="What an optimizer step costs beside one of optax.adamw.")
    parser.add_argument("--trees", nargs="+", choices=TREES, help="default: resnet50")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: all but prox_ssi")
    parser.add_argument("--regularizers", nargs="+", choices=REGULARIZERS, help="default: all but the nuclear ones")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, help="default: float32")
    parser.add_argument("--all", action="store_true", help="everything for each of these that is not given")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of the rounds of a row: less than 20 rounds if they take longer"
    )
    parser.add_argument(
        "--warm-up",
        type=int,
        default=WARM_UP,
        help=f"steps before the rounds (default: {WARM_UP})",
    )
    parser.add_argument("--small", action="store_true", help="tiny trees, two rounds: to see that it runs")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args(argv)

    if args.small:
        trees, methods, regularizers, dtypes = ("small_2000",), ("ramda", "rmda"), ("none", "group_lasso"), DTYPES[:1]
    elif args.all:
        trees, methods, regularizers, dtypes = tuple(TREES), METHODS, tuple(REGULARIZERS), DTYPES
    else:
        # This fits into five minutes. prox_ssi is left out, because its step does the same as that of prox_adamw.
        trees, methods = ("resnet50",), tuple(name for name in METHODS if name != "prox_ssi")
        regularizers, dtypes = tuple(name for name in REGULARIZERS if "nuclear" not in name), DTYPES[:1]
    pairs = [(m, r) for m in args.methods or methods for r in args.regularizers or regularizers]
    warm_up, rounds = (2, 2) if args.small else (args.warm_up, ROUNDS)
    rows = []
    for name in args.trees or trees:
        tree = TREES[name](args.small)
        print(f"{name}: gradients {tree.origin}.", flush=True)
        for dtype in args.dtypes or dtypes:
            first = len(rows)
            for row, step in measured(name, tree.astype(dtype), dtype, pairs, args.seconds, warm_up, rounds):
                rows.append(row | {"sparsity": zero_groups(step)})
                print(f"  {row['method']}, {row['regularizer']}: {row['ratio']:.2f}", flush=True)
                if args.json:  # Write after every row, so that an interrupted run keeps its rows.
                    args.json.write_text(json.dumps(rows, indent=1) + "\n")
            print_table(rows[first:], not args.small)
    return rows


if __name__ == "__main__":
    main()
