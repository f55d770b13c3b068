"""A compact model on disk: its arrays as safetensors, its plan as JSON, and each holds the other's digest.

A save writes both beside their places and moves the plan to `NEXT`, the arrays to `ARRAYS`, the plan to `PLAN`. The
second move is what counts: before it the arrays' digest is in the old plan, after it in `NEXT` or `PLAN`.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax import files
from ramda_jax.compaction.array_bytes import from_stored, kind_named, to_stored
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.plan import Plan
from ramda_jax.compaction.plan_json import parse_json, short
from ramda_jax.structure.paths import named_leaves

ARRAYS, PLAN, NEXT = "variables.safetensors", "plan.json", "plan.next.json"
_LARGEST_PLAN = 2**30
#: Where a save goes on while a load reads; each time the load begins anew.
_TRIES = 1000


def save_compact(folder: str | Path, plan: Plan, variables: Any) -> None:
    """Writes a plan and small variables to a folder: `plan.json` and `variables.safetensors`, keyed by path.

    What the folder held before is replaced at once: a process that is killed, a full disk and whoever loads meanwhile
    leave or find all of the old model or all of the new. Of several that save into one folder each waits for the
    other, where the file system has locks. Links in the folder are replaced, not followed.

    Args:
        folder: is made where it does not exist.
        plan: by which the variables were made small.
        variables: what `compact` has returned, a pytree of arrays of any dtype of JAX, and of PRNG keys.

    Raises:
        CompactionError: a leaf has not the shape that the plan says, so that the two do not belong together; a path
            that safetensors cannot hold; a folder that cannot be written: what was there is as it was.
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
    except (OSError, ValueError) as error:  # a ValueError is that of a NUL in the folder's name
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
    # From here on the new model is there, whatever happens: the plan is found under either name.
    files.move_into_place(folder / NEXT, folder / PLAN)


def _finish(folder):
    """Ends a save that was killed between its moves, whose plan would else be overwritten."""
    try:
        digest = files.sha256(files.read_regular(folder / ARRAYS, (folder / ARRAYS).stat().st_size))
        document = parse_json(files.read_regular(folder / NEXT, _LARGEST_PLAN), NEXT)
    except (OSError, CompactionError):
        return
    if digest == _digest_in(document):
        files.move_into_place(folder / NEXT, folder / PLAN)


def _encode(plan, variables):
    """The two files' contents."""
    from safetensors.numpy import save

    try:
        text = plan.to_json()
        Plan.from_json(text)
    except (TypeError, ValueError) as error:
        raise CompactionError(
            f"The plan must be one that can be read again, but: {error} Make it by `plan_compaction`."
        ) from error
    stored, kinds = {}, {}
    for path, leaf in named_leaves(variables):
        if path in stored:
            raise CompactionError(f"The variables must have different paths, but two are '{path}'; rename one.")
        wanted = plan.leaves[path].small_shape if path in plan.leaves else None
        if wanted != jnp.shape(leaf):
            raise CompactionError(
                f"The variables must be those that the plan has made small, but '{path}' has shape {jnp.shape(leaf)} "
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


def load_compact(folder: str | Path, like: Any = None) -> tuple[Plan, Any]:
    """Reads what `save_compact` has written.

    Nothing in the folder is trusted: digests, sizes, shapes, dtypes and indices are checked before an array is made.

    Args:
        folder: where it is.
        like: a pytree of the variables' structure, whole or small, whose paths are filled; None for a dict by path.

    Returns:
        (plan, variables): of the dtypes that were saved.

    Raises:
        CompactionError: no such files, files that are damaged or do not belong together, arrays of 64 bits where
            JAX has only 32, or `like` of other paths or shapes.

    Example:
        >>> import tempfile
        >>> from ramda_jax import compaction
        >>> import jax, jax.numpy as jnp
        >>> def mlp(params, x):
        ...     return jax.nn.relu(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 8)), "out": jnp.ones((8, 3)).at[2:].set(0)}
        >>> small = compaction.compact_model(mlp, jnp.ones((4, 5)), variables=params)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     compaction.save_compact(folder, small.plan, small.variables)
        ...     plan, variables = load_compact(folder, like=params)
        >>> jax.tree.map(jnp.shape, variables)
        {'in': (5, 2), 'out': (2, 3)}
    """
    folder = Path(folder)
    plan, kinds, blob = _read(folder)
    try:
        arrays = _decode(plan, kinds, blob)
    except CompactionError as error:
        raise CompactionError(f"In '{folder}': {error}") from error
    return plan, arrays if like is None else _fill(like, plan, kinds, arrays)


def _read(folder):
    """The plan, the kinds of the arrays and their bytes, of one save."""
    for _ in range(_TRIES):
        before = _signature(folder)
        try:
            return _read_once(folder)
        except (OSError, ValueError, CompactionError) as error:
            if _signature(folder) == before:
                if isinstance(error, CompactionError):
                    raise
                raise CompactionError(
                    f"'{folder}' must hold {ARRAYS} and {PLAN}, but they cannot be read ({error}); give a folder that "
                    "`save_compact` has written."
                ) from error
    raise CompactionError(f"'{folder}' is written again and again while it is read; load when that is over.")


def _signature(folder):
    found = []
    for name in (ARRAYS, PLAN, NEXT):
        try:
            status = os.stat(folder / name)
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except (OSError, ValueError):
            found.append(None)
    return found


def _read_once(folder):
    found, wrong = {}, None
    for name in (PLAN, NEXT):
        try:
            document = parse_json(files.read_regular(folder / name, _LARGEST_PLAN), name)
            found[_digest_in(document)] = document
        except (OSError, CompactionError) as error:
            wrong = wrong or error
    if not found and wrong is not None:
        raise wrong
    # Only a file of a size that a plan has foretold is read.
    try:
        blob = files.read_regular(folder / ARRAYS, max(document["arrays"]["bytes"] for document in found.values()))
    except files.TooLarge as error:
        raise _apart(folder, f"the size of {ARRAYS} is not the one in {PLAN} ({error})") from error
    document = found.get(files.sha256(blob))
    if document is None:
        raise _apart(folder, f"the digest of {ARRAYS} is not the one in {PLAN}")
    kinds = document["arrays"]["kinds"]
    plan = Plan.from_fields({key: value for key, value in document.items() if key != "arrays"})
    digest = files.sha256(json.dumps(document | {"arrays": {"kinds": kinds}}).encode())
    if _metadata(blob).get("plan_sha256") != digest:
        raise _apart(folder, f"the digest of {PLAN} is not the one in {ARRAYS}")
    return plan, kinds, blob


def _digest_in(document):
    """The arrays' digest that a plan's file holds; raises CompactionError where it holds none."""
    arrays = document.get("arrays")
    rule = None
    if not isinstance(arrays, dict) or arrays.keys() != {"kinds", "bytes", "sha256"}:
        rule = f"have an entry 'arrays' with kinds, bytes and digest of those in {ARRAYS}"
    elif type(arrays["bytes"]) is not int or not 8 < arrays["bytes"] < 2**63:
        rule = f"have the number of bytes of {ARRAYS}"
    elif not isinstance(arrays["sha256"], str):
        rule = f"have the digest of {ARRAYS}"
    elif not isinstance(arrays["kinds"], dict) or not all(isinstance(kind, str) for kind in arrays["kinds"].values()):
        rule = "have a name for the kind of each array"
    if rule is not None:
        raise CompactionError(
            f"No plan: {PLAN} must {rule}, got {short(arrays)}; give a folder that `save_compact` has written."
        )
    return arrays["sha256"]


def _apart(folder, reason):
    return CompactionError(
        f"{ARRAYS} and {PLAN} in '{folder}' must hold the same leaves of one save, but {reason}: one of them was "
        "changed, damaged or comes from elsewhere; write both by `save_compact`."
    )


def _metadata(blob):
    """The metadata that safetensors keep at the beginning, as `safe_open` has them for files."""
    length = int.from_bytes(blob[:8], "little")
    header = parse_json(blob[8 : 8 + length], ARRAYS) if length <= len(blob) - 8 else {}
    metadata = header.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _decode(plan, kinds, blob):
    from safetensors import SafetensorError, deserialize

    # What is there is compared with the plan by names and sizes before an array is made.
    wanted = plan.leaves.keys()
    if kinds.keys() != wanted:
        raise CompactionError(f"{PLAN} must say the kind of each leaf, but does not; save again by `save_compact`.")
    parsed = {path: kind_named(kinds[path], path) for path in wanted}
    size = sum(kind.num_bytes(plan.leaves[path].small_shape) for path, kind in parsed.items())
    if size >= len(blob):
        raise CompactionError(f"{ARRAYS} must have the {size} bytes of the plan's leaves, got {len(blob)}; save again.")
    try:
        stored = dict(deserialize(blob))
    except (SafetensorError, ValueError) as error:
        raise CompactionError(f"{ARRAYS} must be in the format of safetensors, but: {error}; save again.") from error
    if stored.keys() != wanted:
        raise CompactionError(
            f"{ARRAYS} and {PLAN} must hold the same leaves, but differ in {sorted(stored.keys() ^ wanted)[:5]}; write "
            "both by `save_compact`."
        )
    return {path: from_stored(path, kind, plan.leaves[path].small_shape, stored[path]) for path, kind in parsed.items()}


def _fill(like, plan, kinds, arrays):
    named = named_leaves(like)
    paths = [path for path, _ in named]
    if sorted(paths) != sorted(arrays):
        differ = sorted(set(paths) ^ arrays.keys()) or "paths that occur twice"
        raise CompactionError(f"`like` must have the paths that were saved, but differs in {differ}.")
    for path, leaf in named:
        leaf_plan = plan.leaves[path]
        if jnp.shape(leaf) not in (leaf_plan.shape, leaf_plan.small_shape):
            raise CompactionError(
                f"`like` must have the shapes before or after, but '{path}' has {jnp.shape(leaf)}, not "
                f"{leaf_plan.shape} or {leaf_plan.small_shape}; give the variables of that model."
            )
        is_key = jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)
        if is_key != jnp.issubdtype(arrays[path].dtype, jax.dtypes.prng_key):
            raise CompactionError(
                f"`like` must have PRNG keys where they were saved, but '{path}' was saved as {kinds[path]}; give the "
                "variables of that model."
            )
    return jax.tree.structure(like).unflatten(arrays[path] for path in paths)
