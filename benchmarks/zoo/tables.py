"""What the command prints, and the page in the documents has."""

import re

from tabulate import tabulate

from benchmarks.zoo.check import OUTCOMES, REFUSES, WRONG


def by_family(rows):
    """How many architectures of each family came to what."""
    table = []
    for family in [*dict.fromkeys(row["family"] for row in rows), "all"]:
        outcomes = [row["outcome"] for row in rows if family in (row["family"], "all")]
        table.append([family, len(outcomes), *(outcomes.count(outcome) for outcome in OUTCOMES)])
    return tabulate(table, ["family", "architectures", *OUTCOMES], "github")


def by_architecture(rows):
    """A line for each: entries before, after and at least, and what came of it."""
    table = []
    for row in rows:
        gone = 100 * (1 - row["left"] / row["entries"])
        cells = [row["family"], row["name"], row["library"], f"{row['entries']:,}", f"{row['left']:,}"]
        table.append([*cells, f"{row['least']:,}", f"{gone:.0f} %", row["outcome"]])
    headers = ["family", "architecture", "library", "entries", "left", "least by hand", "gone", "outcome"]
    return tabulate(table, headers, "github", disable_numparse=True)


def reasons(rows):
    """Of those that are not at the least, what the library says, or what is wrong."""
    lines = []
    for row in rows:
        if row["outcome"] in (REFUSES, WRONG) or row["left"] > row["least"]:
            lines.append(f"{row['name']}: {row['wrong'] or row['reason']}")
    return "\n".join(lines)


def differences(rows):
    """The largest of all outputs and gradients that were compared."""
    worst = {key: max(row[key] or 0.0 for row in rows) for key in ("error", "gradient_error", "elsewhere")}
    return (
        f"Largest difference, of the largest entry: {worst['error']:.0e} of outputs, {worst['gradient_error']:.0e} of "
        f"gradients, {worst['elsewhere']:.0e} of outputs in another process."
    )


def times_table(times):
    """How long, and how long it should take at most."""
    table = []
    for row in times:
        refused = "" if row["refused"] is None else str(row["refused"])
        cells = [row["name"], f"{row['params'] / 1e6:,.1f} million", refused]
        table.append([*cells, f"{row['seconds']:.1f}", f"{row['processor_seconds']:.1f}", f"{row['limit']:.0f}"])
    headers = ["what", "entries", "widths refused", "seconds", "of a processor", "at most"]
    return tabulate(table, headers, "github", disable_numparse=True)


def short_reason(text):
    """A reason without the place in the code, which moves."""
    return re.sub(r" \([^()]*\.py:\d+, `.*?`\)", "", text)
