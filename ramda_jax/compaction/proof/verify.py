"""The proof that a small model computes the same as the whole model. Every model has its own proof.

Structure: both models are traced, and the small trace must be the whole trace without the planned indices. It has the
same primitives in the same order, applied to the corresponding values, with the same parameters and literals, and every
intermediate array has the shape that the labels predict. Together with the claim of the rules (`rules`) this is an
induction over the program. It detects a mean over a deleted channel, a width read from a shape, and a reshape with a
number in it.

Orders: if the layers of a stack are cut in different orders, the order of their units is free.

Liveness: deleted indices are read by exact zeros only; a small number does not count as zero.

Numbers: the outputs on random inputs and on the example arguments agree up to the rounding of the coarsest dtype in the
program. This detects a wrong rule.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.planning.liveness import Liveness
from ramda_jax.compaction.planning.make_plan import check_leaves, in_order
from ramda_jax.compaction.planning.orders import moves_of
from ramda_jax.compaction.planning.plan import Plan
from ramda_jax.compaction.proof.lines import line_of_error
from ramda_jax.compaction.proof.numbers import batches_for, check_comparison, coarsest, compare_outputs
from ramda_jax.compaction.proof.resized import Resized
from ramda_jax.compaction.proof.structure import READ_SIZE, Masks, Mismatch, find_mismatches
from ramda_jax.compaction.symmetry.follow import why_not_symmetric
from ramda_jax.compaction.tracing.function import Program, trace_program
from ramda_jax.compaction.tracing.trace import Dims, label_program, trace_function
from ramda_jax.structure.paths import named_leaves
from ramda_jax.typing import Tree


@dataclasses.dataclass(frozen=True)
class Proof:
    """The extent of a proof.

    Attributes:
        equations: the number of compared equations of the two traces.
        batches: the number of batches on which the outputs were compared.
        error: the largest difference of outputs, relative to the largest entry of the output.
    """

    equations: int
    batches: int
    error: float


def check_liveness(dims: Dims, variables: Any, plan: Plan) -> Mismatch | None:
    """Checks that nonzero entries of `variables` read nothing that `plan` deletes; None if this holds."""
    leaves = dict(named_leaves(variables))
    check_leaves({path: value.shape for path, value in dims.leaves.items()}, leaves)
    liveness = Liveness(dims, in_order({path: leaf.orders for path, leaf in plan.leaves.items()}, leaves))
    liveness.find_alive()
    kept = Masks(dims, plan).kept
    for width in dims.widths:
        lost = np.flatnonzero(liveness.alive[width.nodes] & ~kept[width.nodes])
        if len(lost):
            where = ", ".join(map(str, width.readers or width.members))
            why = f"which is frozen: {width.reason}" if width.reason else "which is not zero there"
            return Mismatch(f"index {lost[0]} of {width.name} is deleted but read by {where}, {why}")
    return None


def check_orders(dims: Dims, plan: Plan) -> Mismatch | None:
    """Checks that the model computes the same with each layer's units in the plan's order; None if this holds."""
    moves = {path: moves_of(leaf.orders) for path, leaf in plan.leaves.items() if leaf.orders}
    reason = why_not_symmetric(dims, moves) if moves else ""
    return Mismatch(f"the order of units in each layer matters: {reason}") if reason else None


def check_structure(
    small_fn: Callable[..., Any], small_variables: Tree, args: tuple[Any, ...], dims: Dims, plan: Plan
) -> list[Mismatch]:
    """The structural part: traces the small model and returns where it differs from the planned one."""
    program = trace_small("the small model", small_fn, small_variables, args, dims, plan)
    if isinstance(program, Mismatch):
        return [program]
    # This is outside of the `try`, because an error in here is an error of a rule, and not of the model.
    return list(find_mismatches(dims, plan, label_program(program, rules=dims.walk.rules, like=dims)))


def trace_small(
    what: str, small_fn: Callable[..., Any], small_variables: Tree, args: tuple[Any, ...], dims: Dims, plan: Plan
) -> Program | Mismatch:
    """Traces a small model for the arguments of the whole model, or says why it cannot be traced."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the whole model has shown its warnings already
            return trace_program(small_fn, small_variables, *Resized(dims, plan).inputs(_shapes(args)))
    except Exception as error:  # of any kind, from code that does not expect these sizes
        reason = f"{what} cannot be traced: {type(error).__name__}: {error}".split("\n")[0]
        return Mismatch(reason, line=line_of_error(error), remedy=READ_SIZE)


def _shapes(args):
    """Replaces arrays by their shapes. Other arguments stay, because they may choose the program."""

    def shape(leaf):
        is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array else leaf

    return jax.tree.map(shape, args)


def precision_of(dims: Dims) -> Any:
    """The dtype of least precision in which a program computes; None without floating-point numbers."""
    values = [value for visit in dims.walk.visits for value in (*visit.inputs, *visit.outputs)]
    return coarsest(value.dtype for value in values)


def verify(
    apply_fn: Any,
    variables: Any,
    small_fn: Any,
    small_variables: Any,
    *example_args: Any,
    plan: Plan,
    dims: Dims | None = None,
    num_random: int = 2,
    tolerance: float | None = None,
) -> Proof:
    """Proves that a small model computes the same as the whole model, or raises.

    Args:
        apply_fn, variables: the whole model, a function of (variables, *args).
        small_fn, small_variables: the small model.
        *example_args: a batch of arrays, or of shapes and dtypes. With the latter only random inputs are tried.
        plan: the plan by which the small variables were made.
        dims: the result of `trace_dims` for the whole model, with its rules, to save another trace.
        num_random: the number of batches of random inputs on which the outputs are compared, an int >= 0.
        tolerance: relative to the largest output. None means 1e-12 in float64, 1e-5 in float32, 1e-2 in float16 and
            5e-2 in bfloat16, for the coarsest dtype anywhere in the program.

    Returns:
        A `Proof`.

    Raises:
        CompactionError: the models differ, or outputs are not finite. The message says what differs, and where.
        ValueError: the tolerance is not finite, or negative.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ramda_jax import compaction
        >>> def mlp(params, x):
        ...     return jax.nn.relu(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 8)), "out": jnp.ones((8, 3)).at[2:].set(0)}
        >>> plan = compaction.plan_compaction(compaction.trace_dims(mlp, params, jnp.ones((4, 5))), params)
        >>> verify(mlp, params, mlp, compaction.compact(plan, params), jnp.ones((4, 5)), plan=plan).batches
        3
    """
    check_comparison(num_random, tolerance)
    dims = trace_function(apply_fn, variables, *example_args) if dims is None else dims
    check_leaves({path: leaf.shape for path, leaf in plan.leaves.items()}, dict(named_leaves(variables)))
    mismatch = check_orders(dims, plan) or check_liveness(dims, variables, plan)
    mismatches = [mismatch] if mismatch else check_structure(small_fn, small_variables, example_args, dims, plan)
    if mismatches:
        raise CompactionError(
            f"The small model is not the planned one: {mismatches[0]}; give the plan by which it was made, and make it "
            "with the plan's sizes."
        )
    batches = batches_for(example_args, num_random)
    error, reason = compare_outputs(
        apply_fn, variables, small_fn, small_variables, batches, tolerance, precision_of(dims), Resized(dims, plan)
    )
    if reason is not None:
        raise CompactionError(
            f"The small model is not equal: {reason}. Make its variables by `compact(plan, variables)`."
        )
    return Proof(len(dims.walk.visits), len(batches), error)
