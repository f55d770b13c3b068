"""The figure of the solver study."""

from matplotlib.figure import Figure


def draw(rows, path):
    """Error against time on the left, iterations against the tolerance on the right."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    points = [row for row in rows if row["study"] == "solvers"]
    names = list(dict.fromkeys(row["solver"] for row in points))
    markers = dict(zip(dict.fromkeys((row["tree"], row["method"]) for row in points), "o^sD", strict=False))
    for number, name in enumerate(names):
        for key, marker in markers.items():
            ours = [row for row in points if row["solver"] == name and (row["tree"], row["method"]) == key]
            label = name if marker == "o" else None
            left.plot(
                [row["ratio"] for row in ours],
                [row["largest_error"] for row in ours],
                marker,
                color=f"C{number}",
                label=label,
            )
    for (tree, method), marker in markers.items():
        left.plot([], [], marker, color="black", fillstyle="none", label=f"{tree}, {method}")
    left.set(xscale="log", yscale="log", xlabel="time, secular Newton = 1", ylabel="worst relative error of the point")
    left.set_title("solvers on recorded subproblems")
    left.legend(fontsize="small")
    for row in rows:
        if row["study"] == "rate":
            right.plot(row["decades"], row["iterations"], "o-", label=f"{row['tree']}, {row['method']}")
    right.set(xlabel="-log10(tolerance / ||rhs||)", ylabel="mean iterations", title="proximal gradient, condition (7)")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=150)
