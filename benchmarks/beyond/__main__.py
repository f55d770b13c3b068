"""What the papers leave open: an ablation, the structure over seeds and widths, and a start from a trained net.

    python -m benchmarks.beyond --json docs/beyond.json              # all that is not in the file yet
    python -m benchmarks.beyond --studies structure widths --small   # only shows that it runs

Predictions, questions and answers are in docs/beyond.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.beyond import ablation, dense_start, last_stage, report, structure, widths

STUDIES = {
    "ablation": ablation,
    "last_stage": last_stage,
    "structure": structure,
    "widths": widths,
    "dense_start": dense_start,
}


def main(argv=None):
    """Runs the studies, prints the tables, and writes the rows after each program."""
    parser = argparse.ArgumentParser(description="What each part does, and whose the structure is.")
    parser.add_argument("--studies", nargs="*", choices=STUDIES, default=list(STUDIES), help="default: all")
    parser.add_argument("--parts", nargs="*", default=[""], help="only programs whose names begin so")
    parser.add_argument("--small", action="store_true", help="only show that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the rows; what is there is kept")
    args = parser.parse_args(argv)
    found = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for study in args.studies:
        rows = found.setdefault(study, [])
        for name, make in STUDIES[study].parts(args.small, **({"seeds": 2} if args.small else {})):
            if any(row["part"] == name for row in rows) or not name.startswith(tuple(args.parts)):
                continue
            begin, processor = time.perf_counter(), time.process_time()
            rows += [{"part": name} | row for row in make(rows)]
            seconds = f"{time.perf_counter() - begin:.0f} s, {time.process_time() - processor:.0f} of the processor"
            print(f"{study}, {name}: {seconds}", file=sys.stderr, flush=True)
            if args.json:
                text = ",\n".join(
                    f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in own) + "\n]" for name, own in found.items()
                )
                args.json.write_text("{\n" + text + "\n}\n")
    for study, rows in found.items():
        print(f"\n{study}\n\n{getattr(report, study)(rows)}")


if __name__ == "__main__":
    main()
