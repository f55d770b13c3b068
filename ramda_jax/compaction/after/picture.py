"""The report as a picture."""

import math
from pathlib import Path

from ramda_jax.compaction.after.report import Report


def draw_report(report: Report, path: str | Path) -> None:
    """Draws the remaining share of each cost and of each width to a PNG file.

    Args:
        report: from `compaction_report`.
        path: the path of the file.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the extra `examples` brings it.
    """
    from matplotlib.figure import Figure

    before, after = report.before, report.after
    costs = [
        ("parameters", before.params, after.params),
        ("bytes", before.bytes, after.bytes),
        ("FLOPs", before.flops, after.flops),
        ("latency", before.seconds, after.seconds),
    ]
    costs = [(name, a, b) for name, a, b in costs if not math.isnan(a) and not math.isnan(b)]
    # Do not use pyplot, which would open windows and keep figures.
    figure = Figure(figsize=(9, 1.5 + 0.3 * max(len(costs), len(report.widths))), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [name for name, _, _ in costs]
    shares = [100 * b / a for _, a, b in costs]
    bars = left.barh(names, shares, color="tab:blue")
    left.bar_label(bars, labels=[f"{share:.1f} %" for share in shares], padding=3)
    left.set_xlim(0, 115)
    left.set_xlabel("left of the whole model, %")
    labels = [f"{name}: {alive} of {size}" for name, alive, size in report.widths]
    right.barh(labels, [1.0] * len(labels), color="lightgrey")
    right.barh(labels, [alive / size for _, alive, size in report.widths], color="tab:orange")
    right.set_xlabel("alive channels, units, heads")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    if report.weighted_group_sparsity is not None:
        figure.suptitle(f"weighted group sparsity {report.weighted_group_sparsity:.1%} before compaction")
    figure.savefig(path, dpi=120)
