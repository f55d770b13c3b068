"""Continued runs: after a kill at any point, the report equals that of an undisturbed run."""

import dataclasses
import gc
import itertools
import json
import os
import random
import shutil
import subprocess
import sys

import pytest

from examples import report, train
from examples.experiments import CONFIGS
from examples.training import runner
from examples.training.loop import Trainer
from ramda_jax import files
from tests.kills import Disk, Killed, StopAfter

# Two rounds of three steps. Each step is logged and saved.
RUN = runner.Run("synthetic_logistic", "ramda", batch_size=4000, steps=6, seed=2, valid_batches=1)
CONFIG = dataclasses.replace(CONFIGS[RUN.config], scan=False, evaluate_every=1)
# After a failed save or restore TensorStore's threads continue, and raise errors because Orbax has closed its loop.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("quick_collections"),
]
#: The fields of a report that differ from run to run.
TIMES = ("seconds", "seconds_per_epoch")


@pytest.fixture(autouse=True)
def failed_reads_end_here():
    """Collects the remains of failed reads in the test that caused them, because in a later test they are an error."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def trainer_of():
    """One trainer, and so one compilation, for all runs, because only the state changes."""
    made = {}

    def trainer_of(config, *args, **settings):
        key = (config.name, str(args), str(settings))
        if key not in made:
            made[key] = Trainer(config, *args, **settings)
        return made[key]

    return trainer_of


@pytest.fixture(autouse=True)
def quick(monkeypatch, trainer_of):
    monkeypatch.setattr(runner, "Trainer", trainer_of)
    monkeypatch.setattr(runner, "draw", lambda report, file: file.write(b"figure"))
    monkeypatch.setattr(runner, "CHECKPOINT_SECONDS", -1)  # save after every piece of a round
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # `Disk` simulates lost data


def go(out, run=RUN, **kwargs):
    return runner.train(run, None, out, CONFIG, **kwargs)


def numbers(made):
    assert made is not None
    return {key: value for key, value in made.items() if key not in TIMES}


def records(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, trainer_of):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "Trainer", trainer_of)
        patch.setattr(runner, "draw", lambda report, file: file.write(b"figure"))
        out = tmp_path_factory.mktemp("undisturbed") / "run"
        return numbers(go(out)), records(out), out


def go_and_fail(out, fail_at, full=False):
    """Runs until change `fail_at` of the folder kills the run or finds a full disk; returns the number of changes."""
    place = out.with_name(f"{out.name}-{fail_at}")
    if out.exists():
        out.rename(place)
    with Disk(place, fail_at, full).watched() as disk:
        try:
            go(place)
        except Killed:
            assert not full
        except runner.RunError as error:
            assert full and "\n" not in str(error) and "make room" in str(error)
    # Move the folder away from TensorStore's threads, which may still write. A real kill would have ended them.
    place.rename(out) if place.exists() else out.mkdir()
    return disk.count


def check_continued(out, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runner, "CHECKPOINT_SECONDS", 300)
        made = go(out)
    assert numbers(made) == undisturbed[0]
    assert records(out) == undisturbed[1]
    assert json.loads((out / "report.json").read_text()) == made
    assert json.loads((out / "run.json").read_text()) == json.loads((undisturbed[2] / "run.json").read_text())
    assert not list(out.glob(files.UNFINISHED + "*"))


def test_the_undisturbed_run_has_rounds_and_steps(undisturbed):
    made, written, _ = undisturbed
    assert made["steps"] == 6 and made["steps_per_epoch"] == 3
    assert [record["step"] for record in written] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert len(made["rounds"]["loss"]) == 2 and len(made["step_losses"]) == 6
    # A round's loss is the mean of the losses of its steps.
    for first, loss in ((0, made["rounds"]["loss"][0]), (3, made["rounds"]["loss"][1])):
        steps = [loss for _, loss in made["step_losses"][first : first + 3]]
        assert loss == pytest.approx(sum(steps) / 3, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["killed", "disk full"])
def test_a_run_that_fails_at_some_writes_ends_as_if_undisturbed(undisturbed, tmp_path, full, monkeypatch):
    for fail_at in (1, 4, 60, 100, 163):
        go_and_fail(tmp_path / str(fail_at), fail_at, full)
        check_continued(tmp_path / str(fail_at), undisturbed, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["killed", "disk full"])
def test_a_run_that_fails_at_any_write_ends_as_if_undisturbed(undisturbed, tmp_path, full, monkeypatch):
    """Fails at every tenth change of the folder; with `EVERY_WRITE=1` in the environment at each, for some minutes."""
    numbers_ = random.Random(0)
    for fail_at in itertools.count(step=1 if os.environ.get("EVERY_WRITE") else 10):
        out = tmp_path / str(fail_at)
        has_failed = go_and_fail(out, fail_at, full) > fail_at
        if has_failed and fail_at % 3 == 0:  # fail again while the run continues
            go_and_fail(out, numbers_.randrange(60))
        check_continued(out, undisturbed, monkeypatch)
        shutil.rmtree(out)
        if not has_failed:
            break
    print(f"failed at changes of the folder up to number {fail_at}")
    assert fail_at > 100


@pytest.mark.parametrize("asked", [1, 2, 5, 6, 7])
def test_a_run_that_is_stopped_anywhere_ends_as_if_undisturbed(undisturbed, tmp_path, asked, monkeypatch):
    assert go(tmp_path, stopper=StopAfter(asked)) is None
    check_continued(tmp_path, undisturbed, monkeypatch)


# Each file is missing, torn, or of another kind.


def stopped_in_the_second_round(out):
    assert go(out, stopper=StopAfter(12)) is None
    last = records(out)[-1]["step"]
    assert 3 <= last < 6, last


BAD = {"missing": None, "empty": b"", "torn": b'{"step": 1, "lo', "binary": bytes(range(256)), "deep": b"[" * 100_000}


@pytest.mark.parametrize(("is_finished", "bad"), [*((True, bad) for bad in BAD), (False, "missing"), (False, "torn")])
@pytest.mark.parametrize("name", ["log.jsonl", "run.json", "report.json"])
def test_a_bad_file_is_made_again(undisturbed, tmp_path, name, bad, is_finished, monkeypatch):
    content = BAD[bad]
    out = tmp_path / "run"
    if is_finished:
        shutil.copytree(undisturbed[2], out)
    else:
        stopped_in_the_second_round(out)
    if content is None:
        (out / name).unlink(missing_ok=True)
    else:
        (out / name).write_bytes(content)
    check_continued(out, undisturbed, monkeypatch)


def test_a_report_of_other_numbers_than_the_checkpoints_is_made_again(undisturbed, tmp_path, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[2], out)
    said = json.loads((out / "report.json").read_text())
    (out / "report.json").write_text(json.dumps(said | {"training_loss": 0.5}))
    check_continued(out, undisturbed, monkeypatch)
    # Without a checkpoint only the report can tell.
    shutil.rmtree(out / "checkpoint")
    assert numbers(go(out)) == undisturbed[0]


@pytest.mark.parametrize("names", [["checkpoint"], ["report.json"], ["checkpoint", "report.json"], ["run.json"]])
def test_whatever_is_of_another_run_is_refused(undisturbed, tmp_path, names):
    for name in names:
        source = undisturbed[2] / name
        tmp_path.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(runner.RunError, match=r"holds another run \(seed 2, not 3.*; use another --out"):
        go(tmp_path, dataclasses.replace(RUN, seed=3))
    assert set(before) <= {path.name for path in tmp_path.iterdir()} <= {*before, "checkpoint"}


def test_a_folder_of_a_torn_run_json_alone_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(runner.RunError, match=r"run\.json cannot be read.*; delete that file"):
        go(tmp_path)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_said_and_nothing_is_changed(undisturbed, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "damaged"
    stopped_in_the_second_round(whole)
    paths = [path.relative_to(whole) for path in sorted((whole / "checkpoint").rglob("*")) if path.is_file()]
    refused = 0
    for path in paths:
        content = (whole / path).read_bytes()
        middle = len(content) // 2
        flipped = bytes(~byte & 255 for byte in content[middle : middle + 1])
        for damaged in (content[:middle], content[:middle] + flipped + content[middle + 1 :]):
            shutil.copytree(whole, out)
            (out / path).write_bytes(damaged)
            log = (out / "log.jsonl").read_bytes()
            try:
                check_continued(out, undisturbed, monkeypatch)  # passes if the file is not needed
            except runner.RunError as error:
                refused += 1
                text = str(error)
                assert "\n" not in text and "cannot be read" in text and "put back a copy" in text
                assert (out / "log.jsonl").read_bytes() == log
            shutil.rmtree(out)
    print(f"{refused} of {2 * len(paths)} damages refused, the others without an effect")
    assert refused > 5


def test_two_runs_in_one_folder_are_refused_by_name(tmp_path):
    code = f"""
from pathlib import Path
from ramda_jax import files
with files.locked(Path({str(tmp_path)!r}), wait=False):
    print("held", flush=True)
    input()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        message = rf"{tmp_path} is in use by another process that runs {RUN.name}; wait until it is done"
        with pytest.raises(runner.RunError, match=message):
            go(tmp_path)
        assert not list(tmp_path.iterdir())
    finally:
        other.kill()
        other.communicate()
    assert go(tmp_path, stopper=StopAfter(0)) is None  # the killed process no longer holds the lock


def test_folders_that_cannot_be_written_are_said_in_a_line(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for out in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "dangling", tmp_path / "nul\0"):
        arguments = ["synthetic_logistic", "--method", "ramda", "--out", str(out)]
        with pytest.raises(SystemExit, match=r"must be a folder that can be written.*use another --out") as caught:
            train.main(arguments)
        assert "\n" not in str(caught.value)
    for name in ("run.json", "log.jsonl", "checkpoint", "report.json"):
        out = tmp_path / name
        (out / name).mkdir(parents=True) if name != "checkpoint" else (out.mkdir(), (out / name).write_text("x"))
        with pytest.raises(runner.RunError, match=r"must be a folder that can be written"):
            go(out)
    assert (tmp_path / "file").read_text() == "precious"


# The joined table


def test_reports_that_are_torn_twice_or_no_reports_are_said_in_a_line(undisturbed, tmp_path, capsys):
    for name in ("one", "two"):
        shutil.copytree(undisturbed[2], tmp_path / name)
    with pytest.raises(SystemExit, match="must be of two runs, but have the same settings and seed; name one"):
        report.main([str(tmp_path)])
    path = tmp_path / "two" / "report.json"
    whole = json.loads(path.read_text())
    for content in (b"", b'{"seed": ', bytes(range(256)), b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(SystemExit, match=r"two/report\.json must be JSON that can be read") as caught:
            report.main([str(tmp_path)])
        assert "\n" not in str(caught.value)
    path.write_text(json.dumps({key: value for key, value in whole.items() if key != "seconds"} | {"seed": 3}))
    with pytest.raises(SystemExit, match=r"two/report\.json must be a report.*but lacks seconds"):
        report.main([str(tmp_path)])
    path.write_text(json.dumps(whole | {"seed": 3}))
    report.main([str(tmp_path)])
    assert "2, 3" in capsys.readouterr().out
