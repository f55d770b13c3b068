"""Compares RAMDA with magnitude pruning, a penalty in the loss, D-Gating and small nets from scratch, at equal size.

    python -m benchmarks.alternatives                                        # on the digits that scikit-learn ships
    python -m benchmarks.alternatives --fashion DIR --text DIR --json FILE   # and on these, if their files are there
    python -m benchmarks.alternatives --json FILE --png FILE --problems      # only the tables and the picture

All methods have the same epochs, the same coupled groups and the same budget for tuning. Each ends with a net of at
most a given number of parameters, on which the score is measured. Runs that are in the JSON file are not repeated.
"""

import argparse
import functools
import json
import sys
from pathlib import Path

from benchmarks.alternatives import problems
from benchmarks.alternatives.compare import DENSE, HELD, SCRATCH, check_rates, first_choice, run, tune
from benchmarks.alternatives.methods import METHODS, Choice
from benchmarks.alternatives.report import draw, tables
from benchmarks.alternatives.training import Lab

KEEPS = (0.5, 0.3, 0.15, 0.07)


def experiment(problem_name, lab, methods, keeps, seeds, found, log, tuned):
    """Runs all runs that are not in `found`, and logs their rows."""
    shapes = {
        (row["keep"], row["seed"]): row["shapes"]
        for row in found
        if row["problem"] == problem_name and row["method"] == HELD and "shapes" in row
    }

    for name in methods:
        own = [row for row in found if row["problem"] == problem_name and row["method"] == name]
        sizes = (1.0,) if name == DENSE else keeps
        missing = {(keep, seed) for keep in sizes for seed in seeds} - {
            (row["keep"], row["seed"]) for row in own if "tuning" not in row
        }
        if not missing:
            continue
        chosen = {row["keep"]: Choice(row["rate"], row["split"], row["own"]) for row in own if "tuning" not in row}
        if not set(sizes) <= chosen.keys():
            chosen = tune(lab, name, sizes, log) if tuned else dict.fromkeys(sizes, first_choice(name))
        for keep, seed in sorted(missing):
            small = shapes.get((keep, seed)) if name == SCRATCH else None
            if name == SCRATCH and small is None:
                raise ValueError(f"'{SCRATCH}' must come after '{HELD}', whose widths it uses; give both in order.")
            row, small = run(lab, name, keep, chosen[keep], seed, "test", small)
            if name == HELD:
                shapes[keep, seed] = row["shapes"] = small
            log(row)


def main(argv=None):
    """Runs the problems, prints the tables, and writes them."""
    parser = argparse.ArgumentParser(description="Compares RAMDA with other methods at equal size.")
    parser.add_argument("--fashion", type=Path, metavar="DIR", help="folder of Fashion-MNIST's four published files")
    parser.add_argument("--text", type=Path, metavar="DIR", help="folder of WikiText-2's three files of tokens")
    parser.add_argument("--problems", nargs="*", help="names of problems (default: all that have data)")
    parser.add_argument("--methods", nargs="+", help="names of methods (default: all)")
    parser.add_argument("--keeps", nargs="+", type=float, default=KEEPS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--untuned", action="store_true", help="use the first value of each tuned setting")
    parser.add_argument("--rates", action="store_true", help="only try rates of Adam and of RAMDA, with one seed")
    parser.add_argument("--small", action="store_true", help="tiny runs that only show that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file of the rows; existing rows are kept")
    parser.add_argument("--png", type=Path, metavar="FILE", help="also draw the scores over the sizes into this file")
    args = parser.parse_args(argv)
    found = json.loads(args.json.read_text()) if args.json and args.json.exists() else []

    def log(problem_name, row):
        found.append({"problem": problem_name} | row)
        print({key: value for key, value in found[-1].items() if key != "shapes"}, file=sys.stderr, flush=True)
        if args.json:
            args.json.write_text("[\n" + ",\n".join(json.dumps(row) for row in found) + "\n]\n")

    makers = {"digits": functools.partial(problems.digits, small=args.small)}
    if args.fashion:
        makers["fashion"] = functools.partial(problems.fashion, args.fashion, small=args.small)
    if args.text:
        makers["text"] = functools.partial(problems.text, args.text, small=args.small)
    methods = args.methods or [DENSE, *METHODS, SCRATCH]
    for name, make in makers.items():
        if args.problems is not None and name not in args.problems:
            continue
        own_log = functools.partial(log, name)
        if args.rates:
            check_rates(Lab(make()), own_log)
        else:
            experiment(name, Lab(make()), methods, args.keeps, range(args.seeds), found, own_log, not args.untuned)
    print(tables(found))
    if args.png:
        draw(found, args.png)


if __name__ == "__main__":
    main()
