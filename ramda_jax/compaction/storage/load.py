"""Reads a compact model from a folder whose content is not trusted."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax import files
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.planning.plan import Plan
from ramda_jax.compaction.planning.plan_json import parse_json
from ramda_jax.compaction.storage.array_bytes import from_stored, kind_named
from ramda_jax.compaction.storage.document import ARRAYS, LARGEST_PLAN, NEXT, PLAN, digest_in
from ramda_jax.structure.paths import named_leaves

#: The largest number of attempts of a load. It starts again whenever a save has changed the folder meanwhile.
_TRIES = 1000


def load_compact(folder: str | Path, like: Any = None) -> tuple[Plan, Any]:
    """Reads a small model that `save_compact` has written.

    Nothing in the folder is trusted: digests, sizes, shapes, dtypes and indices are checked before an array is made.

    Args:
        folder: the folder of the model.
        like: a pytree of the variables' structure, whole or small, whose paths are filled; None for a dict by path.

    Returns:
        (plan, variables); the variables have the saved dtypes.

    Raises:
        CompactionError: the files are missing, damaged, or do not belong together; arrays have 64 bits while JAX has
            only 32; `like` has other paths or shapes.

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
    """The plan, the kinds of the arrays and their bytes, all of the same save."""
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
    raise CompactionError(f"'{folder}' must not be written while it is read, but is, again and again; load it later.")


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
            document = parse_json(files.read_regular(folder / name, LARGEST_PLAN), name)
            found[digest_in(document)] = document
        except (OSError, CompactionError) as error:
            wrong = wrong or error
    if not found and wrong is not None:
        raise wrong
    # A file is only read if its size is that of the plan.
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


def _apart(folder, reason):
    return CompactionError(
        f"{ARRAYS} and {PLAN} in '{folder}' must hold the same leaves of one save, but {reason}: one of them was "
        "changed, damaged or comes from elsewhere; write both by `save_compact`."
    )


def _metadata(blob):
    """The metadata at the beginning of safetensors, as `safe_open` returns them for files."""
    length = int.from_bytes(blob[:8], "little")
    header = parse_json(blob[8 : 8 + length], ARRAYS) if length <= len(blob) - 8 else {}
    metadata = header.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _decode(plan, kinds, blob):
    from safetensors import SafetensorError, deserialize

    # The content is compared with the plan by names and sizes before an array is made.
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
        raise CompactionError(
            f"`like` must have the paths that were saved, but differs in {differ}; give the variables of that model."
        )
    for path, leaf in named:
        leaf_plan = plan.leaves[path]
        if np.shape(leaf) not in (leaf_plan.shape, leaf_plan.small_shape):
            raise CompactionError(
                f"`like` must have the shapes before or after, but '{path}' has {np.shape(leaf)}, not "
                f"{leaf_plan.shape} or {leaf_plan.small_shape}; give the variables of that model."
            )
        is_key = jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)
        if is_key != jnp.issubdtype(arrays[path].dtype, jax.dtypes.prng_key):
            raise CompactionError(
                f"`like` must have PRNG keys where they were saved, but '{path}' was saved as {kinds[path]}; give the "
                "variables of that model."
            )
    return jax.tree.structure(like).unflatten(arrays[path] for path in paths)
