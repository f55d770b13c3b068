"""Joins runs into a Markdown table: mean and standard deviation over seeds, the paper's row beside ours.

    python -m examples.report out/mnist_logistic

Each argument is a report, or a folder in which they are looked for.
"""

import json
import statistics
from pathlib import Path
from typing import Annotated

import tyro
from tabulate import tabulate

from examples.experiments import METHODS
from examples.training.measures import MEASURES


def find(places):
    """The reports in files and folders, as plain data."""
    paths = []
    for place in places:
        paths += [place] if place.is_file() else sorted(place.rglob("*.json"))
    reports = []
    for path in paths:
        content = json.loads(path.read_text())
        if isinstance(content, dict) and "sparsity_W" in content:
            reports.append(content)
    if not reports:
        raise SystemExit(
            f"There is no report in {', '.join(map(str, places))}; `python -m examples.train` writes them."
        )
    return reports


def spread(values, factor=1.0, digits=2):
    """`mean ± standard deviation` (of the sample) of some numbers; the number alone where there is one."""
    values = [factor * value for value in values]
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def row(method, reports):
    """A line of the table, of the runs of one method that differ in their seeds only."""
    first = reports[0]
    metric, measure = first["metric"], first["measure"]
    is_share = metric == "accuracy"
    line = {
        "method": method,
        "seeds": ", ".join(str(report["seed"]) for report in reports),
        f"{metric}, paper": first["reported"]["metric"],
        metric: spread([report[metric] for report in reports], 100 if is_share else 1, 2 if is_share else 4),
        "sparsity, paper": first["reported"]["sparsity"],
        "sparsity of W": spread([report["sparsity_W"][measure] for report in reports], 100),
        "sparsity of W_hat": spread([report["sparsity_W_hat"][measure] for report in reports], 100),
    }
    if first["identified"]:
        for which in ("W", "W_hat"):
            line[f"groups as in the truth, {which}"] = spread([one["identified"][which] for one in reports], 100)
    for which in ("W", "W_hat"):
        changes = [report[f"last_change_epoch_{which}"] for report in reports]
        line[f"last change of {which}"] = ", ".join("-" if change is None else f"{change:.4g}" for change in changes)
    line["seconds per epoch"] = f"{statistics.median(report['seconds_per_epoch'] for report in reports):.3g}"
    return line


def tables(reports):
    """A Markdown table for each experiment and scale, with a head line."""
    groups = {}
    for report in sorted(
        reports, key=lambda report: (report["config"], METHODS.index(report["method"]), report["seed"])
    ):
        key = tuple(report[name] for name in ("config", "scale", "batch_size", "dtype"))
        groups.setdefault(key, {}).setdefault(report["method"], []).append(report)
    for (config, scale, batch_size, dtype), methods in groups.items():
        first = next(iter(methods.values()))[0]
        epochs = first["steps"] / first["steps_per_epoch"]
        yield (
            f"**{config}** ({first['paper']}, {first['table']}, {first['row']}): {epochs:.4g} epochs (scale {scale:g}),"
            f" batch size {batch_size}, {dtype}. Sparsity is {MEASURES[first['measure']]}, in percent; the last change"
            " is the last epoch in which any group changed, for each seed."
        )
        yield tabulate(
            [row(method, runs) for method, runs in methods.items()],
            headers="keys",
            tablefmt="github",
            disable_numparse=True,
        )


def main(argv=None):
    """Reads the command line and prints the tables."""
    places = tyro.cli(
        Annotated[list[Path], tyro.conf.Positional, tyro.conf.arg(name="dirs", help="reports, or folders of them")],
        args=argv,
        prog="python -m examples.report",
    )
    print("\n\n".join(tables(find(places))))


if __name__ == "__main__":
    main()
