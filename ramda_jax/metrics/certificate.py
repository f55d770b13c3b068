"""Whether the structure will stay: a bound on the probability that a zero group becomes nonzero again."""

from typing import Any

import jax.numpy as jnp
import optax

from ramda_jax.builders.adaptive_dual_averaging import AdaptiveDualAveragingState
from ramda_jax.builders.dual_averaging import DualAveragingState
from ramda_jax.metrics.certificate_report import Certificate
from ramda_jax.metrics.group_numbers import GroupNumbers, LeafNumbers, is_known
from ramda_jax.metrics.second_moments import SecondMomentsState
from ramda_jax.metrics.spectral_numbers import SpectralNumbers
from ramda_jax.regularizers.nuclear_norm import NuclearNorm
from ramda_jax.structure.paths import named_leaves
from ramda_jax.subproblem.find_states import find_states, paired_states, plain_state
from ramda_jax.subproblem.packed import leaves_seen
from ramda_jax.subproblem.restore import last_problems, restore_by_path

#: 4 (9/8 + 9/4): the sums in Hajek and Renyi's inequality for the weights sqrt(k), at half the margin.
CONSTANT = 13.5
_DUAL_AVERAGING = (DualAveragingState, AdaptiveDualAveragingState)


def certificate(state: Any, params: optax.Params, earlier: Any = None) -> Certificate:
    """Bounds, for each zero group of RAMDA or RMDA, the probability that it is ever nonzero again in this stage.

        margin m   = lambda omega_g - ||rhs|| / alpha_t
        noise      = (sum over the group of U_t / alpha_t - (V_t / alpha_t)^2) / (1 - 9 / (8 t))
        bound      = min(1, (27/2) noise / (t (worst_margin - drift)^2))

    Here omega_g is the group's weight. A group is zero at step t iff its margin is not negative. `worst_margin` uses
    the larger of |rhs| and |V|, entry by entry, instead of |rhs|: the part of the anchor in rhs fades, and V does not
    contain it. The bound is that of Hajek and Renyi for the weighted average of the gradients. It is applied to half of
    the margin, because the observed margin has an error itself (docs/certificate.md has every step, and which one is an
    estimate).

    The promise is: if the mean gradient does not change, a zero group whose bound is at most b becomes nonzero with a
    probability of at most b. The sum of the bounds, `expected_revivals`, is the statement for the whole network. It is
    about W_hat, and so about W if c_t is 1. The learning rate and the strength must not change either.

    With the nuclear norm the groups are the singular values of W_hat, and a revival is a growth of the rank:

        slope G    = (rhs - metric W_hat) / alpha_t, its part outside of the row and column spaces of W_hat
        margin m_q = lambda - the q-th singular value of G
        distance   = (m_1^2 + ... + m_q^2)^(1/2), less what the anchor and the solver's error may do
        bound      = min(1, (27/2) noise / (t (distance - drift)^2)), of a rank that is larger by q

    `noise` and `drift` are of the whole matrix, in RAMDA with the weights max(D) / D of its metric D. For RMDA this is
    exact, and uses nothing but the premise. For RAMDA it also supposes that D keeps its proportions, and that later
    solves are not less exact than this one (docs/certificate.md, "The rank").

    The premise is an assumption. With `earlier` it is examined: the mean gradients of the two parts of the stage,
    before and after `earlier`, are compared. The part of their difference that noise does not explain (`drift`) is
    subtracted from the margin once more. Groups for which it is half of the margin or more are `drifting`.

    Args:
        state: an optimizer's state that contains that of `ramda` or `rmda`, in any wrappers, as for `eval_params`.
            RMDA's noise is known if `second_moments` stands before it. Otherwise it is infinite, and every bound is 1.
        params: the current parameters.
        earlier: a state of the same run from an earlier step, ideally from the middle of the stage so far; it must not
            have been donated. If it is of another stage or not earlier, the premise cannot be examined: the drift is
            infinite and every bound 1.

    Returns:
        A `Certificate`, by the paths of regularized leaves. It has the leaves with `GroupLasso`, `SparseGroupLasso`
        (and other convex group norms), `L1` and `NuclearNorm`; `left_out` has the paths of the others. It is a pytree.
        Call `certificate` under `jax.jit`. It reads V, U, the anchor and the parameters, also those of `earlier`, and
        computes one number per group. It needs no gradient, and no solve if the solver keeps radii. It takes as long as
        one or two steps of the optimizer, or two or three with `earlier`; for the nuclear norm a solve and three SVDs,
        or two solves and four SVDs.

    Raises:
        ValueError: there is no state of `ramda` or `rmda` in `state`; a state belongs to other parameters; no leaf has
            a regularizer that the certificate covers.

    Example:
        >>> import jax, jax.numpy as jnp, optax, ramda_jax
        >>> params = {"kernel": jnp.full((3, 2), 0.1)}
        >>> optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(group_weight=1.0), strength=1.0, averaging=1.0)
        >>> @jax.jit
        ... def step(params, state, key):
        ...     mean = params["kernel"] - jnp.array([[0.0], [0.0], [3.0]])
        ...     grads = {"kernel": mean + 0.1 * jax.random.normal(key, mean.shape)}
        ...     updates, state = optimizer.update(grads, state, params)
        ...     return optax.apply_updates(params, updates), state
        >>> state = optimizer.init(params)
        >>> for key in jax.random.split(jax.random.key(0), 200):
        ...     params, state = step(params, state, key)
        >>> found = ramda_jax.metrics.certificate(state, params)
        >>> found.bound["kernel"].ravel() < 0.01
        Array([ True,  True, False], dtype=bool)

    References:
        Hajek and Renyi, `Generalization of an inequality of Kolmogorov`, 1955. Chow, `A martingale inequality and the
        law of large numbers`, 1960.
    """
    pairs = _dual_averaging(state)
    before: list[tuple[Any, Any]] = [(None, None)] * len(pairs) if earlier is None else _dual_averaging(earlier)
    if len(before) != len(pairs):
        raise ValueError(
            f"`earlier` must be a state of the same optimizer, got one with {len(before)} states of ramda_jax where "
            f"`state` has {len(pairs)}; give what the optimizer has returned at an earlier step."
        )
    moments = [plain_state(found) for _, found in find_states(state, SecondMomentsState)]
    current = leaves_seen(state, params)
    leaves, left_out, spectral = {}, [], []
    for pair, earlier_pair in zip(pairs, before, strict=True):
        for path, leaf, found in _of_pair(pair, earlier_pair, moments, current):
            if leaf is None:
                left_out.append(path)
                continue
            leaves[path] = found
            if isinstance(leaf, SpectralNumbers):
                spectral.append(path)
    if not leaves:
        raise ValueError(
            "A certificate needs a leaf with a convex group norm, `L1` or `NuclearNorm`, got none; those with other "
            f"regularizers are {left_out}; use `StructureHistory` for these."
        )
    names = ("margin", "worst_margin", "noise", "bound", "norms", "drift", "movement")
    fields: dict[str, Any] = {name: {path: found[name] for path, found in leaves.items()} for name in names}
    if earlier is None:
        fields |= {"drift": None, "movement": None}
    steps = jnp.stack([model.stage_step for model, _ in pairs])
    return Certificate(stage_step=jnp.min(steps), left_out=tuple(left_out), spectral=tuple(spectral), **fields)


def _dual_averaging(state) -> list[tuple[Any, Any]]:
    pairs = [pair for pair in paired_states(state) if isinstance(pair[0], _DUAL_AVERAGING)]
    if not pairs:
        raise ValueError(
            "A certificate must be of `ramda` or `rmda`, got a state of other methods, in which the noise of a group "
            "does not vanish, so that nothing can be promised; use `StructureHistory` for these."
        )
    return pairs


def _of_pair(pair, earlier_pair, moments, current):
    """(path, numbers, the same by field) of the regularized leaves of an optimizer; None for a psi not covered."""
    state, proximal = pair
    old, old_proximal = earlier_pair
    model = state.quadratic_model()
    solution = restore_by_path(proximal, model, current)
    old_solution, old_sums = {}, {}
    if old is not None:
        old_solution = restore_by_path(old_proximal, old.quadratic_model(), current)
        old_sums = dict(named_leaves(old.grad_sum))
    squares = dict(named_leaves(getattr(state, "grad_sq_sum", None)))
    starts = [current[path] for path, _ in named_leaves(model.linear)]
    for path, leaf_model, regularized, _ in last_problems(proximal, model, starts):
        if regularized is None:
            continue
        leaf = _numbers(regularized.regularizer, state, leaf_model, solution[path])
        if leaf is None:
            yield path, None, None
            continue
        mean = leaf_model.linear / leaf.alpha
        second = _second_moment(leaf, state, squares.get(path), moments, path)
        noise = leaf.noise(second, mean)
        found = leaf.margins() | {"noise": noise, "norms": leaf.norms()}
        drift = jnp.zeros_like(noise)
        if old is not None:
            drift = leaf.drift(old, old_sums[path], noise)
            found |= {"drift": drift, "movement": leaf.movement(old_solution[path])}
        else:
            found |= {"drift": None, "movement": None}
        # A NaN is not above 0, so its bound is 1.
        left = found["worst_margin"] - drift
        ratio = jnp.sqrt(CONSTANT / leaf.steps) * jnp.sqrt(noise) / jnp.where(left > 0, left, 1)
        is_bounded = (found["norms"] == 0) & (left > 0) & (ratio < 1)
        found["bound"] = jnp.where(is_bounded, jnp.square(ratio), 1)
        yield path, leaf, found


def _numbers(regularizer, *leaf) -> LeafNumbers | None:
    """The numbers of a leaf, from its state, model and solution; None for a regularizer that is not covered."""
    if isinstance(regularizer, NuclearNorm):
        return SpectralNumbers(regularizer, *leaf)
    return GroupNumbers(regularizer, *leaf) if is_known(regularizer) else None


def _second_moment(leaf, state, squares, moments, path):
    """The weighted mean of the squared gradient, summed over each group; None if the state does not have it."""
    if squares is not None:
        return leaf.sums(squares / leaf.alpha)
    for moment in moments:
        if isinstance(moment.grad_sq_sum, dict) and path in moment.grad_sq_sum:
            # Both must have the same restarts; otherwise the sum is over other steps.
            is_same = moment.stage_step == state.stage_step
            sums = moment.grad_sq_sum[path]
            return leaf.of_blocks(jnp.where(is_same, sums / moment.weight_sum.astype(sums.dtype), jnp.inf))
    return None
