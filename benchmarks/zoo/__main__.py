"""Compares what compaction leaves of each architecture of the zoo with the least that an expert would leave.

    python -m benchmarks.zoo [NAME ...] [--family NAME] [--times] [--small] [--json FILE]

In each architecture 40 % of all removable units are zero, at places that are written down by hand. The command compacts
it as a user would do it, compares it with the whole model on fresh inputs, with another batch size and by its
gradients, saves it, and rebuilds it in another process. Then it measures three times.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

from tabulate import tabulate

from benchmarks.zoo import tables
from benchmarks.zoo.check import check_entry
from benchmarks.zoo.elsewhere import another_process
from benchmarks.zoo.entries import ENTRIES, FAMILIES
from benchmarks.zoo.times import measure

#: One architecture of each library.
FEW = ("MLP", "MLP, two outputs", "deep sets", "experts, dispatched")


def check_all(names, folder, elsewhere):
    """A row for each architecture; another process rebuilds all of them (`elsewhere.another_process`)."""
    rows = []
    for name in names:
        family, entry = ENTRIES[name]
        row = check_entry(family, name, entry, folder / name)
        print(f"{name}: {row.entries} entries, {row.left} left, at least {row.least}", row.wrong, flush=True)
        rows.append(row)
    errors = elsewhere(folder)
    for row in rows:
        found = errors.get(row.name)
        if isinstance(found, str):
            row.wrong = row.wrong or f"in another process: {found}"
        elif found is not None:
            row.elsewhere = found
            if not found <= ENTRIES[row.name][1].tolerance:
                row.wrong = row.wrong or f"in another process outputs differ by {found:.1e}"
    return [
        {"study": "zoo", **dataclasses.asdict(row), "tolerance": ENTRIES[row.name][1].tolerance, "outcome": row.outcome}
        for row in rows
    ]


def print_tables(rows):
    """Prints all results."""
    zoo, times = ([row for row in rows if row["study"] == study] for study in ("zoo", "time"))
    found = [tables.by_architecture(zoo), tables.by_family(zoo)] * bool(zoo) + [tables.by_time(times)] * bool(times)
    for headers, table in found:
        print(f"\n{tabulate(table, headers, disable_numparse=True)}")
    if zoo:
        print("", tables.differences(zoo), *tables.reasons(zoo), sep="\n")


def main(arguments=None):
    """Runs the command; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures; all of them by default")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="those of a family")
    parser.add_argument("--times", action="store_true", help="only the times")
    parser.add_argument("--small", action="store_true", help="a few, and times of tiny nets: only shows that it runs")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in ENTRIES]:
        parser.error(f"the names must be among {list(ENTRIES)}, got {unknown}")
    names = options.names + [name for family in options.family or () for name in FAMILIES[family]]
    chosen = bool(names)
    if not chosen and not options.times:
        names = FEW if options.small else list(ENTRIES)
    rows = []
    if names:
        with tempfile.TemporaryDirectory() as folder, another_process() as elsewhere:
            rows = check_all(names, Path(folder), elsewhere)
    if options.times or not chosen:
        rows += [{"study": "time", **dataclasses.asdict(one)} for one in measure(options.small)]
    print_tables(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
