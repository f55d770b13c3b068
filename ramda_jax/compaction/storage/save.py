"""Saves a compact model: its arrays as safetensors, its plan as JSON. Each file holds the other's digest.

A save writes both to temporary files, and then moves the plan to `NEXT`, the arrays to `ARRAYS`, and the plan to
`PLAN`. The second move decides: before it the arrays' digest is in the old plan, and after it in `NEXT` or `PLAN`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ramda_jax import files
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.planning.plan import Plan
from ramda_jax.compaction.planning.plan_json import parse_json, short
from ramda_jax.compaction.storage.array_bytes import to_stored
from ramda_jax.compaction.storage.document import ARRAYS, LARGEST_PLAN, NEXT, PLAN, digest_in
from ramda_jax.structure.paths import named_leaves


def save_compact(folder: str | Path, plan: Plan, variables: Any) -> None:
    """Writes a plan and small variables to a folder: `plan.json` and `variables.safetensors`, keyed by path.

    A model in the folder is replaced at once: after a killed process, on a full disk, and for a reader at any time, the
    folder has the whole old model or the whole new model. Several processes that save into one folder wait for each
    other, if the file system has locks. Links in the folder are replaced, not followed.

    Args:
        folder: the folder, which is created if it does not exist.
        plan: the plan by which the variables were made small.
        variables: the result of `compact`, a pytree of arrays of any dtype of JAX, and of PRNG keys.

    Raises:
        CompactionError: a leaf does not have the shape in the plan, so that the two do not belong together; safetensors
            cannot hold a path; the folder cannot be written, and then its content is unchanged.
    """
    text, blob = _encode(plan, variables)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder, wait=True) as has_lock:
            if has_lock:
                for old in folder.glob(files.UNFINISHED + "*"):
                    files.remove(old)
            _write(folder, text, blob)
    except (OSError, ValueError) as error:  # a ValueError is caused by a NUL in the folder's name
        raise CompactionError(
            f"The compact model must go to a folder that can be written, but '{folder}' cannot ({error}); make room "
            "or give another folder. What it held is as it was."
        ) from error


def _write(folder, text, blob):
    arrays = plan = None
    try:
        arrays, plan = files.write_beside(folder, blob), files.write_beside(folder, text)
        if (folder / NEXT).exists():
            _finish(folder)
        files.move_into_place(plan, folder / NEXT)
        files.move_into_place(arrays, folder / ARRAYS)
    except BaseException:
        for unfinished in (arrays, plan):
            if unfinished is not None:
                files.remove(unfinished)
        raise
    # From here on the folder has the new model, because its plan is found under either name.
    files.move_into_place(folder / NEXT, folder / PLAN)


def _finish(folder):
    """Finishes a save that was killed between its moves; otherwise its plan would be overwritten."""
    try:
        digest = files.sha256(files.read_regular(folder / ARRAYS, (folder / ARRAYS).stat().st_size))
        document = parse_json(files.read_regular(folder / NEXT, LARGEST_PLAN), NEXT)
    except (OSError, CompactionError):
        return
    if digest == digest_in(document):
        files.move_into_place(folder / NEXT, folder / PLAN)


def _encode(plan, variables):
    """The contents of the two files."""
    from safetensors.numpy import save

    if not isinstance(plan, Plan):
        raise CompactionError(f"The plan must be a `Plan`, got {short(plan)}; make it by `plan_compaction`.")
    try:
        text = plan.to_json()
        Plan.from_json(text)
    except (TypeError, ValueError) as error:
        raise CompactionError(
            f"The plan must be one that can be read again, but: {error} Make it by `plan_compaction`."
        ) from error
    try:
        named = named_leaves(variables)
    except ValueError as error:  # two equal names
        raise CompactionError(str(error)) from error
    stored, kinds = {}, {}
    for path, leaf in named:
        wanted = plan.leaves[path].small_shape if path in plan.leaves else None
        if wanted != np.shape(leaf):
            raise CompactionError(
                f"The variables must be those that the plan has made small, but '{path}' has shape {np.shape(leaf)} "
                f"where the plan has {wanted}; give `compact(plan, variables)`."
            )
        _check_path(path)
        stored[path], kinds[path] = to_stored(path, leaf)
    if missing := sorted(plan.leaves.keys() - stored.keys()):
        raise CompactionError(
            f"The variables must be all that the plan has made small, but lack {missing[:5]}; give `compact(plan, "
            "variables)`."
        )
    document = {**json.loads(text), "arrays": {"kinds": kinds}}
    blob = save(stored, metadata={"plan_sha256": files.sha256(json.dumps(document).encode())})
    document["arrays"] |= {"bytes": len(blob), "sha256": files.sha256(blob)}
    return json.dumps(document).encode(), blob


def _check_path(path):
    if path == "__metadata__":
        raise CompactionError("No path may be '__metadata__', a word of safetensors; rename that leaf.")
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise CompactionError(
            f"A path must be Unicode text, got {path!a}, with half a character; rename it."
        ) from error
