"""The middle part of every method: from a quadratic model to the minimiser of model plus psi."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ramda_jax.builders.quadratic import QuadraticModel
from ramda_jax.numerics import next_count, scalars_dtype, sums_dtype
from ramda_jax.probe import PROBE_POINT
from ramda_jax.regularizers.groups import Grouped
from ramda_jax.structure.assignment import assign, assignment
from ramda_jax.structure.belonging import check_state
from ramda_jax.structure.paths import hidden_paths
from ramda_jax.subproblem.checks import check_model, checked_strength
from ramda_jax.subproblem.leaf_problems import leaf_problems
from ramda_jax.subproblem.rules.solvers import solver_rules
from ramda_jax.subproblem.rules.strengths import check_patterns_used
from ramda_jax.subproblem.running.batches import SOLVED_APART, solve_all, summary
from ramda_jax.subproblem.state import ProximalPointState, ProximalProblem, check_same_problem
from ramda_jax.subproblem.strengths.law import initial_strength, psi_weight
from ramda_jax.subproblem.strengths.parts import check_parts_fit, strength_parts, strengths_at_step
from ramda_jax.typing import RegularizerSpec, SolverSpec, StrengthSpec
from ramda_jax.validation import require_params


def proximal_point(
    regularizer: RegularizerSpec = None,
    strength: StrengthSpec | None = None,
    solver: SolverSpec = None,
) -> optax.GradientTransformationExtraArgs:
    """Minimises a quadratic model plus the regularizer.

        W_hat = argmin_W <linear, W> + 1/2 ||W - anchor||^2_metric + strength * weight * psi(W)

    This is the middle part of a chain. Its incoming updates are a `QuadraticModel`; its outgoing updates are W_hat,
    which `iterate_averaging` turns into Optax's updates.

    Args:
        regularizer: which leaf gets which psi: None, a `Regularizer`, a mapping of path patterns, or a tree
            (`structure.assignment`).
        strength: lambda >= 0, a scalar or a schedule of the 0-based step; or a `Target`; or a mapping to these from
            patterns on the regularized leaves' paths. In a mapping the first match wins, and leaves of one pattern
            share a lambda. With 0 every leaf is its centre, bit for bit as without a regularizer. Required with a
            regularizer.
        solver: a `Solver` for all regularizers; a mapping of patterns (`re.search` on the '/'-joined key path, first
            match wins) to a `Solver` or None; or None for each regularizer's `default_solver`.

    Returns:
        A `GradientTransformationExtraArgs` from `QuadraticModel` to W_hat.

    Raises:
        ValueError: strength is negative, or missing although there is a regularizer; the solver cannot solve for a
            regularizer; in `init` and `update`, a regularizer does not fit a leaf, or a pattern matches no leaf; in
            `update`, params are missing, or the model or the state does not belong to them, such as the state of
            another regularizer or solver.
        TypeError: an argument is not a regularizer or solver; in `update`, the updates are not a `QuadraticModel`.

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
    strength = checked_strength(regularizer, strength)
    parts = strength_parts(strength, assignment(regularizer))
    problem = ProximalProblem(assignment(regularizer), solver_rules(solver), tuple(parts))
    problem.solvers.check_alone(problem.assignment, "scalar")

    def init(params) -> Any:
        leaves = assign(problem.assignment, params)
        _, masked = hidden_paths(params)
        regularized = [(path, given) for path, _, given in leaves if given is not None]
        check_parts_fit(parts, regularized)
        if not masked:  # otherwise a pattern may match a hidden leaf
            problem.solvers.check_used(regularized)
            check_patterns_used(problem.patterns, [path for path, _ in regularized])
        dtype = scalars_dtype(params)
        radii = {
            # Compute the norms of zeros instead of making zeros, so that they are sharded like the solver's norms.
            path: regularizer.norms(jnp.zeros_like(leaf, dtype=sums_dtype(leaf.dtype)))
            for path, leaf, regularizer in leaves
            if isinstance(regularizer, Grouped) and problem.keeps_radii(path, regularizer)
        }
        return ProximalPointState(
            proximal_step=jnp.zeros([], jnp.int32),
            strength=initial_strength(strength, dtype),
            radii=radii if leaves else jnp.zeros([], dtype),
            info=summary([], dtype),
            problem=problem,
        )

    def update(updates, state, params=None, **extra_args) -> tuple[Any, Any]:
        if not isinstance(updates, QuadraticModel):
            raise TypeError(
                f"`proximal_point` must be given a `QuadraticModel`, got {type(updates).__name__}; put a model builder "
                "such as `dual_averaging` directly before it in the chain."
            )
        require_params(params)
        check_state(ProximalPointState, state)
        check_model(updates, params)
        check_same_problem(state.problem, problem, updates)
        step = state.proximal_step

        def problems(weight):
            return list(leaf_problems(problem, updates, weight, step, params, state.radii))

        strengths = strengths_at_step(parts, state.strength, updates, step, lambda: problems(updates.weight))
        leaves = problems(psi_weight(strengths.state, updates))
        # The weight serves only as a scalar whose value the compiler does not know (`xla.many_leaves`).
        solved = solve_all(leaves, step, jnp.asarray(updates.weight), extra_args.get(SOLVED_APART))
        strength_now = strengths.after_solving(leaves, solved)
        info = summary(solved.infos, state.info.residual.dtype)
        value = jax.tree.structure(updates.linear).unflatten([solved.values[leaf.path] for leaf in leaves])
        if PROBE_POINT in extra_args:  # from `check_last`, which asks for a known point
            value = jax.tree.map(lambda v: jnp.full_like(v, extra_args[PROBE_POINT]), value)
        new_state = ProximalPointState(
            proximal_step=next_count(step),
            strength=strength_now,
            radii=solved.radii if isinstance(state.radii, dict) else state.radii,
            info=info,
            problem=problem,
        )
        return value, new_state

    return optax.GradientTransformationExtraArgs(init, update)
