"""Random zero groups, and the comparison that the tests of equality make themselves."""

import jax
import jax.numpy as jnp
import numpy as np

import ramda_jax
from ramda_jax.structure import regularized_leaves
from ramda_jax.structure.paths import named_leaves
from tests.tiny import array

#: The largest allowed difference of outputs, relative to the largest output.
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


def zero_groups(params, rng, share=0.5, regularizer=None):
    """The parameters with a random share of the groups of each regularized leaf set to zero."""
    regularizer = regularizer or ramda_jax.GroupLasso("input")
    values = dict(named_leaves(params))
    for path, leaf, resolved in regularized_leaves(regularizer, params):
        shape = resolved.radii_shape(leaf.shape)
        values[path] = array(np.where(rng.random(shape) < share, 0, np.asarray(leaf)), leaf.dtype)
    return jax.tree.structure(params).unflatten(values[path] for path, _ in named_leaves(params))


def zero_readers(dims, variables, rng, share=0.5):
    """Variables in which nothing reads a random share of each free width's indices, and the other indices by width."""
    values = {path: leaf for path, leaf in named_leaves(variables)}
    alive = {}
    for width in dims.widths:
        if width.reason or not width.readers:
            continue
        dead = rng.random(width.size) < share
        dead[rng.integers(width.size)] = False
        alive[width.name] = tuple(np.flatnonzero(~dead).tolist())
        for member in width.readers:
            leaf = np.array(values[member.path])
            np.moveaxis(leaf, member.axis, 0)[np.isin(member.index, np.flatnonzero(dead))] = 0
            values[member.path] = jnp.asarray(leaf)
    return jax.tree.structure(variables).unflatten(values[path] for path, _ in named_leaves(variables)), alive


def relative_difference(one, other):
    """The largest difference of two trees of arrays, relative to the largest entry of each leaf of the first tree."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            continue
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        worst = max(worst, float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)))
    return worst
