"""The tables of docs/beyond.md."""

import collections

import numpy as np
from tabulate import tabulate

from benchmarks.beyond.ablation import AVERAGINGS, DEFAULT, OWN_RATE

WAYS = {"constant": "constant", "falls": "falls", "in steps": "in steps", "falls at the end": "in steps, then falls"}


def ablation(rows):
    """Three tables: the way of the rate and restarts, the averaging, the solver."""
    exact = [row for row in rows if row["solver"] == "exact"]
    default = [row for row in exact if row["averaging"] == DEFAULT]
    inexact = {_cell_of(row): row for row in rows if row["solver"] != "exact"}
    pairs = [(row, inexact[_cell_of(row)]) for row in default if _cell_of(row) in inexact]
    return "\n\n".join([_stages(default), _averaging(exact), _solvers(pairs)])


def _cell_of(row):
    return row["problem"], row["method"], row["restarts"], row["way"]


def _named(row):
    return [row["problem"], f"`{row['method']}`", "yes" if row["restarts"] else "no", WAYS[row["way"]]]


def _accuracy(row):
    return f"{row['accuracy']:.2f} ± {row['accuracy_std']:.2f}"


def _stages(rows):
    cells = [
        [
            *_named(row), f"{row['rate']:g}", _accuracy(row), _objective(row), f"{row['zeros']:.1f}", _right(row),
            f"{row['last_change_hat'] / row['steps']:.2f}", f"{row['late_changes_hat']:,.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    heads = [
        "problem", "method", "restarts", "rate", "first rate", "accuracy", "objective", "zeros", "right groups",
        "last change", "late changes",
    ]  # fmt: skip
    return _table(cells, heads)


def _averaging(rows):
    found = collections.defaultdict(dict)
    for row in rows:
        found[_cell_of(row)][row["averaging"]] = row
    cells = []
    for own in found.values():
        line = _named(own[DEFAULT])
        for name in (*AVERAGINGS, OWN_RATE):
            row = own.get(name)
            rate = f"{row['rate']:g}: " if row and name == OWN_RATE else ""
            line.append(
                f"{rate}{_objective(row)}; {row['zeros']:.1f} / {row['zeros_hat']:.1f}; {row['accuracy']:.1f}"
                if row
                else ""
            )
        cells.append(line)
    heads = ["problem", "method", "restarts", "rate", *(f"c: {name}" for name in (*AVERAGINGS, OWN_RATE))]
    return _table(cells, heads)


def _solvers(pairs):
    cells = [
        [
            *_named(exact),
            *(" / ".join(show(row) for row in (exact, inexact)) for show in (_accuracy, _objective)),
            f"{exact['zeros']:.2f} / {inexact['zeros']:.2f}",
            f"{exact['late_changes_hat']:,.0f} / {inexact['late_changes_hat']:,.0f}",
        ]
        for exact, inexact in pairs
    ]
    heads = ["problem", "method", "restarts", "rate", "accuracy, exact / inexact", "objective", "zeros", "late changes"]
    return _table(cells, heads)


def last_stage(rows):
    """A row for each last stage, a column for each first rate."""
    found = collections.defaultdict(dict)
    for row in rows:
        found[row["problem"], row["method"], row["steps"], row["factor"], row["power"]][row["rate"]] = row
    cells = []
    for (problem, method, steps, factor, power), own in found.items():
        shown = f"{factor:g} eta" + (f" t^-{power:g}" if power else "")
        by_rate = [own[rate] for rate in sorted(own, reverse=True)]
        line = [problem, f"`{method}`", f"{steps:,}", shown, ", ".join(f"{row['rate']:g}" for row in by_rate)]
        line += [" / ".join(_objective(row) for row in by_rate)]
        line += [" / ".join(f"{row['accuracy']:.1f}" for row in by_rate)]
        line += [" / ".join(f"{row['zeros']:.1f}" for row in by_rate)]
        line += [" / ".join(_right(row) or "-" for row in by_rate)]
        line += [" / ".join(f"{row['late_changes_hat']:,.0f}" for row in by_rate)]
        cells.append(line)
    heads = [
        "problem", "method", "steps", "last stage", "first rates eta", "objective", "accuracy", "zeros",
        "right groups", "late changes",
    ]  # fmt: skip
    return _table(cells, heads)


def _objective(row):
    if row["objective"] is None:
        return "diverged"
    return f"{row['above_minimum']:.1e}" if "above_minimum" in row else f"{row['objective']:.4f}"


def _right(row):
    return f"{row['right']:.1f}" if "right" in row else ""


def structure(rows):
    """A row for each kind of group."""
    cells = [
        [
            row["net"], f"{row['target']:g}", row["groups"], row["of"], " ".join(map(str, row["widths"])),
            f"{row['overlap']:.2f} ({row['least']:.2f} to {row['most']:.2f})", f"{row['chance']:.2f}",
            f"{row['chance_by_channel']:.2f}" if "chance_by_channel" in row else "",
            f"{row['by_variance']:.2f}" if "by_variance" in row else "",
            f"{row['similarity']:.2f}, {row['similarity_chance']:.2f}" if "similarity" in row else "",
            f"{row['accuracy']:.1f}",
        ]
        for row in sorted(rows, key=lambda row: (row["net"] == "kernels", row["target"]))
    ]  # fmt: skip
    heads = [
        "net", "target", "groups", "of", "alive, by seed", "overlap", "by chance", "by chance, channels kept",
        "with the largest variances", "correlation, with untrained units", "accuracy",
    ]  # fmt: skip
    return _table(cells, heads)


def widths(rows):
    """A row for each width and layer."""

    def margin(row, kind):
        median, share = row[f"{kind}_differing_median_margin"], row[f"{kind}_differing_degenerate"]
        return "" if median is None else f"{100 * median:.1f}, {share:.0f}"

    cells = [
        [
            row["width"], row["groups"], row["of"], f"{row['alive']:.1f} ({row['alive_least']} to {row['alive_most']})",
            " ".join(f"{100 * margin:.0f}" for margin in row["margins"]), f"{row['degenerate']:.1f}",
            f"{row['zero_activity']:.2f}" if "zero_activity" in row else "",
            f"{row['same_start_differ']:.1f}", f"{row['same_start_overlap']:.2f}, {row['same_start_chance']:.2f}",
            margin(row, "same_start"),
            f"{row['other_start_differ']:.1f}" if "other_start_differ" in row else "",
            f"{row['other_start_overlap']:.2f}, {row['other_start_chance']:.2f}" if "other_start_differ" in row else "",
            f"{row['accuracy']:.1f}",
        ]
        for row in rows
    ]  # fmt: skip
    heads = [
        "width", "groups", "of", "alive", "margins", "degenerate", "activity of zero units", "one start: differ",
        "overlap, chance", "median margin of these, degenerate", "other starts: differ", "overlap, chance", "accuracy",
    ]  # fmt: skip
    return _table(cells, heads)


def dense_start(rows):
    """A row for each plan and rate."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        found[row["plan"], row["rate"]][row["keep"]].append(row)
    keeps = sorted({row["keep"] for row in rows}, reverse=True)
    cells = []
    for (plan, rate), own in found.items():
        line = [plan, f"{rate:.0e}"]
        for keep in keeps:
            if keep not in own:
                line += ["", "", ""]
                continue
            accuracies = [row["accuracy"] for row in own[keep]]
            line += [f"{np.mean(accuracies):.2f} ({' '.join(f'{one:.2f}' for one in accuracies)})"]
            means = (np.mean([row[name] for row in own[keep]]) for name in ("left_before", "left"))
            line += [" / ".join(f"{mean:.3f}" for mean in means)]
            line += [f"{np.mean([row['zeros'] for row in own[keep]]):.1f}"]
        cells.append(line)
    heads = ["phases", "RAMDA's rate"]
    for keep in keeps:
        heads += [f"{keep:g}: accuracy", "left, found / trimmed", "zero groups"]
    return _table(cells, heads)


def _table(cells, heads):
    return tabulate(cells, headers=heads, tablefmt="github", disable_numparse=True)
