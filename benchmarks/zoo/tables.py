"""The tables that the command prints and that are in the documents, as (headers, rows)."""

import re

from benchmarks.zoo.check import OUTCOMES

_PLACE = re.compile(r" \([^()`]*\.py:\d+, `.*?`\)")


def by_family(rows):
    """The number of architectures of each family with each outcome."""
    table = []
    for family in [*dict.fromkeys(row["family"] for row in rows), "all"]:
        outcomes = [row["outcome"] for row in rows if family in (row["family"], "all")]
        table.append([family, str(len(outcomes)), *(str(outcomes.count(outcome)) for outcome in OUTCOMES)])
    return ["family", "architectures", *OUTCOMES], table


def by_architecture(rows):
    """A line for each architecture: entries before, after and at least, and the outcome."""
    table = []
    for row in rows:
        removed = f"{100 * (1 - row['left'] / row['entries']):.0f} %"
        numbers = (f"{row[key]:,}" for key in ("entries", "left", "least"))
        table.append([row["family"], row["name"], row["library"], *numbers, removed, row["outcome"]])
    return ["family", "architecture", "library", "entries", "left", "least", "removed", "outcome"], table


def by_time(rows):
    """The times, and their limits."""
    table = []
    for row in rows:
        refused = "" if row["refused"] is None else str(row["refused"])
        times = (f"{row['seconds']:.1f}", f"{row['processor_seconds']:.1f}", f"{row['limit']:.0f}")
        table.append([row["name"], f"{row['params'] / 1e6:,.1f} million", refused, *times])
    return ["what", "entries", "widths that had to stay", "seconds", "of a processor", "at most"], table


def reasons(rows):
    """Lines about architectures above the least: what is wrong, or the library's reason, without lines of files."""
    left = [row for row in rows if row["wrong"] or row["left"] > row["least"]]
    return [f"{row['name']}: {row['wrong'] or _PLACE.sub('', row['reason'])}" for row in left]


def differences(rows):
    """The largest differences of the outputs and gradients that were compared, except in bfloat16."""
    rows = [row for row in rows if row["tolerance"] < 1e-3]
    worst = (
        [max(row[key] or 0.0 for row in rows) for key in ("error", "gradient_error", "elsewhere")] if rows else [0] * 3
    )
    return "Largest differences: {:.0e} of outputs, {:.0e} of gradients, {:.0e} of outputs elsewhere".format(*worst)


def markdown(headers, rows):
    """A table in Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
