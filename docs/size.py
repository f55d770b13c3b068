"""The picture in README.md: the score of a network over the parameters that are left, beside other ways to get there.

python -m docs.size            # docs/size.png, from docs/alternatives.json
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.alternatives.report import gathered
from examples.training.figures import save_small

DOCS = Path(__file__).parent
PROBLEMS = {
    "digits": ("digits, conv net", "test accuracy, %"),
    "fashion": ("Fashion-MNIST, conv net", "test accuracy, %"),
    "text": ("WikiText-2, small decoder", "bits (lower is better)"),
}
METHODS = {
    "RAMDA, zeros held": ("RAMDA, then its zeros held", "#d62728"),
    "gradual, by layer": ("gradual magnitude pruning", "#1f77b4"),
    "penalty": ("penalty in the loss", "#2ca02c"),
    "magnitude, by layer": ("one-shot magnitude pruning", "#7f7f7f"),
}
TICKS = (0.07, 0.15, 0.3, 0.5)


def main(path=DOCS / "size.png"):
    """Draws one problem a column: the mean over the seeds, and the dense net as a line."""
    found = gathered(json.loads((DOCS / "alternatives.json").read_text()))
    problems = [name for name in PROBLEMS if name in found]
    figure = Figure(figsize=(3.6 * len(problems), 3.2), layout="constrained")
    columns = figure.subplots(1, len(problems), squeeze=False)[0]
    for axes, name in zip(columns, problems, strict=True):
        title, label = PROBLEMS[name]
        sign = -1 if name == "text" else 1
        for method, (words, colour) in METHODS.items():
            sizes = found[name].get(method, {})
            points = sorted(
                (np.mean([row["left"] for row in rows]), sign * np.mean([row["score"] for row in rows]))
                for rows in sizes.values()
            )
            if points:
                wide = 2.2 if method == "RAMDA, zeros held" else 1.3
                axes.plot(*zip(*points, strict=True), marker=".", color=colour, linewidth=wide, label=words)
        for rows in found[name].get("dense", {}).values():
            axes.axhline(
                sign * np.mean([row["score"] for row in rows]),
                color="black",
                linestyle="--",
                linewidth=0.8,
                label="dense",
            )
        axes.set(xscale="log", xlabel="parameters left", ylabel=label)
        axes.set_title(title, fontweight="bold", fontsize=10)
        axes.set_xticks(TICKS, [f"{tick:.0%}" for tick in TICKS])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    save_small(figure, path, dpi=150)


if __name__ == "__main__":
    main()
