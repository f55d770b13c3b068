"""Runs an experiment of the papers.

    python -m examples.train mnist_logistic --method ramda --data-dir data/mnist
    python -m examples.train --list

Ctrl-C stops it; the same command continues it. Its folder (`--out`) gets the log (log.jsonl), the checkpoint, and at
the end report.json, report.txt and report.png.
"""

import dataclasses
import difflib
import math
import sys
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro
from tabulate import tabulate

from examples.data.errors import DataError
from examples.experiments import CONFIGS, METHODS
from examples.experiments.config import OWN
from examples.training.runner import Run, RunError, train
from examples.training.summary import final_table


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Runs an experiment of the papers; --list prints them all."""

    config: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT", help_behavior_hint="")] = ""
    """One of those that --list prints."""
    method: Literal[METHODS] = "ramda"  # type: ignore[valid-type]
    """The optimizer; --list says which of them the paper ran."""
    data_dir: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="")] = None
    """The data set's own folder; without it a message says what must be in it."""
    scale: float = 1.0
    """Shrinks the steps of every stage alike."""
    batch_size: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: the paper's)")] = None
    """Examples per step."""
    learning_rate_scale: float = 1.0
    """Multiplies the learning rate of every stage: a batch of another size may need another."""
    devices: int = 1
    """Over how many devices each batch is split."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the layers' arithmetic; parameters and optimizer stay in float32."""
    seed: int = 1
    """Of initial weights, order, augmentation and dropout."""
    steps: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: all)")] = None
    """Stop after this number of steps of the schedule, to try it; --scale shortens the schedule itself."""
    valid_batches: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: all)")] = None
    """Evaluate on only this number of batches of the validation split, to try it."""
    out: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: out/EXPERIMENT/METHOD-SEED)")] = None
    """The run's folder."""
    list: bool = False
    """Print the experiments and exit."""


def listing():
    """The experiments, as text: with paper, table and row, and the methods that the paper ran."""
    rows = [
        (
            config.name,
            config.paper,
            config.table,
            config.row,
            " ".join(name for name, method in config.methods.items() if method.source == OWN),
        )
        for config in CONFIGS.values()
    ]
    headers = ["experiment", "paper", "table", "row", "methods with the paper's settings"]
    return tabulate(rows, headers=headers) + (
        "\n\nEvery experiment takes every method; where the paper has no settings, they "
        "are borrowed or ours; examples/experiments/ says from where."
    )


def check(arguments):
    """Raises RunError if an argument is out of its range."""
    if not arguments.scale > 0:
        raise RunError(f"--scale must be above 0, got {arguments.scale}; use 1 for the paper's length.")
    if not 0 < arguments.learning_rate_scale < math.inf:
        raise RunError(f"--learning-rate-scale must be finite and above 0, got {arguments.learning_rate_scale}; use 1.")
    for name in ("batch_size", "devices", "steps", "valid_batches"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise RunError(f"--{name.replace('_', '-')} must be at least 1, got {value}; use 1 or more.")
    batch_size = arguments.batch_size or CONFIGS[arguments.config].batch_size
    if batch_size % arguments.devices:
        raise RunError(
            f"--devices must divide the batch size, got {arguments.devices} for {batch_size}; use another, or another "
            "--batch-size."
        )
    if arguments.seed < 0:
        raise RunError(f"--seed must be at least 0, got {arguments.seed}; use 0 or more.")


def _unknown(name):
    """The message for an experiment that does not exist."""
    if not name:
        return "Name an experiment; `python -m examples.train --list` prints them."
    near = difflib.get_close_matches(name, CONFIGS, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"There is no experiment '{name}'; {hint}`python -m examples.train --list` prints them."


def main(argv=None):
    """Reads the command line and runs; exits with a message if something is missing, and with 130 if it was stopped."""
    settings = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    arguments = tyro.cli(Arguments, args=argv, config=settings, prog="python -m examples.train")
    if arguments.list:
        print(listing())
        return None
    if arguments.config not in CONFIGS:
        raise SystemExit(_unknown(arguments.config))
    try:
        check(arguments)
        if arguments.devices > 1:
            # This must be set before JAX looks for devices. On accelerators it uses the existing ones.
            jax.config.update("jax_num_cpu_devices", arguments.devices)
        settings = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Run)}
        run = Run(**settings)
        source = CONFIGS[run.config].methods[run.method].source
        if source != OWN:
            print(f"The paper has no settings for {run.method} here; these are: {source}.", file=sys.stderr)
        report = train(run, arguments.data_dir, arguments.out)
    except (DataError, RunError) as error:
        raise SystemExit(str(error)) from None
    if report is None:
        print("Stopped; the same command continues.", file=sys.stderr)
        raise SystemExit(130)
    print(final_table(report))
    return report


if __name__ == "__main__":
    main()
