"""The folder of a run: which run it belongs to, and whether the run is finished."""

import contextlib
import dataclasses
import json
from pathlib import Path

from examples.training.errors import RunError, writing
from examples.training.log import as_lines
from examples.training.summary import series
from ramda_jax import files

_LARGEST = 2**30


def identity(run, data_dir):
    """The settings that identify a run, as plain data."""
    return dataclasses.asdict(run) | {"data_dir": data_dir and str(Path(data_dir).resolve())}


@contextlib.contextmanager
def claimed(out, name):
    """Makes the folder and holds its lock; raises RunError if another process holds it, or it cannot be made."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            with writing(out):
                stack.enter_context(files.locked(out, wait=False))
                for old in out.glob(files.UNFINISHED + "*"):
                    files.remove(old)
        except files.Locked:
            raise RunError(
                f"{out} is in use by another process that runs {name}; wait until it is done, or use another --out."
            ) from None
        yield


def check_folder(out, mine, checkpoints):
    """Marks the folder as belonging to the run `mine`; raises RunError if it belongs to another run.

    Returns:
        The report if the run is finished, or None.
    """
    path = out / "run.json"
    theirs, report = read_object(path), read_object(out / "report.json")
    notes = None
    if checkpoints.exists:
        try:
            notes = checkpoints.notes()
        except RunError:
            if not report:
                raise
    if notes is not None:
        # The data may have been moved; run.json has their folder if it exists.
        _check_same(out, mine, notes["run"], {"data_dir"} if theirs else set())
    if report:
        own = {key: value for key, value in mine.items() if key in report}
        # The report has the steps and the batch size of the run.
        _check_same(out, own | {"stops_after": mine["steps"]}, report, {"steps"} | _unset(mine))
    if theirs:
        _check_same(out, mine, theirs, set())
    elif theirs is not None and notes is None and not report:
        raise RunError(
            f"{path} cannot be read, and nothing else tells which run {out} holds; delete that file to begin, or use "
            "another --out."
        )
    else:
        with writing(out):
            files.write_whole(path, json.dumps(mine, indent=2) + "\n")
    return _finished(out, report, notes) if report else None


def _unset(mine):
    return {"batch_size"} if mine["batch_size"] is None else set()


def _check_same(out, mine, theirs, besides):
    different = [
        f"{key} {theirs.get(key)!r}, not {value!r}"
        for key, value in mine.items()
        if key not in besides and theirs.get(key) != value
    ]
    if different:
        raise RunError(
            f"{out} holds another run ({'; '.join(different)}); use another --out, or delete it to start again. "
            "(If only the data were moved, correct data_dir in its run.json.)"
        )


def read_object(path):
    """The JSON object in a file; {} if it cannot be read, None if there is no file.

    Raises:
        RunError: the file exists but cannot be opened.
    """
    try:
        with writing(path.parent):
            content = json.loads(files.read_regular(path, _LARGEST))
    except RunError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        if isinstance(error.__cause__, OSError):
            raise
        return {}
    except RecursionError:
        return {}
    return content if isinstance(content, dict) else {}


def _finished(out, report, notes):
    """The report, or None if it differs from the checkpoint and must be made again. Restores the log if it differs."""
    if notes is None:  # removed to save room, or damaged, so only the report is left
        return report
    records = notes["records"]
    rounds = [record for record in records if "W" in record]
    try:
        said = [report[key] for key in ("rounds", "steps", "training_loss")]
        known = [series(rounds, report["metric"], report["measure"]), rounds[-1]["step"], rounds[-1]["loss"]]
    except (KeyError, IndexError, TypeError):
        return None
    if json.dumps(said) != json.dumps(known):  # compare as text, in which NaN equals NaN
        return None
    log = out / "log.jsonl"
    with writing(out):
        try:
            is_log = files.read_regular(log, _LARGEST) == as_lines(records).encode()
        except FileNotFoundError:
            is_log = False
        if not is_log:
            files.write_whole(log, as_lines(records))
    return report
