"""Kernels of low rank as two factors."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.choose import adapter_for
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.proof.numbers import batches_for, check_comparison, compare_outputs
from ramda_jax.compaction.proof.verify import Proof
from ramda_jax.compaction.tracing.static_args import hold_static
from ramda_jax.structure.paths import named_leaves
from ramda_jax.validation import check_non_negative


@dataclasses.dataclass(frozen=True)
class LowRank:
    """A model with factored kernels that was shown to be equal to the whole one.

    Attributes:
        model, variables, apply: as in `Compaction`.
        ranks: from the paths of kernels that were factored to their ranks.
        refused: from the paths of those that the model cannot use as factors to the reason.
        proof: numeric only; the two programs are different.
        num_params: entries of all leaves, before and after.
    """

    model: Any
    variables: Any
    apply: Callable[..., Any]
    ranks: dict[str, int]
    refused: dict[str, str]
    proof: Proof
    num_params: tuple[int, int]


def low_rank_plan(variables: Any, rtol: float | None = None) -> dict[str, int]:
    """Which matrices are smaller as two factors: those of a rank below m n / (m + n).

    Args:
        variables: a pytree of arrays; looked at are leaves of two axes and a floating-point dtype, all finite, except
            embeddings.
        rtol: singular values of up to rtol times the largest count as zero; None for the larger side times the machine
            eps, as in `metrics.numerical_rank`.

    Returns:
        From paths to numerical ranks.

    Example:
        >>> import jax.numpy as jnp
        >>> low_rank_plan({"a": jnp.ones((4, 5)), "b": jnp.eye(4)})
        {'a': 1}
    """
    if rtol is not None:
        check_non_negative("rtol", rtol, schedules=False)
    ranks = {}
    for path, leaf in named_leaves(variables):
        is_matrix = jnp.ndim(leaf) == 2 and jnp.issubdtype(leaf.dtype, jnp.floating)
        if not is_matrix or path.split("/")[-1].endswith("embedding"):
            continue
        rows, columns = leaf.shape
        if not np.size(leaf) or not np.isfinite(np.asarray(leaf, np.float64)).all():
            continue  # of no rank that would be known
        singular = np.linalg.svd(np.asarray(leaf, np.float64), compute_uv=False)
        limit = (max(rows, columns) * float(jnp.finfo(leaf.dtype).eps) if rtol is None else rtol) * singular.max()
        rank = max(int(np.sum(~(singular <= limit))), 1)
        if rank * (rows + columns) < rows * columns:
            ranks[path] = rank
    return ranks


def low_rank_model(
    model: Any,
    *example_args: Any,
    variables: Any = None,
    call: Callable[..., Any] | None = None,
    rtol: float | None = None,
    num_random: int = 2,
    tolerance: float | None = None,
) -> LowRank:
    """Makes each kernel of low rank two thin ones, and shows that the model computes the same.

    In nnx, a `Linear` becomes two, the first without bias; in linen, `Dense` reads `kernel_left` and `kernel_right`; in
    Equinox and in functions the matrix is a `Factored`, which knows how to be multiplied. A matrix that the model
    uses in any other way stays.

    Args:
        model, *example_args, variables, call: as in `compact_model`.
        rtol: as in `low_rank_plan`.
        num_random, tolerance: as in `verify`. Factors are equal to rounding only: with kernels in bfloat16 give a
            tolerance.

    Returns:
        A `LowRank`.

    Raises:
        CompactionError: the outputs differ by more than the tolerance.

    Example:
        >>> import jax.numpy as jnp
        >>> small = low_rank_model(lambda w, x: x @ w, jnp.ones((2, 6)), variables=jnp.ones((6, 8)))
        >>> small.ranks, small.num_params
        ({'': 1}, (48, 14))
    """
    check_comparison(num_random, tolerance)
    adapter = adapter_for(model, variables, call)
    ranks = low_rank_plan(adapter.variables, rtol)
    refused = {}
    for path in list(ranks):
        reason = _reason_against(adapter, {path: ranks[path]}, example_args)
        if reason:
            refused[path] = reason
            del ranks[path]
    small_model, small, apply = adapter.factorize(ranks)
    batches = batches_for(example_args, num_random)
    if not batches:
        raise CompactionError(
            "Nothing can be shown of a model of low rank without a batch: give example arguments with values, or "
            f"`num_random` above 0, got {num_random}."
        )
    error, reason = compare_outputs(adapter.apply, adapter.variables, apply, small, batches, tolerance)
    if reason is not None:
        raise CompactionError(f"The model of low rank is not equal: {reason}.")
    before, after = (sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree)) for tree in (adapter.variables, small))
    return LowRank(small_model, small, apply, ranks, refused, Proof(0, len(batches), error), (before, after))


def _reason_against(adapter: Adapter, ranks, args):
    """Why the model cannot run with that one kernel factored, or ""."""
    try:
        _, small, apply = adapter.factorize(ranks)
        held, arrays = hold_static(apply, args)
        jax.eval_shape(held, small, *arrays)
    except Exception as error:  # whatever a model's code raises for what is no array
        return f"{type(error).__name__}: {error}".split("\n")[0]
    return ""
