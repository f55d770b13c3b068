"""A compact model on disk: its arrays as safetensors, its plan as JSON."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.plan import Plan
from ramda_jax.structure.paths import named_leaves

ARRAYS, PLAN = "variables.safetensors", "plan.json"


def save_compact(folder: str | Path, plan: Plan, variables: Any) -> None:
    """Writes a plan and small variables to a folder: `plan.json` and `variables.safetensors`, keyed by path.

    Args:
        folder: is made where it does not exist.
        plan: by which the variables were made small.
        variables: what `compact` has returned, a pytree of arrays.

    Raises:
        CompactionError: a leaf has not the shape that the plan says, so that the two do not belong together.
    """
    from safetensors.flax import save_file

    leaves = dict(named_leaves(variables))
    arrays = {}
    for path, leaf in leaves.items():
        wanted = plan.leaves[path].small_shape if path in plan.leaves else None
        if wanted != jnp.shape(leaf):
            raise CompactionError(
                f"The variables must be those that the plan has made small, but '{path}' has shape {jnp.shape(leaf)} "
                f"where the plan has {wanted}; give `compact(plan, variables)`."
            )
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        arrays[path] = jnp.asarray(leaf)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / ARRAYS)
    (folder / PLAN).write_text(plan.to_json())


def load_compact(folder: str | Path, like: Any = None) -> tuple[Plan, Any]:
    """Reads what `save_compact` has written.

    Args:
        folder: where it is.
        like: a pytree of the variables' structure, whole or small, whose paths are filled; None for a dict by path.

    Returns:
        (plan, variables).

    Raises:
        CompactionError: files that do not belong together, or `like` of other paths.
        FileNotFoundError: no such files.

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
    from safetensors.flax import load_file

    folder = Path(folder)
    plan = Plan.from_json((folder / PLAN).read_text())
    arrays = load_file(folder / ARRAYS)
    if arrays.keys() != plan.leaves.keys():
        raise CompactionError(
            f"{ARRAYS} and {PLAN} in '{folder}' must hold the same leaves, but differ in "
            f"{sorted(arrays.keys() ^ plan.leaves.keys())}; write both by `save_compact`."
        )
    if like is None:
        return plan, arrays
    named = named_leaves(like)
    if {path for path, _ in named} != arrays.keys():
        raise CompactionError(
            f"`like` must have the paths that were saved, but differs in "
            f"{sorted({p for p, _ in named} ^ arrays.keys())}."
        )
    leaves = []
    for path, leaf in named:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        leaves.append(jax.random.wrap_key_data(arrays[path]) if is_key else arrays[path])
    return plan, jax.tree.structure(like).unflatten(leaves)
