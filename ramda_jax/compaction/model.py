"""Compaction in one call: trace, plan, cut and prove."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ramda_jax.compaction.adapters.choose import adapter_for, check_inputs, other_calls
from ramda_jax.compaction.adapters.trace_dims import trace_calls
from ramda_jax.compaction.after.report import Report, compaction_report
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.planning.plan import Plan
from ramda_jax.compaction.planning.slicing import compact, expand
from ramda_jax.compaction.proof.numbers import check_comparison
from ramda_jax.compaction.proof.resized import Resized
from ramda_jax.compaction.proof.verify import Proof, verify
from ramda_jax.compaction.search.attempt import Attempts
from ramda_jax.compaction.search.search import Search
from ramda_jax.compaction.storage.save import save_compact
from ramda_jax.compaction.tracing.rules import Rule
from ramda_jax.compaction.tracing.trace import Dims
from ramda_jax.compaction.tracing.widths import maker_of


@dataclasses.dataclass(frozen=True)
class Compaction:
    """A small model that was proved equal to the whole model.

    Attributes:
        model: the small model. For nnx and Equinox it is of the same kind; for linen a function like `module.apply`;
            for a function the function itself.
        variables: its variables; for nnx and Equinox they are in `model` too.
        apply: the small model as a function of (variables, *args), in evaluation mode.
        plan: the plan, which says what was kept.
        dims: the trace of the whole model.
        proof: the extent of the proof.
        refused: a dict from the names of the widths for which the proof failed to the reason for which they stay whole.
        not_empty: a dict from the names of the dead widths that keep an index, although `allow_empty` was given, to the
            reason.
        whole: the whole model's function and variables, with entries up to the threshold set to zero.
    """

    model: Any
    variables: Any
    apply: Callable[..., Any]
    plan: Plan
    dims: Dims
    proof: Proof
    refused: dict[str, str]
    whole: tuple[Callable[..., Any], Any]
    not_empty: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers that the model remembers and that had to change, such as `{"attention.num_heads": 2}`."""
        return {f"{module}.{name}" if module else name: number for module, name, number in self.plan.sizes}

    def report(self, *args: Any, regularizer: Any = None, params: Any = None, rounds: int = 20) -> Report:
        """`compaction_report` of this compaction: parameters, bytes, FLOPs and latency before and after."""
        return compaction_report(self, *args, regularizer=regularizer, params=params, rounds=rounds)

    def widths(self) -> dict[str, int]:
        """The remaining size of each width that may shrink, by the axis that makes it, for a configuration file.

        For example, `"up/kernel[1]"` has the number of units that the layer `up` has now. The widths of inputs and
        outputs, and other widths that always stay, are left out.
        """
        pairs = zip(self.plan.widths, self.dims.widths, strict=True)
        free = [(planned, traced) for planned, traced in pairs if not traced.reason]
        return {str(maker_of(traced, self.dims.leaves)): len(planned.kept) for planned, traced in free}

    def small_args(self, *args: Any) -> tuple[Any, ...]:
        """The arguments for the small model: those of the whole model, cut where `resize` allows it."""
        return Resized(self.dims, self.plan).inputs(args)

    def save(self, folder: str | Path) -> None:
        """Saves the plan and the small variables as they were proved (`save_compact`); `load_compact` reads them.

        After further training save the model's variables: `save_compact(folder, small.plan, nnx.state(small.model))`.
        """
        save_compact(folder, self.plan, self.variables)

    def __str__(self) -> str:
        lines = [str(self.plan)]
        lines += [f"{name} is {number} now" for name, number in self.sizes.items()]
        lines += [f"{name} had to stay: {reason}" for name, reason in self.refused.items()]
        lines += [f"{name} had to keep an index: {reason}" for name, reason in self.not_empty.items()]
        return "\n".join(lines)


def compact_model(
    model: Any,
    *example_args: Any,
    variables: Any = None,
    call: Callable[..., Any] | None = None,
    fit: Callable[..., Any] | None = None,
    overrides: Any = None,
    rules: Mapping[str, Rule] | None = None,
    resize: Mapping[Any, Any] | None = None,
    also: Sequence[Callable[..., Any]] = (),
    round_to: int = 1,
    threshold: float = 0.0,
    permute: bool = True,
    allow_empty: bool = False,
    strict: bool = False,
    num_random: int = 2,
    tolerance: float | None = None,
) -> Compaction:
    """Makes a model with zero groups smaller, and proves that it computes the same.

    It traces the model, plans what can be deleted, slices the variables, rebuilds the model for them, and proves the
    two models equal, by structure and by numbers (`verify`). If the structures differ, the widths that made the
    difference are kept whole, and the rest is tried again.

    Args:
        model: an `nnx.Module`; an Equinox module; a method of one; a linen module or a function of (variables, *args),
            with `variables`.
        *example_args: a batch to call the model with. Its axes keep their lengths, and its values are used in the
            proof. Python booleans, ints and strings are constants.
        variables: the variables, for linen modules and functions.
        call: how to call the model if it is not `model(*args)`: a function of (model, *args), of (module, variables,
            *args) for linen; for example `lambda model, x: jax.vmap(model)(x)` for Equinox.
        fit: a function that sets the sizes which the small model remembers, if they are not found automatically. It
            takes the small nnx or Equinox module, and changes it in place or returns it; for linen it takes (module,
            variables) and returns a module. The sizes of Flax's layers are known. For other modules, numbers that equal
            the size of a width are tried, and kept if the proof needs them.
        overrides, rules: as in `trace_dims`.
        resize: inputs that may shrink with the model, such as a cache. A mapping from their places among the arguments
            to the places of the outputs that they become, or None: `{1: 1}` for a model that is called with (tokens,
            cache) and returns (logits, cache). A path, such as `"1/key"`, names a part, and `{"cache": 1}` a collection
            of linen variables. `small.small_args` has the cut inputs.
        also: other ways to call the model with these arguments, as in `call`, which must work with the small model too.
            Parameters that only they use follow the widths that they share with the rest. The training mode of an nnx
            or Equinox module is one of them, if it can be called with these arguments.
        round_to, threshold, permute: as in `plan_compaction`.
        allow_empty: whether a width that nothing reads may lose all of its indices, as that between the layers of a
            residual branch that adds nothing. Its arrays have size 0 then, and XLA leaves its products, convolutions
            and normalisations out. Where the model cannot be run so, as with a code that divides by the number of
            heads, one index stays, and `not_empty` says why.
        strict: whether to raise at the first difference, instead of keeping the widths that made it.
        num_random, tolerance: as in `verify`.

    Returns:
        A `Compaction`, with the small model as `model`.

    Raises:
        CompactionError: no smaller model could be proved equal although there are indices that nothing reads; the
            message says why. A model without such indices is returned unchanged. Or the model cannot be called with
            these arguments.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def mlp(params, x):
        ...     return jax.nn.relu(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 8)), "out": jnp.ones((8, 3)).at[2:].set(0)}
        >>> small = compact_model(mlp, jnp.ones((4, 5)), variables=params)
        >>> jax.tree.map(jnp.shape, small.variables), small.proof.error
        ({'in': (5, 2), 'out': (2, 3)}, 0.0)
    """
    check_comparison(num_random, tolerance)
    adapter = adapter_for(model, variables, call, fit)
    check_inputs(model, adapter, example_args)
    others = other_calls(model, variables, call, fit, also)
    dims, others = trace_calls(adapter, others, example_args, overrides, rules, resize)
    attempts = Attempts(adapter, dims, example_args, round_to, threshold, permute, others)
    attempt, not_empty = Search(attempts).run(strict, allow_empty)
    if attempt.mismatches:
        raise CompactionError(
            f"The small model is not the planned one: {attempt.mismatches[0]}; use "
            "`strict=False`, which keeps what made the difference."
        )
    if attempt.refused and attempt.plan.changes_nothing:
        reasons = "; ".join(dict.fromkeys(attempt.refused.values()))
        # Each reason contains its remedy.
        raise CompactionError(f"Nothing can be deleted without changing what the model computes: {reasons}.")
    plan = dataclasses.replace(attempt.plan, sizes=tuple((*place, n) for place, n in attempt.sizes.items()))
    whole, small = adapter.variables, compact(plan, adapter.variables)
    small_model, small_apply = adapter.rebuild(small, attempt.sizes)
    if threshold:
        # Compare the small model with the whole model in which the entries that the plan took for zero are zero.
        whole = expand(plan, small)
    proof = verify(
        adapter.apply,
        whole,
        small_apply,
        small,
        *example_args,
        plan=plan,
        dims=dims,
        num_random=num_random,
        tolerance=tolerance,
    )
    whole_model = adapter.apply, whole
    return Compaction(small_model, small, small_apply, plan, dims, proof, attempt.refused, whole_model, not_empty)
