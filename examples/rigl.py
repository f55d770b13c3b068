"""RigL: training with a fixed number of weights, whose positions move. It is the baseline of the ICLR paper's Table 2.

Every few steps it drops the smallest weights, and adds the same number of weights at zero where gradients are largest.
Each layer keeps its share of weights, by the Erdos-Renyi-kernel rule.

References:
    Evci, Gale, Menick, Castro and Elsen, `Rigging the Lottery: Making All Tickets Winners`, ICML 2020,
    arXiv:1911.11134.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ramda_jax.structure import named_leaves


class RigLState(NamedTuple):
    """State of `rigl`.

    Attributes:
        rigl_step: int32 `[]`.
        masks: a bool array for every pruned leaf, by its path.
        inner: the wrapped optimizer's state.
    """

    rigl_step: jax.Array
    masks: dict
    inner: Any


def erdos_renyi_kernel(shapes, density):
    """The density of each layer: proportional to (sum of its kernel's sides) / (their product), and at most 1.

    Args:
        shapes: kernel shapes by path.
        density: the density of all layers together, in (0, 1].

    Returns:
        A dict from paths to densities. Layers to which the rule would give more than 1 are dense, and the others are
        sparser.
    """
    if not 0 < density <= 1:
        raise ValueError(f"`density` must be in (0, 1], got {density!r}; use 0.1 for a tenth.")
    dense = set()
    while True:
        budget = density * sum(map(math.prod, shapes.values())) - sum(math.prod(shapes[path]) for path in dense)
        raw = {path: sum(shape) / math.prod(shape) for path, shape in shapes.items() if path not in dense}
        total = sum(raw[path] * math.prod(shapes[path]) for path in raw)
        factor = budget / total if total else 0.0
        too_dense = {path for path, share in raw.items() if share * factor > 1}
        if not too_dense:
            return {path: 1.0 if path in dense else raw[path] * factor for path in shapes}
        dense |= too_dense


def _largest(scores, count):
    """Which entries are the `count` largest, exactly that number; of equal entries the first."""
    order = jnp.argsort(-scores.reshape(-1), stable=True)
    ranks = jnp.zeros(order.shape, jnp.int32).at[order].set(jnp.arange(order.size, dtype=jnp.int32))
    return (ranks < count).reshape(scores.shape)


def move(mask, weights, grads, fraction):
    """Drops the share `fraction` of the weights in `mask`, smallest first, and adds the same number by gradient.

    A dropped weight may be added again at once, as in the released code; it is 0 in both cases.
    """
    alive = jnp.sum(mask)
    moved = jnp.floor(fraction * alive).astype(jnp.int32)
    kept = _largest(jnp.where(mask, jnp.abs(weights), -1.0), alive - moved)
    grown = _largest(jnp.where(kept, -1.0, jnp.abs(grads)), moved)
    return kept | grown, kept


def rigl(inner, pruned, density=0.02, fraction=0.3, every=100, until=65_918, seed=0):
    """Wraps an optimizer so that it trains a moving part of the weights.

    The first masks are random. At every `every`-th step before `until`, instead of a step of `inner`, the share
    fraction (1 + cos(pi t / until)) / 2 of each layer's weights moves. Gradients must be taken at the masked weights,
    with respect to all weights, as `jax.grad` does. The first update sets masked weights to zero; apply `start` to the
    parameters to begin with these zeros.

    Args:
        inner: an Optax optimizer.
        pruned: the paths of the leaves to prune.
        density: the share of their weights that is not zero, in (0, 1].
        fraction: the share of the weights that move at first.
        every, until: the steps at which they move.
        seed: the seed of the first masks.

    Returns:
        A `GradientTransformationExtraArgs`.
    """
    pruned = tuple(pruned)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        leaves = dict(named_leaves(params))
        densities = erdos_renyi_kernel({path: leaves[path].shape for path in pruned}, density)
        masks = {}
        for number, path in enumerate(pruned):
            scores = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), number), leaves[path].shape)
            masks[path] = _largest(scores, round(densities[path] * leaves[path].size))
        return RigLState(jnp.zeros([], jnp.int32), masks, inner.init(params))

    def update(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError("`rigl` needs the parameters, got None; call `update(grads, state, params)`.")
        grads, weights = dict(named_leaves(updates)), dict(named_leaves(params))
        step = state.rigl_step + 1
        share = fraction * (1 + jnp.cos(jnp.pi * step / until)) / 2

        def train():
            masked = _map_named(
                lambda path, g: jnp.where(state.masks[path], g, 0) if path in state.masks else g, updates
            )
            new, inner_state = inner.update(masked, state.inner, params, **extra_args)
            return new, inner_state, state.masks, state.masks

        def rewire():
            moved = {path: move(mask, weights[path], grads[path], share) for path, mask in state.masks.items()}
            masks, kept = ({path: pair[i] for path, pair in moved.items()} for i in (0, 1))
            return jax.tree.map(jnp.zeros_like, updates), state.inner, masks, kept

        new, inner_state, masks, kept = jax.lax.cond((step % every == 0) & (step < until), rewire, train)

        def masked_update(path, update):
            if path not in kept:
                return update
            return jnp.where(kept[path], update, -weights[path]).astype(update.dtype)

        return _map_named(masked_update, new), RigLState(step, masks, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def start(params, state):
    """The parameters with zeros where `state` masks them."""
    return _map_named(lambda path, leaf: jnp.where(state.masks[path], leaf, 0) if path in state.masks else leaf, params)


def _map_named(function, tree):
    leaves = [function(path, leaf) for path, leaf in named_leaves(tree)]
    return jax.tree.structure(tree).unflatten(leaves)
