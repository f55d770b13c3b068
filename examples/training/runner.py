"""Runs an experiment from beginning to end: trains, measures, logs, stops, continues and reports."""

import dataclasses
import functools
import io
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from tqdm import tqdm

from examples.experiments import CONFIGS
from examples.training.checkpoints import Checkpoints
from examples.training.errors import RunError, writing
from examples.training.figures import draw
from examples.training.folder import check_folder, claimed, identity
from examples.training.log import Log, Stopper
from examples.training.loop import Trainer
from examples.training.summary import as_text, final_table, make_report
from ramda_jax.files import write_whole

CHECKPOINT_SECONDS = 300


@dataclasses.dataclass(frozen=True)
class Run:
    """The settings of a run. Two runs with equal settings are the same run.

    Attributes:
        config, method: the names of the experiment and the method.
        scale: the factor of the number of steps.
        batch_size: None for the experiment's batch size.
        learning_rate_scale: the factor of the learning rate of every stage.
        devices: the number of devices over which a batch is split.
        dtype: the dtype of the layers' arithmetic; the parameters are float32.
        seed: the seed of data order, augmentation, dropout and initial weights.
        steps: the number of the schedule's steps to take, for a trial; None for all.
        valid_batches: the number of validation batches to use, for a trial; None for all.
    """

    config: str
    method: str
    scale: float = 1.0
    batch_size: int | None = None
    learning_rate_scale: float = 1.0
    devices: int = 1
    dtype: str = "float32"
    seed: int = 1
    steps: int | None = None
    valid_batches: int | None = None

    @property
    def name(self):
        """`config/method-seed`."""
        return f"{self.config}/{self.method}-{self.seed}"


def train(run: Run, data_dir=None, out=None, config=None, stopper=None):
    """Trains until the end or until it is stopped.

    Args:
        run: the settings of the run.
        data_dir: the folder of the data set.
        out: the run's folder; None for `out/CONFIG/METHOD-SEED`.
        config: a configuration to use instead of the experiment with this name, for another size of model.
        stopper: a function that is called between steps; None for the signals.

    Returns:
        The report, or None if the run was stopped; then the same call continues it. For a finished run, the stored
            report.

    Raises:
        RunError: the folder holds another run, is in use, or cannot be read or written; the checkpoint is damaged;
            there are too few devices.
        DataError: a loader cannot read the data.
    """
    out = Path(out or Path("out") / run.name)
    if jax.device_count() < run.devices:
        raise RunError(f"--devices must be at most {jax.device_count()} here, got {run.devices}; use fewer.")
    mine = identity(run, data_dir)
    with claimed(out, run.name), Checkpoints(out / "checkpoint") as checkpoints:
        report = check_folder(out, mine, checkpoints)
        if report is not None:
            return report
        trainer = Trainer(
            config or CONFIGS[run.config],
            run.method,
            data_dir,
            scale=run.scale,
            batch_size=run.batch_size,
            learning_rate_scale=run.learning_rate_scale,
            devices=run.devices,
            dtype=jnp.dtype(run.dtype),
            seed=run.seed,
        )
        return _train(trainer, run, mine, out, checkpoints, stopper or Stopper())


def _train(trainer, run, mine, out, checkpoints, stopper):
    steps = min(trainer.plan.total, run.steps or trainer.plan.total)
    with stopper.listening():
        state, taken, seconds, records = trainer.init(), 0, 0.0, []
        if checkpoints.exists:
            state, notes = checkpoints.restore(state)
            taken, seconds, records = notes["taken"], notes["seconds"], notes["records"]
        log = Log(out / "log.jsonl", records)
        state, taken = _rounds(
            trainer,
            steps,
            run.valid_batches,
            state,
            taken,
            seconds,
            log,
            functools.partial(checkpoints.save, run=mine),
            stopper,
        )
        if taken < steps or not log.rounds or log.rounds[-1]["step"] < taken:
            return None
        # The objective reads all training examples, which takes longer than the few steps of a trial.
        objective = None if run.valid_batches else trainer.objective(state)
        report = make_report(dataclasses.asdict(run), trainer, log, objective)
    figure = io.BytesIO()
    draw(report, figure)
    with writing(out):
        write_whole(out / "report.png", figure.getvalue())
        write_whole(out / "report.txt", final_table(report) + "\n")
        write_whole(out / "report.json", as_text(report))  # written last, so that a run with a report is finished
    # Read the report back from the file, so that a later call returns the same.
    return json.loads(as_text(report))


def _rounds(trainer, steps, valid_batches, state, taken, seconds, log, save, stopper):
    per_round = trainer.plan.per_round
    often = max(1, min(per_round, steps) // 20)
    saved_at = time.monotonic()
    done = log.rounds[-1]["step"] if log.rounds else 0
    with tqdm(total=steps, initial=taken, desc=trainer.method, unit="step", mininterval=1) as progress:
        # A run that was stopped between a round's last step and its evaluation still has to evaluate.
        while not stopper() and done < steps:
            first = done
            last = min(steps, first + per_round)
            start = time.perf_counter()

            def on_step(number, loss):
                nonlocal saved_at
                progress.update(number - progress.n)
                if loss is not None and (number % often == 0 or number == 1):
                    log.add({"step": number, "loss": float(loss)})

            while taken < last and not stopper():
                # Train in pieces, so that a long round is saved too.
                until = last if trainer.config.scan else min(last, taken + often)
                state, taken = trainer.run_round(state, taken, until, stopper, on_step)
                # At the end of a round, save the state only together with its measurements.
                if taken < last and time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                    jax.block_until_ready(state.params)
                    passed = seconds + time.perf_counter() - start
                    save(state, taken=taken, seconds=passed, records=log.records)
                    saved_at = time.monotonic()
            jax.block_until_ready(state.params)
            seconds += time.perf_counter() - start
            if taken < last:
                break
            loss = float(state.loss_sum) / (last - first)
            record, state = trainer.evaluate(state, valid_batches)
            epochs = taken / trainer.data.steps_per_epoch
            log.add({"step": taken, "epoch": epochs, "loss": loss, "seconds": seconds, **record})
            progress.set_postfix(_postfix(record, trainer), refresh=False)
            done, seconds = taken, 0.0
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                save(state, taken=taken, seconds=seconds, records=log.records)
                saved_at = time.monotonic()
        save(state, taken=taken, seconds=seconds, records=log.records)
    return state, taken


def _postfix(record, trainer):
    measure = trainer.config.measure
    return {
        trainer.task.metric: f"{record[trainer.task.metric]:.4g}",
        "W": f"{record['W'].get(measure, 0):.1%}",
        "W_hat": f"{record['W_hat'].get(measure, 0):.1%}",
    }
