"""A run's report: as data and as a table."""

import itertools
import json
import math
import platform
import statistics

import jax
from tabulate import tabulate

from examples.training.measures import MEASURES


def make_report(run, trainer, log, objective):
    """The results of the run (a dict of its arguments) as plain data. Shares are fractions."""
    task, plan, config, rounds = trainer.task, trainer.plan, trainer.config, log.rounds
    method = run["method"]
    last = rounds[-1]
    best = best_round(rounds, task.metric, task.higher_is_better)
    steps_per_epoch = trainer.data.steps_per_epoch
    changed_W, changed_hat = (
        max((record["epoch"] for record in rounds if record[which]), default=0)
        for which in ("changed_W", "changed_hat")
    )
    metric, sparsity = config.reported.get(method, ("-", "-"))
    sparsest = {which: max(record[which].get(config.measure, 0.0) for record in rounds) for which in ("W", "W_hat")}
    # Ranks are compared only at the ends of rounds.
    by_step = "low_rank" not in last["W"]
    return {
        **run,
        "batch_size": trainer.batch_size,
        "paper": config.paper,
        "table": config.table,
        "row": config.row,
        "settings": config.methods[method].as_dict(),
        "stops_after": run["steps"],
        "steps": last["step"],
        "steps_per_epoch": steps_per_epoch,
        "stage_ends": [end for end in plan.ends if end < last["step"]],
        "metric": task.metric,
        "measure": config.measure,
        task.metric: last[task.metric],
        "best_" + task.metric.replace(" ", "_"): {"value": best[task.metric], "epoch": best["epoch"]},
        "training_loss": last["loss"],
        "objective": objective,
        "sparsity_W": last["W"],
        "sparsity_W_hat": last["W_hat"],
        "sparsest_epoch": sparsest,
        "identified": last.get("identified"),
        "last_change_step_W": last["last_change_step"] if by_step else None,
        "last_change_epoch_W": -(-last["last_change_step"] // steps_per_epoch) if by_step else changed_W,
        "last_change_epoch_W_hat": changed_hat,
        "changes_of_W_last_rounds": [record["changed_W"] for record in rounds[-10:]],
        "seconds": sum(record["seconds"] for record in rounds),
        "seconds_per_epoch": statistics.median(
            record["seconds"] * steps_per_epoch / steps for record, steps in zip(rounds, _steps(rounds), strict=True)
        ),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "jax": jax.__version__,
        "reported": {"metric": metric, "sparsity": sparsity},
        "rounds": series(rounds, task.metric, config.measure),
        # A trial of a few steps has little else to report.
        "step_losses": [[record["step"], _short(record["loss"])] for record in log.steps] if run["steps"] else None,
    }


def best_round(rounds, metric, higher_is_better):
    """The record with the best metric; NaN only if all have it (a comparison with NaN is False)."""
    known = [record for record in rounds if not math.isnan(record[metric])]
    return (max if higher_is_better else min)(known or rounds, key=lambda record: record[metric])


def series(rounds, metric, measure):
    """The series that are drawn over the epochs, as columns."""
    series = {name: [_short(record[name]) for record in rounds] for name in ("epoch", metric, "loss", "changed_W")}
    for which in ("W", "W_hat"):
        series[which] = [_short(record[which].get(measure, 0.0)) for record in rounds]
        if "identified" in rounds[0]:
            series[f"identified_{which}"] = [_short(record["identified"][which]) for record in rounds]
    return series


def _short(value):
    return float(f"{value:.5g}")


def as_text(report):
    """The report as JSON, with a line for each entry."""
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in report.items()) + "\n}\n"


def _steps(rounds):
    ends = [0, *(record["step"] for record in rounds)]
    return [b - a for a, b in itertools.pairwise(ends)]


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
    of_W, of_hat = (f"{report[f'last_change_epoch_{which}']:.4g}" for which in ("W", "W_hat"))
    if report["last_change_step_W"] is None:
        rows.append(("last epoch at whose end a rank of W had changed", of_W, ""))
        rows.append(("last epoch at whose end a rank of W_hat had changed", of_hat, ""))
    else:
        rows.append(("last epoch in which a step changed a group of W", of_W, ""))
        rows.append(("last epoch at whose end a group of W_hat had changed", of_hat, ""))
    if report["objective"] is not None:
        rows.append(("objective at W", f"{report['objective']:.6f}", ""))
    rows.append(("training loss of the last epoch", f"{report['training_loss']:.4g}", ""))
    rows.append(("seconds per epoch (median)", f"{report['seconds_per_epoch']:.3g}", ""))
    rows.append(("seconds", f"{report['seconds']:.0f}", ""))
    head = f"{report['config']}, {report['method']}, seed {report['seed']}, {report['steps']} steps"
    source = f"{report['paper']}, {report['table']}"
    return head + "\n" + tabulate(rows, headers=["", "ours", source], disable_numparse=True)
