"""The figures of a single run, and of all methods of experiments side by side."""

import io

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from examples.experiments import METHODS

PAPER_LABELS = {"weighted": "weighted group sparsity", "kernel": "kernel-wise sparsity", "low_rank": "low-rank level"}
#: Methods that average have warm colours.
COLOURS = dict(
    zip(
        METHODS,
        ("#d62728", "#ff7f0e", "#1f77b4", "#2ca02c", "#17becf", "#7f7f7f", "#bcbd22", "#8c564b", "#9467bd"),
        strict=True,
    )
)


def draw(report, file):
    """Draws metric and sparsity over the epochs, with the last fifth enlarged on the right, into a PNG file."""
    metric, measure, rounds = report["metric"], report["measure"], report["rounds"]
    epochs = rounds["epoch"]
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", width_ratios=(3, 2))
    for (top, bottom), first in zip(axes.T, (0, len(epochs) * 4 // 5), strict=True):
        top.plot(epochs[first:], rounds[metric][first:], ".-", color="tab:blue", markersize=3)
        for which, style in (("W_hat", "-"), ("W", "--")):
            bottom.plot(epochs[first:], rounds[which][first:], style, label=which)
        bottom.set_xlabel("epoch")
        bottom.yaxis.set_major_formatter(PercentFormatter(1.0))
        if metric == "accuracy":
            top.yaxis.set_major_formatter(PercentFormatter(1.0))
    for end in report["stage_ends"]:
        for axis in axes[:, 0]:
            axis.axvline(end / report["steps_per_epoch"], color="lightgray", linestyle=":", zorder=0)
    axes[0, 0].set(ylabel=metric, title=f"{report['config']}, {report['method']} (dotted: a stage ends)")
    axes[0, 1].set(title="the last fifth")
    axes[1, 0].set(ylabel=PAPER_LABELS[measure])
    axes[1, 0].legend()
    figure.savefig(file, dpi=120, format="png")


def draw_runs(reports, path):
    """Draws a column for each experiment: its structure over the epochs, and the number of groups of W that changed.

    Each seed has a line. The structure of W is a solid line, and that of W_hat, for methods that average, a dashed
    line. The last fifth is grey.
    """
    configs = list(dict.fromkeys(report["config"] for report in reports))
    figure = Figure(figsize=(1 + 5.5 * len(configs), 7), layout="constrained")
    axes = figure.subplots(2, len(configs), squeeze=False, sharex="col")
    lines = {}
    for (top, bottom), config in zip(axes.T, configs, strict=True):
        # Methods that average are drawn last, on top.
        runs = sorted(
            (report for report in reports if report["config"] == config),
            key=lambda report: -METHODS.index(report["method"]),
        )
        first = runs[0]
        known = first["identified"] is not None
        prefix = "identified_" if known else ""
        for report in runs:
            method, rounds = report["method"], report["rounds"]
            style = {"color": COLOURS[method], "linewidth": 1.0, "alpha": 0.8}
            (lines[method],) = top.plot(rounds["epoch"], rounds[prefix + "W"], **style)
            if rounds[prefix + "W"] != rounds[prefix + "W_hat"]:
                top.plot(rounds["epoch"], rounds[prefix + "W_hat"], "--", **style)
            bottom.plot(rounds["epoch"], rounds["changed_W"], **style)
        top.set(title=config, ylabel="groups as in the truth" if known else PAPER_LABELS[first["measure"]])
        top.yaxis.set_major_formatter(PercentFormatter(1.0))
        bottom.set(xlabel="epoch", ylabel="changes of groups of W in an epoch")
        bottom.set_yscale("symlog", linthresh=1)
        bottom.set_ylim(bottom=0)
        end = first["rounds"]["epoch"][-1]
        for axis in (top, bottom):
            axis.axvspan(0.8 * end, end, color="gainsboro", zorder=0)
    shown = [method for method in METHODS if method in lines]
    figure.legend(
        [lines[method] for method in shown],
        shown,
        title="W (dashed: W_hat)",
        loc="outside lower center",
        ncols=len(shown),
    )
    save_small(figure, path, dpi=100)


def save_small(figure, path, dpi):
    """Saves a figure in 64 colours: hundreds of noisy epochs in full colour would be half a megabyte."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(path, optimize=True)
