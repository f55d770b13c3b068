"""The tables and the picture."""

import collections

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate


def gathered(rows):
    """{problem: {method: {keep: rows}}} of the reported runs."""
    found = collections.defaultdict(lambda: collections.defaultdict(lambda: collections.defaultdict(list)))
    for row in rows:
        if "tuning" not in row:
            found[row["problem"]][row["method"]][row["keep"]].append(row)
    return found


def _cell(rows):
    """The mean, and the scores in the order of the seeds; from four seeds on, the standard error and the count."""
    scores = [row["score"] for row in sorted(rows, key=lambda row: row["seed"])]
    # Bits, which are negative, differ in the third digit.
    places = 3 if min(scores) < 0 else 2
    if len(scores) > 3:
        error = np.std(scores, ddof=1) / len(scores) ** 0.5
        return f"{np.mean(scores):.{places}f} ± {error:.{places}f} ({len(scores)})"
    return f"{np.mean(scores):.{places}f} ({' '.join(f'{score:.{places}f}' for score in scores)})"


def tables(rows):
    """The scores, the remaining shares of parameters and FLOPs, and the rates that were tried, in Markdown."""
    parts = []
    for problem, methods in gathered(rows).items():
        keeps = sorted({keep for found in methods.values() for keep in found}, reverse=True)
        scores, left, flops, chosen = [], [], [], []
        for method, found in methods.items():
            scores.append([method, *(_cell(found[keep]) if keep in found else "" for keep in keeps)])
            for table, field in ((left, "left"), (flops, "flops_left")):
                means = (np.mean([row[field] for row in found[keep]]) if keep in found else None for keep in keeps)
                table.append([method, *("" if mean is None else f"{mean:.3f}" for mean in means)])
            choices = (found[keep][0] if keep in found else None for keep in keeps)
            chosen.append([method, *("" if one is None else _choice(one) for one in choices)])
        for title, table in (("score", scores), ("parameters", left), ("FLOPs", flops), ("rate, split, own", chosen)):
            headers = [f"{problem}: {title}", *keeps]
            parts.append(tabulate(table, headers=headers, tablefmt="github", disable_numparse=True))
    checked = [row for row in rows if "check" in row]
    if checked:
        headers = ["rates tried on one tuning seed", "method", "Adam's rate", "own rate over Adam's", "score"]
        shown = [
            [row["problem"], row["method"], f"{row['rate']:.0e}", f"{row.get('ratio', 1):g}", f"{row['score']:.3f}"]
            for row in checked
        ]
        parts.append(tabulate(shown, headers=headers, tablefmt="github", disable_numparse=True))
    return "\n\n".join(parts)


def _choice(row):
    return f"{row['rate']:.0e}, {row['split']:g}" + (f", {row['own']:.2g}" if row["own"] else "")


STYLES = {
    "RAMDA": ("C0", ":"),
    "RAMDA, zeros held": ("C0", "-"),
    "RAMDA in stages, zeros held": ("C0", "--"),
    "ProxAdamW": ("C1", ":"),
    "ProxAdamW, zeros held": ("C1", "-"),
    "hard target, zeros held": ("C4", "-"),
    "magnitude, all": ("C7", ":"),
    "magnitude, by layer": ("C7", "-"),
    "gradual, all": ("C5", ":"),
    "gradual, by layer": ("C5", "-"),
    "penalty": ("C2", "-"),
    "D-Gating": ("C8", "-"),
    "small from scratch": ("C3", "-"),
}


def draw(rows, path):
    """Draws the mean scores over the remaining parameters and FLOPs, with a row of axes for each problem."""
    found = gathered(rows)
    figure = Figure(figsize=(11, 3.6 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 2, squeeze=False, sharey="row")
    for line, (problem, methods) in zip(axes, found.items(), strict=True):
        for ax, field, label in zip(line, ("left", "flops_left"), ("parameters left", "FLOPs left"), strict=True):
            for method, sizes in methods.items():
                if method not in STYLES:
                    continue
                points = sorted(
                    (np.mean([row[field] for row in group]), np.mean([row["score"] for row in group]))
                    for group in sizes.values()
                )
                colour, style = STYLES[method]
                wide = 2.2 if method == "RAMDA, zeros held" else 1.2
                ax.plot(*zip(*points, strict=True), style, color=colour, marker=".", lw=wide, label=method)
            ax.set_xscale("log")
            ticks = (0.03, 0.07, 0.15, 0.3, 0.5)
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
            ax.set_xlabel(label)
            ax.grid(alpha=0.3)
        for group in methods.get("dense", {}).values():
            for ax in line:
                ax.axhline(np.mean([row["score"] for row in group]), color="black", lw=0.8, ls="--")
        bits = max(row["score"] for sizes in methods.values() for group in sizes.values() for row in group) < 0
        line[0].set_ylabel(f"{problem}: " + ("minus bits a character" if bits else "test accuracy, %"))
        scores = [np.mean([row["score"] for row in group]) for sizes in methods.values() for group in sizes.values()]
        low, high = np.quantile(scores, 0.08), max(scores)
        line[0].set_ylim(low - 0.05 * (high - low) - 0.01, high + 0.05 * (high - low) + 0.01)
    axes[0, 1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110)
