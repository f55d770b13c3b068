"""A run from beginning to end: trains, measures, logs, stops and continues, reports."""

import contextlib
import dataclasses
import itertools
import json
import platform
import signal
import statistics
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from tqdm import tqdm

from examples.experiments import CONFIGS
from examples.training.checkpoints import Checkpoints
from examples.training.loop import Trainer
from examples.training.summary import draw, final_table

CHECKPOINT_SECONDS = 300


class RunError(Exception):
    """The run cannot be as it was asked for; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What identifies a run; two runs of equal settings are the same run.

    Attributes:
        config, method: what and how.
        scale: of the number of steps.
        batch_size: None for the experiment's.
        devices: over which a batch is split.
        dtype: of the layers' arithmetic; the parameters are float32.
        seed: of data order, augmentation, dropout and initial weights.
    """

    config: str
    method: str
    scale: float = 1.0
    batch_size: int | None = None
    devices: int = 1
    dtype: str = "float32"
    seed: int = 1

    @property
    def name(self):
        """`config/method-seed`."""
        return f"{self.config}/{self.method}-{self.seed}"


class Stopper:
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop; the second interrupts at once."""

    def __init__(self):
        self.wanted = False

    def __call__(self):
        return self.wanted

    @contextlib.contextmanager
    def listening(self):
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def handle(number, frame):
            if self.wanted:
                raise KeyboardInterrupt
            self.wanted = True

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Log:
    """The run's records, one JSON object a line; those of steps that were lost in a crash are dropped."""

    def __init__(self, path, steps):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:  # the line that a killed run was writing
                break
        self.records = [record for record in records if record["step"] <= steps]
        path.write_text("".join(json.dumps(record) + "\n" for record in self.records))

    def add(self, record):
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    @property
    def rounds(self):
        """The records of ends of rounds."""
        return [record for record in self.records if "W" in record]


def train(run: Run, data_dir=None, out=None, config=None, stopper=None):
    """Trains until the end or until it is stopped.

    Args:
        run: what to do.
        data_dir: the data set's own folder.
        out: the run's folder; None for `out/CONFIG/METHOD-SEED`.
        config: in place of the experiment of that name, for another size of model.
        stopper: asked between steps; None for the signals.

    Returns:
        The report, or None where it was stopped; the same call then continues.

    Raises:
        RunError: the folder holds another run, or the devices are not there.
        DataError: as the loaders.
    """
    out = Path(out or Path("out") / run.name)
    if jax.device_count() < run.devices:
        raise RunError(f"--devices must be at most the {jax.device_count()} that there are, got {run.devices}.")
    claim(out, run)
    config = config or CONFIGS[run.config]
    trainer = Trainer(
        config,
        run.method,
        data_dir,
        scale=run.scale,
        batch_size=run.batch_size,
        devices=run.devices,
        dtype=jnp.dtype(run.dtype),
        seed=run.seed,
    )
    stopper = stopper or Stopper()
    with Checkpoints(out / "checkpoint") as checkpoints, stopper.listening():
        state, seconds = trainer.init(), 0.0
        taken = checkpoints.latest or 0
        if taken:
            state, seconds = checkpoints.restore(state)
        log = Log(out / "log.jsonl", taken)
        state, taken = _rounds(trainer, state, taken, seconds, log, checkpoints, stopper)
        if taken < trainer.plan.total or not log.rounds or log.rounds[-1]["step"] < taken:
            return None
        report = make_report(run, trainer, log.rounds, trainer.objective(state))
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "report.txt").write_text(final_table(report) + "\n")
    draw(report, log.rounds, out / "report.png")
    return report


def _rounds(trainer, state, taken, seconds, log, checkpoints, stopper):
    plan = trainer.plan
    often = max(1, min(plan.per_round, plan.total) // 20)
    saved_at = time.monotonic()
    done = log.rounds[-1]["step"] if log.rounds else 0
    with tqdm(total=plan.total, initial=taken, desc=trainer.method, unit="step", mininterval=1) as progress:
        # A run that was stopped between a round's last step and its evaluation still has that to do.
        while not stopper() and done < plan.total:
            first = done
            last = min(plan.total, first + plan.per_round)
            start = time.perf_counter()

            def on_step(number, loss):
                nonlocal saved_at
                progress.update(number - progress.n)
                if loss is not None and (number % often == 0 or number == 1):
                    log.add({"step": number, "loss": float(loss)})

            while taken < last and not stopper():
                # In pieces, so that a long round is saved too.
                until = last if trainer.config.scan else min(last, taken + often)
                state, taken = trainer.run_round(state, taken, until, stopper, on_step)
                if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                    jax.block_until_ready(state.params)
                    checkpoints.save(taken, state, seconds + time.perf_counter() - start)
                    saved_at = time.monotonic()
            jax.block_until_ready(state.params)
            seconds += time.perf_counter() - start
            if taken < last:
                break
            loss = float(state.loss_sum) / (last - first)
            record, state = trainer.evaluate(state)
            epochs = taken / trainer.data.steps_per_epoch
            log.add({"step": taken, "epoch": epochs, "loss": loss, "seconds": seconds, **record})
            progress.set_postfix(_postfix(record, trainer), refresh=False)
            done, seconds = taken, 0.0
        checkpoints.save(taken, state, seconds)
    return state, taken


def _postfix(record, trainer):
    measure = trainer.config.measure
    return {
        trainer.task.metric: f"{record[trainer.task.metric]:.4g}",
        "W": f"{record['W'].get(measure, 0):.1%}",
        "W_hat": f"{record['W_hat'].get(measure, 0):.1%}",
    }


def claim(out, run):
    """Makes the folder `run`'s own; raises where it is another's."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "run.json"
    mine = dataclasses.asdict(run)
    if not path.exists():
        path.write_text(json.dumps(mine, indent=2) + "\n")
        return
    theirs = json.loads(path.read_text())
    different = [f"{key} {theirs.get(key)!r}, not {mine[key]!r}" for key in mine if theirs.get(key) != mine[key]]
    if different:
        raise RunError(
            f"{out} holds another run ({'; '.join(different)}); use another --out, or delete the folder to start anew."
        )


def make_report(run, trainer, rounds, objective):
    """What the run has come to, as plain data; shares as fractions."""
    task, plan, config = trainer.task, trainer.plan, trainer.config
    method = config.methods[run.method]
    last = rounds[-1]
    best = (max if task.higher_is_better else min)(rounds, key=lambda record: record[task.metric])
    steps_per_epoch = trainer.data.steps_per_epoch
    changed = [record["epoch"] for record in rounds if record["changed_hat"]]
    metric, sparsity = config.reported.get(run.method, ("-", "-"))
    sparsest = {which: max(record[which].get(config.measure, 0.0) for record in rounds) for which in ("W", "W_hat")}
    # Low ranks are compared at the ends of rounds only.
    by_step = "low_rank" not in last["W"]
    return {
        **dataclasses.asdict(run),
        "batch_size": trainer.batch_size,
        "paper": config.paper,
        "table": config.table,
        "row": config.row,
        "settings": dataclasses.asdict(method),
        "steps": plan.total,
        "steps_per_epoch": steps_per_epoch,
        "stage_ends": list(plan.ends),
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
        "last_change_epoch_W": -(-last["last_change_step"] // steps_per_epoch) if by_step else None,
        "last_change_epoch_W_hat": max(changed, default=0),
        "changes_of_W_last_rounds": [record["changed_W"] for record in rounds[-10:]] if by_step else None,
        "seconds": sum(record["seconds"] for record in rounds),
        "seconds_per_epoch": statistics.median(
            record["seconds"] * steps_per_epoch / steps for record, steps in zip(rounds, _steps(rounds), strict=True)
        ),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "jax": jax.__version__,
        "reported": {"metric": metric, "sparsity": sparsity},
    }


def _steps(rounds):
    ends = [0, *(record["step"] for record in rounds)]
    return [b - a for a, b in itertools.pairwise(ends)]
