"""The distance to stationarity against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import L1, GroupLasso
from ramda_jax.metrics import scale_effect, stationarity
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


def normalised_net(kind):
    """A loss and its parameters. A normalisation of this kind reads the kernel `first`, and nothing reads `unread`."""
    params = tiny.normal_tree({"first": (5, 4), "last": (4, 3), "unread": (4, 2), "scale": (4,)})
    x, y = np.random.default_rng(0).standard_normal((32, 5)), np.arange(32) % 3
    axis = {"batch": 0, "layer": 1, "rms": 1, "none": None}[kind]

    @jax.jit
    def loss(params):
        hidden = jnp.asarray(x, jnp.float32) @ params["first"]
        if kind in ("batch", "layer"):
            hidden -= hidden.mean(axis=axis, keepdims=True)
        if kind != "none":
            hidden /= jnp.sqrt(jnp.mean(hidden**2, axis=axis, keepdims=True) + 1e-5)
        logits = jax.nn.relu(hidden * params["scale"]) @ params["last"]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(32), y])

    return loss, params


@pytest.mark.parametrize("kind", ["batch", "layer", "rms", "none"])
def test_scale_effect_is_zero_where_a_normalisation_reads_the_kernel(kind):
    loss, params = normalised_net(kind)
    effects = scale_effect(GroupLasso(), loss, params)
    assert list(effects) == ["first", "last", "unread"]
    assert effects["last"] > 0.1
    assert effects["first"] > 0.1 if kind == "none" else effects["first"] < 1e-3
    assert effects["unread"] == 0


def test_gradient_is_orthogonal_to_a_kernel_without_scale_effect_so_that_only_zero_is_stationary():
    loss, params = normalised_net("batch")
    grads = jax.jit(jax.grad(loss))(params)
    w, g = params["first"], grads["first"]
    assert abs(float(jnp.vdot(g, w))) < 1e-3 * float(jnp.linalg.norm(g) * jnp.linalg.norm(w))
    # So the distance to stationarity of this leaf alone is at least strength psi(w) / ||w||, at every scale.
    for scale in (1.0, 0.1):
        scaled = params | {"first": scale * w}
        slope = jax.jit(jax.grad(loss))(scaled)["first"]
        psi = float(GroupLasso("input", group_weight=1.0).value(scaled["first"]))
        found = stationarity(GroupLasso("input", group_weight=1.0), 0.5, {"w": slope}, {"w": scaled["first"]})
        assert float(found) > 0.99 * 0.5 * psi / float(jnp.linalg.norm(scaled["first"]))
