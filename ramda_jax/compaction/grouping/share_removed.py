"""The share of the parameters or operations that is removed, counted exactly, for a `Target`."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.grouping.costs import coupled_widths
from ramda_jax.compaction.grouping.parts import COUPLED
from ramda_jax.compaction.tracing.trace import Dims, check_dims
from ramda_jax.compaction.tracing.units.savings import counted
from ramda_jax.structure.packing import packing_of
from ramda_jax.typing import RegularizerSpec
from ramda_jax.xla.one_program import one_program


def share_removed(
    dims: Dims, of: Literal["parameters", "flops"], regularizer: RegularizerSpec
) -> Callable[[Mapping[str, Any]], jax.Array]:
    """The exact share that is removed, for `Target(share, of=share_removed(...))`: a target for the small model's size.

        removed = 1 - sum_k c_k prod_a n_ka / sum_k c_k prod_a s_ka

    over the variables, or over the products and convolutions, k, whose axes a have s_ka indices, n_ka of them alive. An
    entry between two widths is removed once, whichever of the two is deleted. `costs` counts it for both, so a share of
    costs differs from the share of the size unless all layers shrink alike.

    Args:
        dims: from `trace_dims`.
        of: `"parameters"`, the entries of all variables; or `"flops"`, of one call with the example arguments.
        regularizer: the regularizer of a coupling of the same model.

    Returns:
        A function of boolean arrays by packed path, which say which groups are alive. It returns the share, a scalar
        array. One index of each width stays, as in `plan_compaction`.

    Raises:
        CompactionError: groups that are not coupled, or are of another model.
        ValueError: an unknown `of`.

    Example:
        >>> import jax, jax.numpy as jnp, ramda_jax
        >>> from ramda_jax.compaction import couple, share_removed, trace_dims
        >>> def mlp(params, x):
        ...     return jax.nn.relu(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 4)), "out": jnp.ones((4, 3))}
        >>> dims = trace_dims(mlp, params, jnp.ones((1, 5)))
        >>> regularizer = couple(dims, params, weight="saving").regularizer()
        >>> removed = share_removed(dims, "parameters", regularizer)
        >>> [path] = regularizer.packing.pack(params)["coupled"]
        >>> print(removed({f"coupled/{path}": jnp.array([True, False, False, False])}))
        0.75
        >>> target = ramda_jax.Target(0.7, of=removed)
    """
    check_dims(dims)
    if of not in ("parameters", "flops"):
        raise ValueError(f"`of` must be 'parameters' or 'flops', got {of!r}; use one of these.")
    packing: Any = packing_of(regularizer)
    if packing is None:
        raise CompactionError(
            f"`regularizer` must be that of coupled groups, got {regularizer!r}; use "
            "`couple_model(...).regularizer()`, or `costs` for others."
        )
    widths = coupled_widths(dims, packing)
    axes: list[tuple[int, Any, Any]] = []
    numbers: dict[bytes, int] = {}
    terms = []
    for cost, labels in counted(dims, of):
        own = []
        for label in labels:
            axis = _axis(dims, label)
            own.append(numbers.setdefault(repr(axis[0]).encode() + axis[1].tobytes() + axis[2].tobytes(), len(axes)))
            if own[-1] == len(axes):
                axes.append(axis)
        terms.append((cost / max(math.prod(axes[number][0] for number in own), 1), own))
    whole = sum(cost * math.prod(axes[number][0] for number in own) for cost, own in terms)

    @one_program()
    def removed_by(masks):
        kept = jnp.ones(dims.nodes.count)
        for name, nodes in widths.items():
            mask = masks[name]
            kept = kept.at[nodes].set(mask.at[0].set(mask[0] | ~jnp.any(mask)))
        # An index that is a product is deleted with any of its factors.
        counts = [jnp.sum(jnp.ones(size).at[positions].min(kept[nodes])) for size, positions, nodes in axes]
        left = sum(cost / whole * math.prod(counts[number] for number in own) for cost, own in terms)
        return jnp.asarray(1 - left)

    def removed(alive: Mapping[str, Any]) -> jax.Array:
        return removed_by({name: jnp.ravel(jnp.asarray(alive[f"{COUPLED}/{name}"])) for name in widths})

    return removed


def _axis(dims, label):
    positions, nodes = dims.nodes.of(label)
    return len(label), np.asarray(positions), np.asarray(nodes)
