"""The distance to stationarity, against the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import L1, GroupLasso
from ramda_jax.metrics import stationarity
from tests import tiny


def test_stationarity_is_the_distance_to_the_subdifferential():
    params = tiny.normal_tree({"kernel": (4, 3), "entries": (2, 5), "bias": (3,)})
    params["kernel"] = params["kernel"].at[:2].set(0)
    params["entries"] = params["entries"].at[0].set(0)
    grads = tiny.normal_tree({"kernel": (4, 3), "entries": (2, 5), "bias": (3,)}, seed=1)
    spec = {"kernel": GroupLasso("input", group_weight=1.0), "entries": L1()}
    strength = 0.7
    w, g = (jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree) for tree in (params, grads))
    total = np.sum(g["bias"] ** 2)
    for row, grad in zip(w["kernel"], g["kernel"], strict=True):
        size = np.linalg.norm(row)
        alive = np.linalg.norm(grad + strength * row / (size or 1))
        total += (alive if size else max(np.linalg.norm(grad) - strength, 0)) ** 2
    dead = np.maximum(np.abs(g["entries"]) - strength, 0)
    total += np.sum(np.where(w["entries"] == 0, dead, g["entries"] + strength * np.sign(w["entries"])) ** 2)
    found = jax.jit(lambda *trees: stationarity(spec, strength, *trees))(grads, params)
    assert float(found) == pytest.approx(np.sqrt(total), rel=1e-5)


def test_stationarity_refuses_gradients_of_other_parameters():
    with pytest.raises(ValueError, match="Gradients must have the shapes"):
        stationarity(GroupLasso(), 0.1, {"kernel": jnp.ones((1, 2))}, {"kernel": jnp.ones((3, 2))})
