"""The picture in README.md: how much of the weights is in groups at zero, epoch by epoch, by three methods.

python -m docs.sparsity            # docs/sparsity.png, from the reports in docs/results
"""

import json
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from examples.training.figures import COLOURS, save_small

DOCS = Path(__file__).parent
TITLES = {"prox_sgd": "ProxSGD", "prox_adamw": "ProxAdamW", "ramda": "RAMDA"}


def main(path=DOCS / "sparsity.png"):
    """Draws one method a column, of each its structured point: what `eval_params` returns."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    columns = figure.subplots(1, 3, sharey=True)
    for axes, (method, title) in zip(columns, TITLES.items(), strict=True):
        rounds = json.loads((DOCS / "results" / "mnist_logistic" / f"{method}-1.json").read_text())["rounds"]
        axes.plot(rounds["epoch"], rounds["W_hat"], color=COLOURS[method], linewidth=2 if method == "ramda" else 0.7)
        axes.set(xlabel="epoch", ylim=(0, 0.75), xlim=(0, rounds["epoch"][-1]))
        axes.set_title(title, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
    columns[0].set(ylabel="weights in zero groups")
    columns[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    save_small(figure, path, dpi=150)


if __name__ == "__main__":
    main()
