"""A run from beginning to end: trains, measures, logs, stops and continues, reports."""

import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from tqdm import tqdm

from examples.experiments import CONFIGS
from examples.training.checkpoints import Checkpoints
from examples.training.figures import draw
from examples.training.log import Log, Stopper
from examples.training.loop import Trainer
from examples.training.summary import as_text, final_table, make_report

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
        learning_rate_scale: of the learning rate of every stage.
        devices: over which a batch is split.
        dtype: of the layers' arithmetic; the parameters are float32.
        seed: of data order, augmentation, dropout and initial weights.
        steps: only the first so many of the schedule, to try; None for all.
        valid_batches: only the first so many of the validation split, to try; None for all.
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
        run: what to do.
        data_dir: the data set's own folder.
        out: the run's folder; None for `out/CONFIG/METHOD-SEED`.
        config: in place of the experiment of that name, for another size of model.
        stopper: asked between steps; None for the signals.

    Returns:
        The report, or None where it was stopped; the same call then continues. Of a run that is finished already, the
        report that it wrote.

    Raises:
        RunError: the folder holds another run, or the devices are not there.
        DataError: as the loaders.
    """
    out = Path(out or Path("out") / run.name)
    if jax.device_count() < run.devices:
        raise RunError(f"--devices must be at most the {jax.device_count()} that there are, got {run.devices}.")
    claim(out, run, data_dir)
    if (out / "report.json").exists():
        return json.loads((out / "report.json").read_text())
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
    steps = min(trainer.plan.total, run.steps or trainer.plan.total)
    stopper = stopper or Stopper()
    with Checkpoints(out / "checkpoint") as checkpoints, stopper.listening():
        state, seconds = trainer.init(), 0.0
        taken = checkpoints.latest or 0
        if taken:
            state, seconds = checkpoints.restore(state)
        log = Log(out / "log.jsonl", taken)
        state, taken = _rounds(trainer, steps, run.valid_batches, state, taken, seconds, log, checkpoints, stopper)
        if taken < steps or not log.rounds or log.rounds[-1]["step"] < taken:
            return None
        # It goes over all training examples, which takes longer than the few steps of a trial.
        objective = None if run.valid_batches else trainer.objective(state)
        report = make_report(dataclasses.asdict(run), trainer, log, objective)
    draw(report, out / "report.png")
    (out / "report.txt").write_text(final_table(report) + "\n")
    (out / "report.json").write_text(as_text(report))  # the last: where there is one, the run is finished
    return report


def _rounds(trainer, steps, valid_batches, state, taken, seconds, log, checkpoints, stopper):
    per_round = trainer.plan.per_round
    often = max(1, min(per_round, steps) // 20)
    saved_at = time.monotonic()
    done = log.rounds[-1]["step"] if log.rounds else 0
    with tqdm(total=steps, initial=taken, desc=trainer.method, unit="step", mininterval=1) as progress:
        # A run that was stopped between a round's last step and its evaluation still has that to do.
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
            record, state = trainer.evaluate(state, valid_batches)
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


def claim(out, run, data_dir=None):
    """Makes the folder `run`'s own; raises where it is another's."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "run.json"
    mine = dataclasses.asdict(run) | {"data_dir": data_dir and str(Path(data_dir).resolve())}
    if not path.exists():
        path.write_text(json.dumps(mine, indent=2) + "\n")
        return
    theirs = json.loads(path.read_text())
    different = [f"{key} {theirs.get(key)!r}, not {mine[key]!r}" for key in mine if theirs.get(key) != mine[key]]
    if different:
        raise RunError(
            f"{out} holds another run ({'; '.join(different)}); use another --out, or delete the folder to start anew. "
            "(Data that were only moved: correct data_dir in its run.json.)"
        )
