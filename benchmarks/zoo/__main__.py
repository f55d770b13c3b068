"""What compaction leaves of each architecture of the zoo, beside the least that an expert would leave.

python -m benchmarks.zoo [NAME ...] [--json FILE] [--family NAME]
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

from benchmarks.zoo.check import OUTCOMES, check_entry
from benchmarks.zoo.entries import FAMILIES

ROOT = Path(__file__).parents[2]


def check(names, folder):
    """A row for each architecture, all of them made again in one process."""
    rows = []
    for family, entries in FAMILIES.items():
        for name in names:
            if name in entries:
                row = check_entry(family, name, entries[name], folder / name)
                print(f"{name}: {row.params[0]} -> {row.params[1]}, least {row.least}", row.wrong, flush=True)
                rows.append(row)
    command = [sys.executable, "-m", "benchmarks.zoo.elsewhere", str(folder)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    elsewhere = json.loads((folder / "elsewhere.json").read_text())
    for row in rows:
        found = elsewhere.get(row.name)
        row.elsewhere = found if isinstance(found, float) else None
        if isinstance(found, str):
            row.wrong = row.wrong or f"in another process: {found}"
        elif found is not None and not found <= FAMILIES[row.family][row.name].tolerance:
            row.wrong = row.wrong or f"in another process outputs differ by {found:.1e}"
    return rows


def print_tables(rows):
    """A row for each architecture, and how many came to what by family."""
    table = []
    for row in rows:
        before, after = row.params
        cells = [row.family, row.name, row.library, before, after, row.least, f"{row.error:.0e}"]
        cells += [f"{row.gradient_error:.0e}", "" if row.elsewhere is None else f"{row.elsewhere:.0e}"]
        table.append([*cells, f"{row.seconds:.1f}", row.outcome])
    headers = ["family", "architecture", "library", "entries", "left", "least", "outputs", "gradients", "elsewhere"]
    print(tabulate(table, [*headers, "seconds", "outcome"], disable_numparse=True))
    for row in rows:
        if row.reason or row.wrong:
            print(f"\n{row.name}: {row.wrong}\n    {row.reason[:2000]}")
    print()
    families = dict.fromkeys(row.family for row in rows)
    counts = [
        [family, *(sum(r.family == family and r.outcome == o for r in rows) for o in OUTCOMES)] for family in families
    ]
    counts.append(["all", *(sum(r.outcome == o for r in rows) for o in OUTCOMES)])
    print(tabulate(counts, ["family", *OUTCOMES]))


def main(arguments=None):
    """Runs the command; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="architectures; all of them by default")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="only these")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args(arguments)
    every = [
        name
        for family, entries in FAMILIES.items()
        for name in entries
        if not options.family or family in options.family
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows = check(options.names or every, Path(folder))
    print_tables(rows)
    if options.json:
        found = [dataclasses.asdict(row) | {"outcome": row.outcome} for row in rows]
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
