"""Joins runs into a Markdown table: mean and standard deviation over seeds, next to the paper's row.

    python -m examples.report out/mnist_logistic --figure out/mnist_logistic.png

Each argument is a report, or a folder that is searched for reports. `W / W_hat` are the parameters and the structured
point. The last change, for each seed, is the last epoch in which a step made a group of W zero or nonzero. For W_hat,
and for ranks, it is the last epoch whose end differed from the end before.
"""

import dataclasses
import itertools
import json
import statistics
from pathlib import Path
from typing import Annotated

import tyro
from tabulate import tabulate

from examples.experiments import METHODS
from examples.training.errors import one_line
from examples.training.figures import draw_runs
from examples.training.measures import MEASURES

#: The papers' measures, in the order of the columns.
COLUMNS = {"weighted": "weighted", "kernel": "kernel-wise", "low_rank": "low-rank level"}
#: The parts of the steps' losses that are shown for runs that are too short to show anything else.
FIRST, LAST = slice(0, 5), slice(-5, None)

#: Entries of a report in which the runs of a table agree, and other entries for a line.
SETTING = ("config", "scale", "stops_after", "batch_size", "dtype", "valid_batches")
NEEDED = (
    *("method", "seed", "metric", "measure", "paper", "table", "row", "reported", "steps", "steps_per_epoch"),
    *("sparsity_W_hat", "sparsest_epoch", "identified", "last_change_epoch_W", "last_change_epoch_W_hat"),
    *("step_losses", "seconds_per_epoch", "seconds", "rounds"),
)


def find(places):
    """The reports in files and folders, as plain data.

    Raises:
        SystemExit: there are no reports; a file cannot be read, and must not be left out of a mean silently; a run
            occurs twice.
    """
    reports = {}
    for path in itertools.chain.from_iterable(map(_paths, places)):
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise SystemExit(
                f"{path} must be JSON that can be read, but is not ({one_line(error)}); delete it, and the command of "
                "its run makes it again."
            ) from None
        if isinstance(content, dict) and "sparsity_W" in content:
            _check(path, content)
            key = json.dumps([_setting(content), content["method"], content["seed"]])
            if key in reports:
                raise SystemExit(
                    f"{reports[key][0]} and {path} must be of two runs, but have the same settings and seed; name one."
                )
            reports[key] = (path, content)
    if not reports:
        raise SystemExit(
            f"There is no report in {', '.join(map(str, places))}; `python -m examples.train` writes them."
        )
    return [content for _, content in reports.values()]


def _paths(place):
    if not place.is_dir():
        return [place] if place.exists() else []
    # JSON files in a checkpoint are not reports.
    return [path for path in sorted(place.rglob("*.json")) if "checkpoint" not in path.relative_to(place).parts[:-1]]


def _check(path, report):
    lacks = [name for name in (*SETTING, *NEEDED) if name not in report]
    if not lacks and report["method"] not in METHODS:
        lacks = [f"a known method, got {report['method']!r}"]
    if lacks:
        raise SystemExit(f"{path} must be a report of `python -m examples.train`, but lacks {', '.join(lacks)}.")


def _setting(report):
    """The settings that the runs of a table have in common."""
    # Reports from before that option have the paper's rate.
    return [*(report[name] for name in SETTING), report.get("learning_rate_scale", 1.0)]


def spread(values, factor=1.0, digits=2):
    """`mean ± standard deviation` (of the sample) of some numbers, or a single number alone."""
    values = [factor * value for value in values]
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def row(method, reports):
    """A line of the table, of the runs of one method that differ in their seeds only."""
    first = reports[0]
    metric = first["metric"]
    is_share = metric == "accuracy"

    def both(key, name):
        return " / ".join(
            spread([report[f"{key}_{which}"][name] for report in reports], 100) for which in ("W", "W_hat")
        )

    line = {
        "method": method,
        "seeds": ", ".join(str(report["seed"]) for report in reports),
        f"{metric}, paper": first["reported"]["metric"],
        metric: spread([report[metric] for report in reports], 100 if is_share else 1, 2 if is_share else 4),
        "sparsity, paper": first["reported"]["sparsity"],
    }
    for name, label in COLUMNS.items():
        if name in first["sparsity_W"]:
            line[f"{label}, W / W_hat"] = both("sparsity", name)
    # The papers print the best epoch of some methods.
    line["sparsest epoch of W"] = spread([report["sparsest_epoch"]["W"] for report in reports], 100)
    if first["identified"]:
        shares = (spread([report["identified"][which] for report in reports], 100) for which in ("W", "W_hat"))
        line["groups as in the truth, W / W_hat"] = " / ".join(shares)
    for which in ("W", "W_hat"):
        changes = [report[f"last_change_epoch_{which}"] for report in reports]
        line[f"last change of {which}"] = ", ".join(f"{change:.4g}" for change in changes)
    if first["step_losses"]:
        losses = [report["step_losses"] for report in reports]
        line["loss of the first / the last steps"] = " / ".join(
            f"{statistics.mean(loss for one in losses for _, loss in one[part]):.4g}" for part in (FIRST, LAST)
        )
    line["seconds per epoch"] = f"{statistics.median(report['seconds_per_epoch'] for report in reports):.3g}"
    line["minutes"] = spread([report["seconds"] / 60 for report in reports], digits=1)
    return line


def tables(reports):
    """A Markdown table for each experiment and scale, with a head line."""
    groups = {}
    for report in sorted(
        reports, key=lambda report: (report["config"], METHODS.index(report["method"]), report["seed"])
    ):
        groups.setdefault(tuple(_setting(report)), {}).setdefault(report["method"], []).append(report)
    for (config, scale, _, batch_size, dtype, valid_batches, learning_rate_scale), methods in groups.items():
        first = next(iter(methods.values()))[0]
        epochs = first["steps"] / first["steps_per_epoch"]
        # Each stage is shortened separately, so methods with other stages may have a few steps more or less.
        lengths = sorted({run["steps"] for runs in methods.values() for run in runs})
        steps = " to ".join(map(str, dict.fromkeys((lengths[0], lengths[-1]))))
        notes = [f"{steps} steps ({epochs:.4g} epochs)", f"scale {scale:g}", f"batch size {batch_size}", dtype]
        if learning_rate_scale != 1:
            notes.append(f"{learning_rate_scale:g} times the learning rates")
        if first["stops_after"]:
            notes.append("the first steps of the schedule")
        if valid_batches:
            notes.append(f"measured on {valid_batches} of the validation batches")
        source = f"{first['paper']}, {first['table']}, {first['row']}"
        if first["table"] == "none":
            source = "not in the papers: " + first["row"].removeprefix("none ").strip("()")
        has_paper = any(runs[0]["reported"]["sparsity"] != "-" for runs in methods.values())
        measure = f"The paper's sparsity is {MEASURES[first['measure']]}; all" if has_paper else "All"
        yield f"**{config}** ({source}): {', '.join(notes)}. {measure} shares in percent."
        yield tabulate(
            [row(method, runs) for method, runs in methods.items()],
            headers="keys",
            tablefmt="github",
            disable_numparse=True,
        )


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Joins runs into Markdown tables, and into a figure."""

    dirs: Annotated[list[Path], tyro.conf.Positional, tyro.conf.arg(help_behavior_hint="(required)")]
    """Reports, or folders of them."""
    figure: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: no figure)")] = None
    """Where to draw the structure and its changes over the epochs, one column for each experiment."""


def main(argv=None):
    """Reads the command line, prints the tables and draws the figure."""
    settings = (tyro.conf.DisallowNone,)
    arguments = tyro.cli(Arguments, args=argv, config=settings, prog="python -m examples.report")
    if not arguments.dirs:
        raise SystemExit("Name reports or folders of them, such as `python -m examples.report docs/results`.")
    reports = find(arguments.dirs)
    print("\n\n".join(tables(reports)))
    if arguments.figure is not None:
        draw_runs(reports, arguments.figure)


if __name__ == "__main__":
    main()
