"""How the cost of a step, relative to `optax.adamw`, changes with the numbers of parameters and of leaves.

    python -m benchmarks.scaling [--all] [--methods NAME ...] [--json FILE] [--small]

It uses generated matrices and gradients, the group LASSO and float32. One study has ten square leaves of growing size,
the other a growing number of small leaves of four shapes.
"""

import argparse
import json
import math
from pathlib import Path

from tabulate import tabulate

from benchmarks.optimizers import METHODS
from benchmarks.steps import ROUNDS, WARM_UP, measured
from benchmarks.trees import generated, small_leaves

LEAVES = 10
COMPARED = ("ramda", "rmda")
SIZES, ALL_SIZES = (10**4, 10**5, 10**6, 10**7), (10**8,)
COUNTS, ALL_COUNTS = (1, 10, 100, 500), (2000, 5000)
# The largest factor by which the ratios from 1e6 parameters on may differ.
MOST_CHANGE = 1.5


def square_leaves(parameters):
    """Ten square matrices with about `parameters` entries in all."""
    side = round(math.sqrt(parameters / LEAVES))
    return generated([(side, side)] * LEAVES)


def print_tables(rows):
    """A table of the parameters, one of the leaves."""
    for name, title in {"square_leaves": f"{LEAVES} square leaves", "small_leaves": "small leaves"}.items():
        table = [
            {
                "method": row["method"],
                "parameters": f"{row['parameters']:,}",
                "leaves": f"{row['leaves']:,}",
                "adamw\nms": f"{1e3 * row['peer_seconds']:.2f}",
                "time": f"{row['ratio']:.2f}",
                "\nquartiles": "{:.2f} - {:.2f}".format(*row["ratio_quartiles"]),
                "\nrounds": row["rounds"],
                "temporaries": f"{row['temporaries']:.2f}",
                "compile\nseconds": f"{row['compile_seconds']:.1f}",
                "\nratio": f"{row['compile_ratio']:.1f}",
                "fusions": row["fusions"],
                "iterations\nmean": f"{row['iterations']:.1f}",
                "\nmost": row["most_iterations"],
            }
            for row in sorted(rows, key=lambda row: row["method"])
            if row["tree"] == name
        ]
        if not table:
            continue
        print(f"\n{title}, group LASSO, float32; times and compile ratios are relative to optax.adamw at the same size")
        print(tabulate(table, headers="keys", disable_numparse=True), flush=True)
    for method in dict.fromkeys(row["method"] for row in rows):
        ours = [row for row in rows if row["method"] == method and row["tree"] == "square_leaves"]
        large = [row["ratio"] for row in ours if row["parameters"] > 0.9e6]
        if len(large) > 1:
            change, last = max(large) / min(large), max(row["parameters"] for row in ours)
            verdict = "met" if change <= MOST_CHANGE else "missed"
            print(f"{method}, 1e6 to {last:.0e} parameters: changes by {change:.2f}, at most {MOST_CHANGE}: {verdict}")


def main(argv=None):
    """Reads the command line, measures, prints the tables; returns the rows."""
    parser = argparse.ArgumentParser(description="The cost of a step against the number of parameters and leaves.")
    parser.add_argument("--all", action="store_true", help="also 1e8 parameters, and 2,000 and 5,000 leaves")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=COMPARED, help="default: ramda rmda")
    parser.add_argument("--studies", nargs="+", choices=("parameters", "leaves"), default=("parameters", "leaves"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of the rounds of a row, as in step_cost")
    parser.add_argument("--small", action="store_true", help="two tiny trees, two rounds: to see that it runs")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args(argv)

    sizes, counts = SIZES + ALL_SIZES * args.all, COUNTS + ALL_COUNTS * args.all
    warm_up, rounds = WARM_UP, ROUNDS
    if args.small:
        sizes, counts, warm_up, rounds = (10**3,), (2,), 2, 2
    studies = {
        "parameters": [("square_leaves", square_leaves, size) for size in sizes],
        "leaves": [("small_leaves", small_leaves, count) for count in counts],
    }
    pairs = [(method, "group_lasso") for method in args.methods]
    rows = []
    for name, make_tree, size in (case for study in args.studies for case in studies[study]):
        for row, _ in measured(name, make_tree(size), "float32", pairs, args.seconds, warm_up, rounds):
            rows.append(row)
            print(f"  {name}, {size:,}, {row['method']}: {row['ratio']:.2f}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1) + "\n")
    print_tables(rows)
    return rows


if __name__ == "__main__":
    main()
