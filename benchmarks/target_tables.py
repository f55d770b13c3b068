"""The tables of `benchmarks.targets`."""

import numpy as np
from tabulate import tabulate

#: A share counts as met within this distance.
POINT = 0.01


def tables(rows):
    """All tables of rows, as text."""
    parts = []
    exact = [row for row in rows if row.get("is_exact")]
    rows = [row for row in rows if not row.get("is_exact")]
    for (method, of), mine in _by(rows, "method", "of").items():
        targets = _of_kind(mine, "target")
        parts.append(f"{method}, of={of!r}: what was reached\n\n" + _table(map(_reached, targets)))
        parts.append(f"{method}, of={of!r}: what stayed\n\n" + _table(map(_stayed, targets)))
        parts.append(f"{method}, of={of!r}: accuracy\n\n" + _table(_accuracies(mine)))
    if exact:
        parts.append("met in the last step\n\n" + _table(_exact(row, rows) for row in exact))
    return "\n\n".join(parts)


def _table(rows):
    return tabulate(list(rows), headers="keys", tablefmt="github", floatfmt=".4g", disable_numparse=True)


def _by(rows, *names):
    found = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _of_kind(rows, kind):
    return [row for row in rows if row["kind"] == kind]


def reachable(row):
    """How far a share may be from the target: a point, or half of the largest group if that is more."""
    return max(POINT, row["largest group"] / 2)


def _target(row):
    held = row.get("hold")
    return f"{row['number']:g}" + (", rises" if row["rises"] else "") + (f", held from {held}" if held else "")


def _reached(row):
    share, target = np.asarray(row["share"]), row["number"]
    distance = np.abs(share - target)
    return {
        "problem": row["problem"],
        "steps": str(row["steps"]),
        "target": _target(row),
        "lowest, highest share": f"{share.min():.4f}, {share.max():.4f}",
        "within a point": f"{np.sum(distance <= POINT)} of {len(share)}",
        "or half the largest group": f"{np.sum(distance <= reachable(row))} of {len(share)}",
        "largest group": f"{row['largest group']:.3f}",
        "never active": f"{row['floor']:.3f}",
        "lambdas": f"{min(row['strength']):.2g} to {max(row['strength']):.2g}",
        "moves after hold": f"{int(np.sum(row['moved']))}",
    }


def _exact(row, others):
    """A row with `exact_at`, beside the row that is the same without it."""
    names = ("problem", "method", "kind", "of", "number", "steps", "rises")
    other = next(one for one in others if all(one[name] == row[name] for name in names) and not one.get("hold"))
    reached = _reached(row)
    shown = {name: reached[name] for name in ("problem", "target", "lowest, highest share", "within a point")}
    accuracies = [_mean(of_default_start(one, "accuracy")) for one in (row, other)]
    return shown | dict(zip(("accuracy", "without `exact_at`"), accuracies, strict=True))


def _stayed(row):
    changed, revived, small = (np.asarray(row[name]) for name in ("changed", "revived", "revived_small"))
    return {
        "problem": row["problem"],
        "steps": str(row["steps"]),
        "target": _target(row),
        "runs with a change": f"{np.sum(changed > 0)} of {len(changed)}",
        "groups changed, mean and most": f"{changed.mean():.2g}, {changed.max():.0f}",
        "revived, mean and most": f"{revived.mean():.2g}, {revived.max():.0f}",
        "expected revivals, mean and least": f"{np.mean(row['expected']):.3g}, {np.min(row['expected']):.2g}",
        "runs with more than expected": f"{np.sum(revived > np.asarray(row['expected']))}",
        "revived with a bound of at most 0.05": f"{small.sum():.0f}",
    }


def _accuracies(rows):
    for (problem, steps), mine in _by(rows, "problem", "steps").items():
        dense = _of_kind(mine, "dense")
        sweep = _of_kind(mine, "lambda")
        for row in _of_kind(mine, "target"):
            yield {
                "problem": problem,
                "steps": str(steps),
                "target": _target(row),
                "accuracy": _mean(of_default_start(row, "accuracy")),
                "without zeros": _mean(dense[0]["accuracy"]) if dense else "",
            } | (beside(row, sweep) if sweep else {})


def _mean(values):
    return f"{np.mean(values):.2f} ± {np.std(values):.2f}"


def of_default_start(row, name):
    """What a row has of the runs with the default start of lambda, or with the first: one number for each seed."""
    starts = row["starts"]
    index = starts.index(1e-4) if 1e-4 in starts else 0
    return np.asarray(row[name]).reshape(-1, len(starts))[:, index]


def beside(row, sweep):
    """A target's runs beside a sweep's, seed by seed: a line between the lambdas whose shares are around its own."""
    shares, accuracies = (np.array([one[name] for one in sweep]) for name in ("share", "accuracy"))
    share, accuracy = (of_default_start(row, name) for name in ("share", "accuracy"))
    seeds = min(len(share), shares.shape[1])
    at_share = []
    for seed in range(seeds):
        order = np.argsort(shares[:, seed], kind="stable")
        at_share.append(np.interp(share[seed], shares[order, seed], accuracies[order, seed]))
    difference = accuracy[:seeds] - at_share
    enough = accuracies.mean(1)[shares.mean(1) >= row["number"] - POINT]
    return {
        "sweep at the same share": _mean(at_share),
        "difference": f"{difference.mean():+.2f} ± {difference.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else 0:.2f}",
        "best lambda with at least the share": f"{enough.max():.2f}" if enough.size else "none",
    }
