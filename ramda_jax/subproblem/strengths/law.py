"""The weight of psi at each step: strength times the model's weight, or by the law of a `Target`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.numerics import at_step, count
from ramda_jax.structure.belonging import FRESH
from ramda_jax.subproblem.leaf_problems import LeafProblem
from ramda_jax.subproblem.running.batches import Solved
from ramda_jax.subproblem.strengths.target import GAIN, Target
from ramda_jax.typing import StrengthSpec

# The share of W_hat is averaged over about this number of steps.
MEMORY = 10
# The largest change of log lambda in a step. It matters for stages of a few steps.
LARGEST_STEP = 0.2
# In the step `exact_at` the weight is q_t times 1 + ROUNDING machine epsilons.
ROUNDING = 16
# The number of a leaf's scores in the quantile; a larger leaf is sampled.
SAMPLE = 2**16


class TargetState(NamedTuple):
    """The state of a `Target`, instead of a number as strength.

    Attributes:
        current: `[]`, lambda of the last step.
        next: `[]`, lambda of the next step.
        weight: `[]`, A_t, the weight of psi in the last step.
        model_weight: `[]`, alpha_t, the model's own weight in the last step.
        share: `[]`, the share of W_hat that was zero in the last step.
        mean_share: `[]`, its average over some ten steps, which the law reads.
        is_constant: bool `[]`, whether lambda has been the same since the start of the stage, and the weight has been
            its product with the model's weight.
    """

    current: jax.Array
    next: jax.Array
    weight: jax.Array
    model_weight: jax.Array
    share: jax.Array
    mean_share: jax.Array
    is_constant: jax.Array


def initial_strength(strength: StrengthSpec, dtype: jax.typing.DTypeLike) -> Any:
    """The strength in a fresh state: 0, or a `TargetState`; by pattern for a mapping."""
    if isinstance(strength, Mapping):
        return {pattern: initial_strength(part, dtype) for pattern, part in strength.items()}
    if not isinstance(strength, Target):
        return jnp.zeros([], dtype)
    # A new array for each field: an array that occurs twice cannot be donated.
    current, weight, model_weight, share, mean_share = (jnp.zeros([], dtype) for _ in range(5))
    start = jnp.asarray(strength.start, dtype)
    return TargetState(current, start, weight, model_weight, share, mean_share, jnp.zeros([], bool))


def psi_weight(strength: Any, model: QuadraticModel) -> Any:
    """The weight of psi in the step of `model`; `strength` is that of the state after the same step.

    A strength by pattern has a weight by pattern.
    """
    if isinstance(strength, dict):
        return {pattern: psi_weight(part, model) for pattern, part in strength.items()}
    return strength.weight if isinstance(strength, TargetState) else jnp.asarray(model.weight) * strength


def strength_at_step(
    strength: optax.ScalarOrSchedule | Target,
    state: Any,
    model: QuadraticModel,
    step: jax.Array,
    problems: Callable[[], list[LeafProblem]],
) -> tuple[Any, jax.Array | None]:
    """The strength of this step.

    Args:
        strength: a number, a schedule or a `Target`.
        state: the strength in the state after the last step.
        model: the model, of trees.
        step: the 0-based step.
        problems: a function that returns the list of `LeafProblem`, with any weight.

    Returns:
        The strength for the state, and q_t, which is None unless the strength is a `Target`.

    Raises:
        ValueError: the state is that of a number and the strength a target, or the reverse.
    """
    if isinstance(strength, Target) != isinstance(state, TargetState):
        kinds = ("a number's", "a target's")
        raise ValueError(
            f"The state must be one of this optimizer's strength, got {kinds[isinstance(state, TargetState)]} in the "
            f"state and {kinds[isinstance(strength, Target)]} in the optimizer; {FRESH}"
        )
    if not isinstance(strength, Target):
        return at_step(strength, step, state.dtype), None
    strength = strength.at_step(step)
    dtype = state.weight.dtype
    model_weight = jnp.asarray(model.weight, dtype)
    value = state.next
    constant_weight = model_weight * value
    # In dual averaging W_hat reacts to a change of lambda by alpha_t / D_t, which grows without bound. So the weight is
    # a sum, in which a new lambda multiplies only new terms. alpha_t falls at the start of a stage, where the sum
    # restarts.
    is_first = (step == 0) | (model_weight < state.model_weight) | ~jnp.asarray(model.weight_is_sum)
    is_constant = is_first | (state.is_constant & (value == state.current))
    grown = state.weight + (model_weight - state.model_weight) * value
    is_exact = jnp.zeros([], bool) if strength.exact_at is None else step == strength.exact_at
    cap = jax.lax.cond(
        (step < strength.held_from()) | is_exact,
        lambda: zeroing_weight(problems(), strength).astype(dtype),
        lambda: jnp.asarray(jnp.inf, dtype),
    )
    weight = jnp.minimum(jnp.where(is_constant, constant_weight, grown), cap)
    # The solver may take the sum of a group in another order, so the border group needs a little more than its norm.
    weight = jnp.where(is_exact & jnp.isfinite(cap), cap * (1 + ROUNDING * jnp.finfo(dtype).eps), weight)
    is_constant &= weight == constant_weight
    return state._replace(current=value, weight=weight, model_weight=model_weight, is_constant=is_constant), cap


def after_solving(
    strength: optax.ScalarOrSchedule | Target,
    state: Any,
    cap: jax.Array | None,
    model: QuadraticModel,
    step: jax.Array,
    problems: list[LeafProblem],
    solved: Solved,
) -> Any:
    """The strength for the state after the step has been solved, with the lambda of the next step."""
    if not isinstance(strength, Target):
        return state
    assert cap is not None  # strength_at_step
    strength = strength.at_step(step)
    dtype = state.weight.dtype
    share = zero_share(problems, solved, strength).astype(dtype)
    mean_share = jnp.where(step == 0, share, state.mean_share + (share - state.mean_share) / MEMORY)
    stage = sum((step >= end for end in strength.ends), jnp.zeros([], jnp.int32))
    lengths = jnp.asarray(strength.stage_lengths(), dtype)
    change = jnp.clip(GAIN / lengths[stage] * (strength.share - mean_share), -LARGEST_STEP, LARGEST_STEP)
    is_capped = state.weight == cap
    moved = jnp.where(
        is_capped,
        jnp.minimum(state.current, cap / jnp.where(model.weight > 0, model.weight, 1)),
        state.current * jnp.exp(change),
    )
    tiny = jnp.finfo(dtype).tiny
    moved = jnp.where(jnp.isfinite(moved), jnp.maximum(moved, tiny), state.current)
    is_held = step + 1 >= strength.held_from()
    next_value = jnp.where(is_held, state.current, moved)
    return state._replace(share=share, mean_share=mean_share, next=next_value)


def zero_share(problems: list[LeafProblem], solved: Solved, target: Target) -> jax.Array:
    """The share of the solution that is zero; 0 if nothing counts."""
    zeros, total, masks = [], 0.0, {}
    for problem in problems:
        if problem.regularized is None:
            continue
        regularizer, radii = problem.regularized.regularizer, solved.radii.get(problem.path)
        alive = radii != 0 if radii is not None else regularizer.support(solved.values[problem.path])
        if callable(target.of):
            masks[problem.path] = alive
            continue
        if not problem.model.linear.size:
            continue  # groups without entries, as a compacted model may have, do not count
        costs = _costs(target, problem, alive)
        if costs.ndim == 0:
            # Count in integers, because a float32 sum of ones stops at 2^24.
            zeros.append(count(~alive).astype(costs.dtype) * costs)
            total += costs * alive.size
            continue
        zeros.append(jnp.sum(jnp.where(alive, 0, costs)))
        total += jnp.sum(jnp.broadcast_to(costs, alive.shape))
    if callable(target.of):
        return jnp.asarray(target.of(masks))
    return jnp.asarray(sum(zeros, jnp.zeros([])) / jnp.where(total > 0, total, 1))


def zeroing_weight(problems: list[LeafProblem], target: Target) -> jax.Array:
    """q_t, the smallest weight of psi for which the wanted share of the minimiser is zero; infinite without a leaf."""
    scores, costs, by_path = [], [], {}
    for problem in problems:
        if problem.regularized is None:
            continue
        score = problem.regularized.regularizer.zeroing_weight(problem.model.rhs, problem.model.metric)
        assert score is not None  # check_target
        if callable(target.of):
            by_path[problem.path] = score
            continue
        if not problem.model.linear.size:
            continue
        cost = jnp.broadcast_to(_costs(target, problem, score), score.shape)
        stride = -(-score.size // SAMPLE)
        # Every `stride`-th score represents its neighbours.
        scores.append(score.ravel()[::stride].astype(jnp.float32))
        costs.append(cost.ravel()[::stride].astype(jnp.float32) * stride)
    if callable(target.of):
        return _smallest(by_path, target)
    if not scores:
        return jnp.asarray(jnp.inf)
    scores, costs = jnp.concatenate(scores), jnp.concatenate(costs)
    order = jnp.argsort(scores)
    reached = jnp.cumsum(costs[order])
    index = jnp.searchsorted(reached, target.share * reached[-1])
    return scores[order][jnp.minimum(index, scores.size - 1)]


def _smallest(scores, target):
    """The smallest score such that removing all groups up to it removes the wanted share; found by bisection."""
    ordered = jnp.sort(jnp.concatenate([score.ravel() for score in scores.values()] or [jnp.zeros(0)]))
    if not ordered.size:
        return jnp.asarray(jnp.inf)

    def halve(_, borders):
        low, high = borders
        middle = (low + high) // 2
        is_enough = target.of({path: score > ordered[middle] for path, score in scores.items()}) >= target.share
        return jnp.where(is_enough, low, jnp.minimum(middle + 1, high)), jnp.where(is_enough, middle, high)

    ends = jnp.asarray(0), jnp.asarray(ordered.size - 1)
    _, border = jax.lax.fori_loop(0, ordered.size.bit_length(), halve, ends)
    return ordered[border]


def _costs(target, problem, groups):
    """The cost of each group, of a shape that broadcasts to that of `groups`."""
    if target.of == "groups":
        return jnp.ones([], jnp.float32)
    if target.of == "weights":
        return jnp.asarray(problem.regularized.regularizer.sizes(problem.model.linear.shape), jnp.float32)
    if problem.path not in target.of:
        raise ValueError(
            f"The costs of a `Target` must have every regularized leaf, but lack '{problem.path}'; add it to those of "
            f"{list(target.of)}, or leave it out of the regularizer by a pattern."
        )
    costs = jnp.asarray(target.of[problem.path], jnp.float32)
    if jnp.broadcast_shapes(costs.shape, groups.shape) != groups.shape:
        raise ValueError(
            f"The costs of a `Target` must broadcast to the groups' norms, got {costs.shape} where these have "
            f"{groups.shape} at '{problem.path}'; give one number per group, as `compaction.costs` does."
        )
    return costs
