"""Compares the statements of docs/identification.md with observations: logistic regression on scikit-learn's digits.

    python -m benchmarks.identification

The minimiser is known to rounding (`logistic.solve`), and so are its zero groups, their margins and the lengths of the
other groups. There are four studies, each with several seeds in one program:

    average     does the average of gradients approach the gradient at the minimiser, while W changes fast?
    constant    at a constant learning rate: which groups change and how far, compared with the theorems
    reshuffled  the average over shuffled passes, compared with samples drawn with replacement
    last_stage  does a learning rate that decreases in the last stage settle groups that a constant rate does not?

`identification_claims` has four more, on small problems of their own. `--claims` runs these alone.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import ndtr
from tabulate import tabulate

import ramda_jax
from benchmarks.identification_claims import compositions, no_limit, ramda_convex, robust
from benchmarks.noise_ball import linear_model
from benchmarks.watched_runs import (
    BATCH,
    EVERY,
    LASSO,
    STRENGTH,
    batch_noise,
    error_of,
    run,
    setting,
    smoothness,
)

METHODS = {"rmda": ramda_jax.rmda, "ramda": ramda_jax.ramda}


def constant(given, method, learning_rate, averaging, passes, seeds):
    """A row, and rows for the shortest living groups, for runs at a constant rate that start at the minimiser."""
    optimizer = METHODS[method](learning_rate, LASSO, strength=STRENGTH, averaging=averaging)
    schedule = optax.constant_schedule(learning_rate)
    windows = (passes // 4, passes)
    _, (seen, steps, average, _) = run(given, optimizer, schedule, windows, seeds, start=given.params)
    norms, threshold = np.linalg.norm(given.kernel, axis=1), given.problem.group_weight
    living = norms > 0
    model = linear_model(given.problem, given.kernel, given.bias, BATCH)
    hat, iterate = model.deviations(method, learning_rate, averaging)
    share = (seen.zero / steps).mean(axis=0)
    row = {"method": method, "rate": learning_rate, "averaging": averaging}
    row |= {
        "come_and_go_living": int(np.sum(seen.flips.sum(0)[living] > 0)),
        "predicted": int(np.sum(norms[living] < 3.5 * hat)),
        "come_and_go_zero": int(np.sum(seen.flips.sum(0)[~living] > 0)),
        "radius": float(np.sqrt((seen.away[:, living] / steps).mean())),
        "radius_predicted": float(np.sqrt(np.mean(hat**2))),
        "radius_W": float(np.sqrt((seen.iterate_away[:, living] / steps).mean())),
        "radius_W_predicted": float(np.sqrt(np.mean(iterate**2))),
        "sideways": float(np.sqrt((seen.sideways[:, living] / steps).mean())),
        "average_error": float(error_of(given, average).mean()),
    }
    if method == "rmda" and averaging == 1.0:
        # Theorem 3. G^2 is the mean squared norm of a batch's gradient plus lambda times a subgradient, which at W* is
        # only noise. L is the largest curvature.
        noise, curvature = batch_noise(given), smoothness(given)
        gap = float(seen.gap.mean()) / (steps / EVERY)
        slope = float(seen.slope_gap.mean()) / (steps / EVERY)
        row |= {
            "gap": gap,
            "gap_bound": learning_rate * noise / 2,
            "slope_error": np.sqrt(slope) / threshold,
            "slope_bound": np.sqrt(curvature * learning_rate * noise) / threshold,
        }
    groups = []
    for group, (index, deviation) in enumerate(zip(np.flatnonzero(living), hat, strict=True)):
        if norms[index] < 4 * deviation:
            groups.append(
                {key: row[key] for key in ("method", "rate", "averaging")}
                | {
                    "group": int(index),
                    "norm": float(norms[index]),
                    "deviation_predicted": float(hat[group]),
                    "share_zero": float(share[index]),
                    "share_zero_predicted": float(ndtr(-norms[index] / deviation)),
                    "flips_per_1000": float(1000 * seen.flips[:, index].mean() / steps),
                }
            )
    return row, groups


def averages(given, passes, seeds):
    """The error of the average of gradients, and the slow change, for runs that start at zero."""
    rows = []
    for method, rate, power in (
        ("rmda", 1.0, 0.6),
        ("rmda", 0.1, 0.0),
        ("rmda", 10.0, 1.0),
        ("ramda", 0.2, 0.9),
        ("ramda", 0.05, 0.0),
    ):
        schedule = falling(rate, power)
        optimizer = METHODS[method](schedule, LASSO, strength=STRENGTH, averaging=1.0)
        windows = tuple(passes * share // 16 for share in (1, 4, 16))
        for end, (seen, _, average, anchor) in zip(
            windows, run(given, optimizer, schedule, windows, seeds), strict=True
        ):
            row = {"method": method, "rate": rate, "power": power, "t": end * EVERY, "slow": float(seen.slow.mean())}
            row |= {"average_error": float(error_of(given, average).mean()), "anchor": float(anchor.mean())}
            rows.append(row)
    return rows


def falling(rate, power, start=0):
    """The rate times t^-power, where t is counted from `start`."""

    def schedule(step):
        t = jnp.maximum(jnp.asarray(step) - start, 0).astype(jnp.float32) + 1
        return rate * t**-power

    return schedule


def reshuffled(given, passes, seeds):
    """The error of the average at the minimiser, where W hardly moves."""
    rows = []
    windows = tuple(passes * share // 64 for share in (1, 4, 16, 64))
    for shuffled in (False, True):
        optimizer = METHODS["rmda"](1e-6, LASSO, strength=STRENGTH, averaging=1.0)
        schedule = optax.constant_schedule(1e-6)
        found = run(given, optimizer, schedule, windows, seeds, start=given.params, shuffled=shuffled)
        for end, (_, _, average, _) in zip(windows, found, strict=True):
            rows.append(
                {"shuffled": shuffled, "t": end * EVERY, "average_error": float(error_of(given, average).mean())}
            )
    return rows


def last_stages(given, passes, seeds):
    """A first stage, and then a last stage with a constant or a decaying rate."""
    first, rows = passes // 8, []
    last = first * EVERY
    for method, rate, settings in (
        ("rmda", 0.3, ((1.0, 0.0), (0.1, 0.0), (0.01, 0.0), (1.0, 0.4), (1.0, 0.6), (1.0, 0.8))),
        ("ramda", 0.03, ((1.0, 0.0), (0.1, 0.0), (0.01, 0.0), (1.0, 0.6), (1.0, 0.9), (1.0, 1.2))),
    ):
        for factor, power in settings:
            tail = falling(factor * rate, power, last)

            def schedule(step, rate=rate, tail=tail):
                return jnp.where(jnp.asarray(step) < last, rate, tail(step))

            optimizer = METHODS[method](schedule, LASSO, strength=STRENGTH, averaging=1.0, restarts=(last,))
            windows = (first, passes // 2, passes - passes // 10, passes)
            found = run(given, optimizer, schedule, windows, seeds, stage_start=last)
            (seen, steps, _, anchor), norms = found[-1], np.linalg.norm(given.kernel, axis=1)
            rows.append(
                {
                    "method": method,
                    "rate": factor * rate,
                    "power": power,
                    "last_rate": float(schedule(passes * EVERY - 1)),
                    "right_percent": float(100 * seen.right.mean() / steps),
                    "flips_living": float(seen.flips[:, norms > 0].sum(axis=1).mean()),
                    "flips_zero": float(seen.flips[:, norms == 0].sum(axis=1).mean()),
                    "radius": float(np.sqrt((seen.away[:, norms > 0] / steps).mean())),
                    "anchor": float(anchor.mean()),
                }
            )
    return rows


def claims(small):
    """The rows of the studies of `identification_claims`, by their names."""
    return {
        "no_limit": no_limit(512 if small else 16384, 2 if small else 8),
        "ramda_convex": ramda_convex(256 if small else 16384, 2 if small else 4),
        "compositions": compositions(128 if small else 2048, 16),
        "robust": robust(128 if small else 1024, 2),
    }


def write(tables, path):
    """Prints the tables, and adds them to those in the file."""
    for name, rows in tables.items():
        print(f"\n{name}\n" + tabulate(rows, headers="keys", floatfmt=".3g"))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        old = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(old | tables, indent=1) + "\n")


def main(argv=None):
    """Runs the studies, prints the tables, and writes them."""
    parser = argparse.ArgumentParser(description="Predicted and observed identification.")
    parser.add_argument("--seeds", type=int, default=8, help="default: 8")
    parser.add_argument("--small", action="store_true", help="only shows that it runs")
    parser.add_argument("--claims", action="store_true", help="only the studies on small problems")
    parser.add_argument("--json", type=Path, help="also write the rows to this file, beside those of other studies")
    args = parser.parse_args(argv)
    if args.claims:
        return write(claims(args.small), args.json)
    given = setting()
    seeds, passes = (2, 64) if args.small else (args.seeds, 704)
    norms = np.linalg.norm(given.kernel, axis=1)
    margins = 1 - np.linalg.norm(given.slope, axis=1) / given.problem.group_weight
    tables = {"minimiser": [{"living": int(np.sum(norms > 0)), "shortest": float(norms[norms > 0].min())}]}
    tables["minimiser"][0]["smallest_margin"] = float(margins[norms == 0].min())
    rates = [("rmda", 0.1, 1.0)] if args.small else [("rmda", rate, 1.0) for rate in (0.3, 0.1, 0.03, 0.01)]
    rates += [] if args.small else [("rmda", 0.1, 0.1), ("rmda", 0.1, 0.01)]
    rates += [] if args.small else [("ramda", rate, 1.0) for rate in (0.03, 0.01, 0.003)]
    studies = {
        "average": lambda: averages(given, passes, seeds),
        "reshuffled": lambda: reshuffled(given, passes, seeds),
        "last_stage": lambda: last_stages(given, passes, seeds),
    }
    start = time.perf_counter()
    found = [constant(given, *rate, passes, seeds) for rate in rates]
    tables |= {"constant": [row for row, _ in found], "groups": [row for _, rows in found for row in rows]}
    for name in studies if not args.small else ("reshuffled",):
        tables[name] = studies[name]()
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    write(tables if args.small else tables | claims(small=False), args.json)


if __name__ == "__main__":
    main()
