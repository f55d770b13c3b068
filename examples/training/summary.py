"""A run's table and figure."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from tabulate import tabulate

from examples.training.measures import MEASURES

PAPER_LABELS = {"weighted": "weighted group sparsity", "kernel": "kernel-wise sparsity", "low_rank": "low-rank level"}


def number(metric, value):
    """A metric as the papers print it: accuracies in percent."""
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.4g}"


def final_table(report):
    """The report as text."""
    metric = report["metric"]
    best = report["best_" + metric.replace(" ", "_")]
    rows = [
        (metric, number(metric, report[metric]), report["reported"]["metric"]),
        (f"best {metric} (epoch {best['epoch']:.4g})", number(metric, best["value"]), ""),
    ]
    for name, label in MEASURES.items():
        if name in report["sparsity_W"]:
            paper = report["reported"]["sparsity"] if name == report["measure"] else ""
            rows.append((f"{label}, W", f"{report['sparsity_W'][name]:.2%}", paper))
            rows.append((f"{label}, W_hat", f"{report['sparsity_W_hat'][name]:.2%}", ""))
    if report["identified"]:
        rows += [
            (f"groups as in the truth, {which}", f"{share:.2%}", "") for which, share in report["identified"].items()
        ]
    if report["last_change_epoch_W"] is not None:
        rows.append(("last epoch in which a step changed a group of W", report["last_change_epoch_W"], ""))
    what = "a rank" if report["measure"] == "low_rank" else "a group"
    rows.append(
        (f"last epoch at whose end {what} of W_hat had changed", f"{report['last_change_epoch_W_hat']:.4g}", "")
    )
    if report["objective"] is not None:
        rows.append(("objective at W", f"{report['objective']:.6f}", ""))
    rows.append(("training loss of the last epoch", f"{report['training_loss']:.4g}", ""))
    rows.append(("seconds per epoch (median)", f"{report['seconds_per_epoch']:.3g}", ""))
    rows.append(("seconds", f"{report['seconds']:.0f}", ""))
    head = f"{report['config']}, {report['method']}, seed {report['seed']}, {report['steps']} steps"
    source = f"{report['paper']}, {report['table']}"
    return head + "\n" + tabulate(rows, headers=["", "ours", source], disable_numparse=True)


def draw(report, rounds, path):
    """Metric and sparsity over the epochs; on the right the last fifth close up."""
    metric, measure = report["metric"], report["measure"]
    epochs = np.array([record["epoch"] for record in rounds])
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", width_ratios=(3, 2))
    for (top, bottom), first in zip(axes.T, (0, len(rounds) * 4 // 5), strict=True):
        shown = rounds[first:]
        top.plot(epochs[first:], [record[metric] for record in shown], ".-", color="tab:blue", markersize=3)
        for which, style in (("W_hat", "-"), ("W", "--")):
            values = [record[which].get(measure, 0.0) for record in shown]
            bottom.plot(epochs[first:], values, style, label=which)
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
    figure.savefig(path, dpi=120)
