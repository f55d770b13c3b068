"""RAMDA's chain with kernels for the leaves that they support; the chain itself updates the other leaves."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from ramda_jax.builders.adaptive_dual_averaging import AdaptiveDualAveragingState
from ramda_jax.builders.dual_averaging import next_step_size
from ramda_jax.builders.restarts import starts_stage
from ramda_jax.fused.claims import DTYPES, Claim, claim_leaf
from ramda_jax.fused.leaf_step import LeafArrays, StepScalars, step_leaf
from ramda_jax.numerics import at_step
from ramda_jax.probe import PROBE_POINT
from ramda_jax.solvers.base import Solution
from ramda_jax.solvers.secular_passes import PASSES, left_over
from ramda_jax.structure.assignment import assign
from ramda_jax.structure.belonging import check_state
from ramda_jax.subproblem.rules.strengths import pattern_for
from ramda_jax.subproblem.running.batches import SOLVED_APART
from ramda_jax.subproblem.state import ProximalPointState
from ramda_jax.subproblem.strengths.target import Target
from ramda_jax.xla.reductions import is_on_several_devices
from ramda_jax.xla.tile_kernels import by_chip
from ramda_jax.xla.tile_plans import Chip

#: From (gradients, state, params) to (params, state).
FusedStep: TypeAlias = Callable[[Any, Any, Any], tuple[Any, Any]]


class _Fused(optax.GradientTransformationExtraArgs):
    """RAMDA with kernels: an Optax transformation that can also write the parameters itself."""

    step: FusedStep

    def __new__(cls, init, update, step):
        made = super().__new__(cls, init, update)
        made.step = step
        return made


def fused_step(optimizer: optax.GradientTransformation) -> FusedStep:
    """`update` and `optax.apply_updates` in one, for RAMDA with kernels.

    A kernel then writes the parameters. Through `update` it writes an update, which is read again to be added.

    Args:
        optimizer: `ramda(..., fused=True)` itself, not in a chain or another wrapper.

    Returns:
        A function from (gradients, state, params) to (params, state), for use under `jax.jit`.

    Raises:
        TypeError: the optimizer is another one.

    Example:
        >>> import jax, jax.numpy as jnp, ramda_jax
        >>> optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), strength=1.0, averaging=1.0, fused=True)
        >>> params = {"kernel": jnp.array([[3.0, 4.0], [0.1, 0.1]])}
        >>> step = jax.jit(ramda_jax.fused_step(optimizer))
        >>> params, state = step({"kernel": jnp.zeros((2, 2))}, optimizer.init(params), params)
        >>> params["kernel"].shape
        (2, 2)
    """
    if not isinstance(optimizer, _Fused):
        raise TypeError(
            f"`optimizer` must be RAMDA with kernels, got {type(optimizer).__name__}; give `ramda(..., fused=True)` "
            "itself, and use `update` and `optax.apply_updates` where it is in a chain."
        )
    return optimizer.step


class ChainSettings(NamedTuple):
    """The settings of the chain's parts that a fused step needs.

    Attributes:
        parts: the builder, the proximal point and the averaging.
        learning_rate, averaging: schedules or numbers.
        restarts: the builder's restarts.
        strengths: the strengths by pattern (`strength_parts`).
        keeps_iterate: whether the averaging's state keeps the iterate.
    """

    parts: tuple[optax.GradientTransformationExtraArgs, ...]
    learning_rate: Any
    averaging: Any
    restarts: tuple[int, ...]
    strengths: dict[str | None, Any]
    keeps_iterate: bool


def fused_chain(settings: ChainSettings, fused: bool | Chip) -> optax.GradientTransformationExtraArgs:
    """The chain of `settings.parts`, with one kernel for each leaf that has a `Claim`.

    The state is that of the chain, so a run may continue with or without kernels.

    Args:
        settings: the chain.
        fused: True for kernels on the chips that have some, and the chain's own step on all others. For tests, the name
            of a chip: its kernels run in Pallas's interpreter on any device.
    """
    chain = optax.chain(*settings.parts)

    def run(gradients, state, params, extra_args, writes_params):
        def default():
            updates, new_state = chain.update(gradients, state, params, **extra_args)
            return (optax.apply_updates(params, updates) if writes_params else updates), new_state

        def kernels(chip, interpret=False):
            return _step(settings, chip, interpret, writes_params, gradients, state, params, extra_args)

        # The chain itself raises the errors about a state of another optimizer and about missing parameters.
        if PROBE_POINT in extra_args or not _is_of_chain(state) or params is None:
            return default()
        if fused is not True:
            return kernels(fused, interpret=True)
        traced = (x for x in jax.tree.leaves((gradients, state, params)) if isinstance(x, Tracer))
        return by_chip(default, kernels, next(traced, jnp.asarray(state[0].model_step)))

    def update(updates, state, params=None, **extra_args):
        return run(updates, state, params, extra_args, writes_params=False)

    def step(gradients, state, params):
        return run(gradients, state, params, {}, writes_params=True)

    return _Fused(chain.init, update, step)


def _is_of_chain(state):
    return isinstance(state, tuple) and len(state) == 3 and isinstance(state[0], AdaptiveDualAveragingState)


def _step(settings, chip, interpret, writes_params, gradients, state, params, extra_args):
    """(updates, state) after a step with kernels, or (params, state)."""
    builder, proximal, averager = settings.parts
    before, proximal_before, averaging_before = state
    # The chain's results for the leaves with kernels are not used, so XLA does not compute them.
    model, builder_state = builder.update(gradients, before, params)
    check_state(ProximalPointState, proximal_before)
    is_first = starts_stage(before.model_step, settings.restarts) if settings.restarts else None
    step_size = next_step_size(settings.learning_rate, before, is_first)[2]
    is_first = jnp.zeros([], bool) if is_first is None else is_first
    writes = writes_params and not settings.keeps_iterate
    averaging = at_step(settings.averaging, averaging_before.averaging_step, jnp.float32) if writes else jnp.ones([])
    leaves = zip(
        _claims(settings, proximal_before.problem, chip, model, params, gradients),
        *map(jax.tree.leaves, (gradients, params, before.grad_sum, before.grad_sq_sum, before.anchor)),
        strict=True,
    )
    stepped: dict[str, LeafArrays] = {}
    solvers = {}
    for (path, claim), gradient, leaf, grad_sum, grad_sq_sum, anchor in leaves:
        if claim is None:
            continue

        arrays = functools.partial(LeafArrays, grad_sum, grad_sq_sum, anchor)

        def solve(problem, path=path, claim=claim, gradient=gradient, leaf=leaf, arrays=arrays):
            scalars = StepScalars(step_size, builder_state.epsilon, problem.model.weight, is_first, averaging)
            after = stepped[path] = step_leaf(
                claim,
                scalars,
                gradient,
                leaf,
                arrays(problem.as_regularized().context.radii),
                restarts=bool(settings.restarts),
                writes_params=writes,
                interpret=interpret,
            )
            return _solution(claim, problem, after)

        solvers[path] = solve
    point, proximal_state = proximal.update(model, proximal_before, params, **{**extra_args, SOLVED_APART: solvers})
    updates, averaging_state = averager.update(point, averaging_before, params, **extra_args)
    result = optax.apply_updates(params, updates) if writes_params else updates
    names = [path for path, *_ in assign(proximal_before.problem.assignment, params)]

    def replaced(tree, field):
        values = [
            leaf if path not in stepped else getattr(stepped[path], field)
            for path, leaf in zip(names, jax.tree.leaves(tree), strict=True)
        ]
        return jax.tree.structure(tree).unflatten(values)

    builder_state = builder_state._replace(
        **{field: replaced(getattr(builder_state, field), field) for field in ("grad_sum", "grad_sq_sum", "anchor")}
    )
    result = replaced(result, "params") if writes else result
    return result, (builder_state, proximal_state, averaging_state)


def _claims(settings, problem, chip, model, params, gradients) -> list[tuple[str, Claim | None]]:
    """The path of every leaf with its claim, or None."""
    claims = []
    for (path, leaf, regularizer), metric, gradient in zip(
        assign(problem.assignment, params), *map(jax.tree.leaves, (model.metric, gradients)), strict=True
    ):
        claim = None
        # Sums of another dtype come from a state that was made elsewhere.
        has_dtypes = metric.dtype == jnp.float32 and str(gradient.dtype) in DTYPES
        if regularizer is not None and has_dtypes and not is_on_several_devices(leaf):
            solver = problem.solver_for(path, regularizer, metric)
            claim = claim_leaf(leaf, regularizer, solver, chip)
            strength = settings.strengths[pattern_for(tuple(settings.strengths), path)]
            if isinstance(claim, str) or isinstance(strength, Target):
                claim = None
        claims.append((path, claim))
    return claims


def _solution(claim, problem, after):
    """The `Solution` of a leaf that a kernel has updated, for `proximal_point`."""
    penalty = claim.regularizer.leaf_penalty(claim.plan.shape, problem.model.weight)
    residual, converged = left_over(after.errors, penalty.lam)
    passes = PASSES[jnp.finfo(after.errors.dtype).bits]
    # If the kernel has written the parameters, nothing reads W_hat.
    value = after.params.astype(problem.model.linear.dtype) if after.point is None else after.point
    return Solution(value, after.radii, jnp.asarray(passes, jnp.int32), residual, converged)
