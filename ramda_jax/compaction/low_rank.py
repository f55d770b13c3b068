"""Kernels of low rank as two factors."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.adapters.base import Adapter
from ramda_jax.compaction.adapters.choose import adapter_for
from ramda_jax.compaction.adapters.factors.matrix import PRODUCT, Cut, Layout
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.proof.numbers import batches_for, check_comparison, compare_outputs
from ramda_jax.compaction.proof.verify import Proof
from ramda_jax.compaction.tracing.function import trace_program
from ramda_jax.compaction.tracing.static_args import hold_static
from ramda_jax.structure.alone import is_selected_alone
from ramda_jax.structure.paths import named_leaves
from ramda_jax.validation import check_non_negative


@dataclasses.dataclass(frozen=True)
class LowRank:
    """A model with factored kernels that was shown to be equal to the whole model.

    Attributes:
        model, variables, apply: as in `Compaction`.
        ranks: a dict from the paths of the factored kernels to their ranks.
        refused: a dict from the paths of the kernels that the model cannot use as factors to the reasons.
        proof: a proof by numbers only, because the two programs differ.
        num_params: the numbers of entries of all leaves, before and after.
    """

    model: Any
    variables: Any
    apply: Callable[..., Any]
    ranks: dict[str, int]
    refused: dict[str, str]
    proof: Proof
    num_params: tuple[int, int]


def low_rank_plan(variables: Any, rtol: float | None = None) -> dict[str, int]:
    """The matrices that have fewer entries as two factors: those of a rank below m n / (m + n).

    Args:
        variables: a pytree of arrays. Leaves of two axes, of a floating-point dtype and with finite values are
            examined, except embeddings and other tables, and leaves that are called a bias or a scale.
        rtol: singular values of up to rtol times the largest count as zero; None for the larger side times the machine
            eps, as in `metrics.numerical_rank`.

    Returns:
        A dict from paths to numerical ranks.

    Example:
        >>> import jax.numpy as jnp
        >>> low_rank_plan({"a": jnp.ones((4, 5)), "b": jnp.eye(4)})
        {'a': 1}
    """
    if rtol is not None:
        check_non_negative("rtol", rtol, schedules=False)
    return {
        path: rank
        for path, leaf in named_leaves(variables)
        if _may_be_factored(path, leaf) and np.ndim(leaf) == 2 and (rank := PRODUCT.rank(leaf, rtol)) is not None
    }


def _may_be_factored(path, leaf):
    is_kernel = jnp.issubdtype(leaf.dtype, jnp.floating) and is_selected_alone(path, np.ndim(leaf))
    return is_kernel and np.size(leaf) > 0 and np.isfinite(np.asarray(leaf, np.float64)).all()


def low_rank_model(
    model: Any,
    *example_args: Any,
    variables: Any = None,
    call: Callable[..., Any] | None = None,
    rtol: float | None = None,
    num_random: int = 2,
    tolerance: float | None = None,
) -> LowRank:
    """Replaces each kernel of low rank by two thin kernels, and shows that the model computes the same.

    In nnx a layer becomes two, the first without bias: `Linear`, `LinearGeneral`, `Einsum`, `Conv` and `ConvTranspose`,
    also inside attention. In linen these layers read `kernel_left` and `kernel_right`. In Equinox a convolution becomes
    two. Kernels of stacked layers are factored layer by layer, all to the largest rank. A convolution becomes a
    convolution to r channels and one of size 1.

    Any other matrix, such as a parameter in a module of your own, becomes a `Factored`, which can be multiplied by `@`.
    A kernel that the model uses in another way stays, and `refused` says why.

    Args:
        model, *example_args, variables, call: as in `compact_model`.
        rtol: as in `low_rank_plan`.
        num_random, tolerance: as in `verify`. The factors are equal to the matrix only up to rounding: give a tolerance
            for kernels in bfloat16.

    Returns:
        A `LowRank`.

    Raises:
        CompactionError: the outputs differ by more than the tolerance; the model cannot be called with these arguments.

    Example:
        >>> import jax.numpy as jnp
        >>> small = low_rank_model(lambda w, x: x @ w, jnp.ones((2, 6)), variables=jnp.ones((6, 8)))
        >>> small.ranks, small.num_params
        ({'': 1}, (48, 14))
    """
    check_comparison(num_random, tolerance)
    adapter = adapter_for(model, variables, call)
    trace_program(adapter.apply, adapter.variables, *example_args, explain=adapter.explain(example_args))
    layouts = adapter.layouts(*example_args)
    cuts, refused = {}, {}
    for path, leaf in named_leaves(adapter.variables):
        if not _may_be_factored(path, leaf):
            continue
        layout = layouts[path]
        if isinstance(layout, str):
            if any(other.rank(leaf, rtol) is not None for other in _layouts(np.ndim(leaf))):
                refused[path] = layout
            continue
        rank = layout.rank(leaf, rtol)
        if rank is None:
            continue
        reason = _reason_against(adapter, {path: Cut(layout, rank)}, example_args)
        if reason:
            refused[path] = reason
        else:
            cuts[path] = Cut(layout, rank)
    small_model, small, apply = adapter.factorize(cuts)
    batches = batches_for(example_args, num_random)
    if not batches:
        raise CompactionError(
            "Nothing can be shown of a model of low rank without a batch: give example arguments with values, or "
            f"`num_random` above 0, got {num_random}."
        )
    error, reason = compare_outputs(adapter.apply, adapter.variables, apply, small, batches, tolerance)
    if reason is not None:
        raise CompactionError(
            f"The model of low rank is not equal: {reason}. Use a larger rank for these matrices, or leave them out."
        )
    before, after = (sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree)) for tree in (adapter.variables, small))
    ranks = {path: cut.rank for path, cut in cuts.items()}
    return LowRank(small_model, small, apply, ranks, refused, Proof(0, len(batches), error), (before, after))


def _layouts(ndim):
    """The ways to read a leaf with that number of axes as a matrix."""
    return [Layout(0, split) for split in range(1, ndim)]


def _reason_against(adapter: Adapter, cuts, args):
    """Why the model cannot run with that kernel factored, or ""."""
    try:
        _, small, apply = adapter.factorize(cuts)
        held, arrays = hold_static(apply, args)
        jax.eval_shape(held, small, *arrays)
    except Exception as error:  # of any kind, from code that expects an array
        return f"{type(error).__name__}: {error}".split("\n")[0]
    return ""
