"""The middle of every method: from a quadratic model to the minimiser of model plus psi."""

import dataclasses
import functools
import math
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from ramda_jax.many_leaves import SMALL, unstack
from ramda_jax.models.dual_averaging import NO_PARAMS
from ramda_jax.models.quadratic import QuadraticModel
from ramda_jax.numerics import at_step, next_count, norm, scalars_dtype, sums_dtype
from ramda_jax.probe import TARGET
from ramda_jax.regularizers.groups import GroupRegularizer
from ramda_jax.solvers.base import Context, Solver, SolverInfo, check_solver
from ramda_jax.solvers.blocks import center_if_weightless, solve_by_blocks
from ramda_jax.solvers.select import default_solver
from ramda_jax.structure.assignment import Assignment, assign, assignment
from ramda_jax.structure.belonging import FRESH, check_belongs, check_state, is_same_setting
from ramda_jax.structure.paths import named_leaves
from ramda_jax.validation import check_non_negative


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ProximalProblem:
    """What is solved and how, as a static part of the state; nothing in it depends on the parameters.

    Attributes:
        assignment: which leaf gets which regularizer.
        solver: the solver named, or None for the default of each regularizer.
    """

    assignment: Assignment
    solver: Solver | None

    def solver_for(self, regularizer, metric):
        """The solver of a leaf whose metric is an array: one number or one per entry."""
        kind = "scalar" if metric.ndim == 0 else "diagonal"
        if self.solver is None:
            return default_solver(regularizer, kind)
        check_solver(self.solver, regularizer, kind)
        return self.solver

    def keeps_radii(self, regularizer):
        return isinstance(regularizer, GroupRegularizer) and (self.solver is None or self.solver.keeps_radii)


def _serialize_with_flax(kind):
    """Tells `flax.serialization`, where it has been imported, that `kind` has nothing in it to store."""
    serialization = sys.modules.get("flax.serialization")
    if serialization is not None and not serialization.is_serializable(kind):
        serialization.register_serialization_state(kind, lambda problem: {}, lambda problem, stored: problem)


class _ProximalPointFields(NamedTuple):
    proximal_step: jax.Array
    strength: jax.Array
    radii: Any
    info: SolverInfo
    problem: ProximalProblem


class ProximalPointState(_ProximalPointFields):
    """State of `proximal_point`.

    Attributes:
        proximal_step: int32 `[]`, steps taken; what schedules are called with.
        strength: `[]`, lambda of the last step.
        radii: by the leaf's path, the groups' norms of the last solution, one number per group and exactly 0 where
            the group is; only leaves whose solver finds them. (A scalar 0 for a tree without leaves, which
            is how `optax.tree.map_params` sees that it does not have the parameters' shapes.)
        info: how the last solves went.
        problem: what is solved and how; static.
    """

    __slots__ = ()

    @property
    def problem(self):
        # flax.serialization asks for every field by its name before it looks up how to store it: late enough to know
        # that Flax is there, and early enough to tell it, without our importing it.
        _serialize_with_flax(ProximalProblem)
        return self[-1]


def proximal_point(
    regularizer=None, strength: optax.ScalarOrSchedule = 0.0, solver: Solver | None = None
) -> optax.GradientTransformationExtraArgs:
    """Minimises the model it is given plus the regularizer.

        W_hat = argmin_W <linear, W> + 1/2 ||W - anchor||^2_metric + strength * weight * psi(W)

    The middle part of a chain: its incoming updates are a `QuadraticModel`, its outgoing ones W_hat, which
    `iterate_averaging` turns into Optax's updates.

    Args:
        regularizer: which leaf gets which psi: None, a `Regularizer`, a mapping of path patterns, or a tree
            (`structure.assignment`).
        strength: lambda >= 0, a scalar or a schedule of the 0-based step. With 0 every leaf is its centre, bit by bit
            what it is without a regularizer.
        solver: a `Solver` for all the regularizers, or None for each one's `default_solver`.

    Returns:
        A `GradientTransformationExtraArgs` from `QuadraticModel` to W_hat.

    Raises:
        ValueError: a negative strength; a solver that cannot solve a regularizer; in `init` and `update`, a regularizer
            that does not fit a leaf, a pattern that matches no leaf; in `update`, no params, or a model or state that
            does not belong to them, such as the state of another regularizer or solver.
        TypeError: something that is no regularizer or solver; in `update`, updates that are no `QuadraticModel`.

    Example:
        >>> import jax.numpy as jnp, optax, ramda_jax
        >>> optimizer = optax.chain(
        ...     ramda_jax.dual_averaging(0.1),
        ...     ramda_jax.proximal_point(ramda_jax.GroupLasso(), strength=1.0),
        ...     ramda_jax.iterate_averaging(1.0))
        >>> params = {"kernel": jnp.array([[1.0, 1.0], [0.1, 0.1]])}
        >>> grads = {"kernel": jnp.array([[-9.0, 0.0], [0.0, 0.0]])}
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> optax.apply_updates(params, updates)["kernel"]
        Array([[1.7748538, 0.9341335],
               [0.       , 0.       ]], dtype=float32)
    """
    check_non_negative("strength", strength)
    problem = ProximalProblem(assignment(regularizer), solver)
    if solver is not None:
        if not isinstance(solver, Solver):
            raise TypeError(f"`solver` must be a `Solver` or None, got {solver!r}; use for example `SecularNewton()`.")
        for one in problem.assignment.regularizers:
            check_solver(solver, one, "scalar")

    def init(params) -> Any:
        leaves = assign(problem.assignment, params)
        dtype = scalars_dtype(params)
        radii = {
            # The norms of zeros, not zeros of their shape: sharded as the solver's will be.
            path: regularizer.norms(jnp.zeros_like(leaf, dtype=sums_dtype(leaf.dtype)))
            for path, leaf, regularizer in leaves
            if isinstance(regularizer, GroupRegularizer) and problem.keeps_radii(regularizer)
        }
        return ProximalPointState(
            proximal_step=jnp.zeros([], jnp.int32),
            strength=jnp.zeros([], dtype),
            radii=radii if leaves else jnp.zeros([], dtype),
            info=SolverInfo(jnp.zeros([], jnp.int32), jnp.zeros([], dtype), jnp.ones([], bool)),
            problem=problem,
        )

    def update(updates, state, params=None, **extra_args) -> tuple[Any, Any]:
        if not isinstance(updates, QuadraticModel):
            raise TypeError(
                f"`proximal_point` must be given a `QuadraticModel`, got {type(updates).__name__}; put a model builder "
                "such as `dual_averaging` directly before it in the chain."
            )
        if params is None:
            raise ValueError(NO_PARAMS)
        check_state(ProximalPointState, state)
        _check_problem(state.problem, problem)
        _check_model(updates, params)
        strength_now = at_step(strength, state.proximal_step, state.strength.dtype)
        value, radii, info = _solve(problem, updates, strength_now, state.proximal_step, params, state.radii)
        if TARGET in extra_args:
            value = jax.tree.map(lambda v: jnp.full_like(v, extra_args[TARGET]), value)
        dtype = state.info.residual.dtype
        new_state = ProximalPointState(
            proximal_step=next_count(state.proximal_step),
            strength=strength_now,
            radii=radii if isinstance(state.radii, dict) else state.radii,
            info=info._replace(residual=info.residual.astype(dtype)),
            problem=problem,
        )
        return value, new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _check_problem(given, own):
    if not is_same_setting(given, own):
        name = "solver" if given.assignment == own.assignment else "regularizer"
        one, other = (problem.solver if name == "solver" else problem.assignment for problem in (given, own))
        raise ValueError(
            f"The state must be one of this optimizer's {name}, got {_told(one)} in the state and {_told(other)} in "
            f"the optimizer; {FRESH}"
        )


def _told(setting):
    """A solver or an assignment as the user wrote it."""
    if not isinstance(setting, Assignment):
        return repr(setting)
    return repr({rule.key: rule.regularizer for rule in setting.rules} if setting.rules else setting.alone)


def _check_model(model, params):
    for name in ("linear", "anchor"):
        check_belongs(f"The model's `{name}`", getattr(model, name), "the parameters", params, FRESH)
    if any(jnp.ndim(metric) for metric in jax.tree.leaves(model.metric)):
        # Numbers alone are the metric of any shape.
        filled = jax.tree.map(lambda m, v: m if jnp.ndim(m) else v, model.metric, model.linear)
        check_belongs(
            "The model's `metric`", filled, "the parameters", params, "give a number or an array of a leaf's shape."
        )


def _check_radii(problem, leaves, radii):
    wanted = {
        path: one.radii_shape(tuple(leaf.shape))
        for path, leaf, one in leaves
        if isinstance(one, GroupRegularizer) and problem.keeps_radii(one)
    }
    found = {path: tuple(norms.shape) for path, norms in radii.items()}
    if found != wanted:
        path = min(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
        raise ValueError(
            f"The state's radii must be those of the parameters' groups, got {found.get(path)} where they have "
            f"{wanted.get(path)} at '{path}' (None: no such leaf); {FRESH}"
        )


def _problems(problem, model, strength, step, params, radii):
    """Pairs every leaf with its model, regularizer, solver and context; None where psi is 0."""
    leaves = assign(problem.assignment, model.linear)
    if isinstance(radii, dict):
        _check_radii(problem, leaves, radii)
    radii = radii if isinstance(radii, dict) else {}
    regularized = sum(math.prod(leaf.shape) for _, leaf, regularizer in leaves if regularizer is not None)
    models = model._replace(weight=jnp.asarray(model.weight) * strength).leaves()
    for (path, leaf, regularizer), leaf_model, start in zip(leaves, models, jax.tree.leaves(params), strict=True):
        if regularizer is None:
            yield path, leaf_model, None, None, None
            continue
        share = math.sqrt(leaf.size / max(regularized, 1))
        context = Context(start.astype(leaf_model.linear.dtype), step, share, radii.get(path))
        yield path, leaf_model, regularizer, problem.solver_for(regularizer, leaf_model.metric), context


def _solve(problem, model, strength, step, params, last_radii):
    values, radii, solutions = {}, {}, []
    batches = {}
    for path, leaf_model, regularizer, solver, context in _problems(problem, model, strength, step, params, last_radii):
        if regularizer is None:
            values[path] = leaf_model.center
            continue
        # Leaves of equal shape go in one batch where the regularizer asks for it, and where they are small: one solve
        # is compiled for all of them. Else each is its own, which saves the stacking.
        shape = (leaf_model.linear.shape, leaf_model.linear.dtype, leaf_model.metric.ndim)
        is_small = solver is not None and solver.iterates and leaf_model.linear.size < SMALL
        key = (regularizer, solver, *shape) if regularizer.batched or is_small else path
        batches.setdefault(key, (regularizer, solver, []))[2].append((path, leaf_model, context))
    after = jnp.asarray(step)
    for regularizer, solver, members in batches.values():
        members = [(path, model, dataclasses.replace(context, after=after)) for path, model, context in members]
        solved, solution = _solve_batch(solver, regularizer, members, jnp.asarray(model.weight))
        for (path, *_), (value, norms) in zip(members, solved, strict=True):
            values[path] = value
            if problem.keeps_radii(regularizer):
                radii[path] = norms
        solutions.append(solution)
        # Any scalar will do that is known when the leaf is solved; the number of steps of a closed form always is.
        if solver.iterates:
            after = jnp.max(solution.num_steps)
        elif solution.radii is not None:
            after = jnp.max(solution.radii, initial=0)
    info = SolverInfo(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.float32), jnp.ones([], bool))
    if solutions:
        info = SolverInfo(
            jnp.max(jnp.stack([jnp.max(solution.num_steps) for solution in solutions])),
            norm(jnp.stack([norm(solution.residual) for solution in solutions])),
            jnp.all(jnp.stack([jnp.all(solution.converged) for solution in solutions])),
        )
    leaves = [values[path] for path, _ in named_leaves(model.linear)]
    return jax.tree.structure(model.linear).unflatten(leaves), radii, info


def _solve_batch(solver, regularizer, members, scalar):
    """Solves leaves of equal shape, in one vectorised solve where there are several.

    Returns:
        The leaves' (value, radii), and the `Solution`, of all stacked where there are several.
    """
    if len(members) == 1:
        _, model, context = members[0]
        solution = _solve_leaf(solver, regularizer, model, context)
        return [(solution.value, solution.radii)], solution
    _, first, context = members[0]
    arrays, start, radii = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *[(model[:3], one.start, one.radii) for _, model, one in members]
    )
    # The scalars are the same for all, as is the share of a tolerance, their sizes being equal.
    model = QuadraticModel(*arrays, *first[3:])
    batch = _solve_stack(solver, regularizer, model, dataclasses.replace(context, start=start, radii=radii))
    return unstack((batch.value, batch.radii), len(members), scalar), batch


def _compiled(function):
    """Compiles `function(solver, regularizer, model, ...)` once for a solver, a regularizer and a shape.

    For steps outside of a user's `jit`, where every call of a solver would else compile its loops anew, which are other
    functions each time; inside of one nothing changes. What has no loop stays as it is, and so does what has a scalar
    metric: XLA multiplies by its reciprocal, and the centre would not have the bits that it has without a regularizer.
    """
    compiled = jax.jit(function, static_argnums=(0, 1))

    @functools.wraps(function)
    def call(solver, regularizer, model, *rest):
        is_traced = isinstance(model.linear, Tracer)
        chosen = compiled if solver.iterates and model.metric.ndim > 0 and not is_traced else function
        return chosen(solver, regularizer, model, *rest)

    return call


@_compiled
def _solve_leaf(solver, regularizer, model, context):
    return solve_by_blocks(solver, model, regularizer, context)


@_compiled
def _solve_stack(solver, regularizer, stack, context):
    def solve(arrays, start, radii):
        model = QuadraticModel(*arrays, *stack[3:])
        here = dataclasses.replace(context, start=start, radii=radii, axis_name="leaves")
        solved = solver.solve(model, regularizer, here)
        return solved._replace(value=center_if_weightless(model, solved.value))

    return jax.vmap(solve, axis_name="leaves")(stack[:3], context.start, context.radii)


@_compiled
def _restore_leaf(solver, regularizer, model, context, radii):
    return center_if_weightless(model, solver.restore(model, regularizer, context, radii))


def restore_solution(state: ProximalPointState, model: QuadraticModel, params) -> list:
    """The solution that `state` has last found, for the same model, as a list of (path, W_hat).

    Where radii are kept it is the step's own solution, its zero pattern included; with proximal gradient it
    is a solution of the same model, found anew from `params`.
    """
    values = []
    last_step = jnp.maximum(state.proximal_step - 1, 0)
    problem = state.problem
    problems = _problems(problem, model, state.strength, last_step, params, state.radii)
    for path, leaf_model, regularizer, solver, context in problems:
        if regularizer is None or solver is None or context is None:
            values.append((path, leaf_model.center))
            continue
        radii = state.radii[path] if problem.keeps_radii(regularizer) else None
        values.append((path, _restore_leaf(solver, regularizer, leaf_model, context, radii)))
    return values
