"""RigL: the number of weights in each layer, and which weights are dropped and grow."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples import rigl
from tests.tiny import array


def test_erdos_renyi_kernel_keeps_the_total_and_the_proportions():
    shapes = {"a": (3, 3, 16, 32), "b": (3, 3, 32, 64), "c": (64, 10)}
    densities = rigl.erdos_renyi_kernel(shapes, 0.1)
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    assert sum(densities[path] * sizes[path] for path in shapes) == pytest.approx(0.1 * sum(sizes.values()))
    # Evci et al.: a layer's density is proportional to (inputs + outputs + width + height) / their product.
    ratio = densities["a"] / densities["b"]
    assert ratio == pytest.approx((3 + 3 + 16 + 32) / sizes["a"] / ((3 + 3 + 32 + 64) / sizes["b"]))


def test_layers_that_the_rule_would_overfill_are_dense_and_the_others_make_up_for_it():
    shapes = {"small": (2, 2), "large": (100, 100)}
    densities = rigl.erdos_renyi_kernel(shapes, 0.1)
    assert densities["small"] == 1.0
    assert densities["large"] * 10_000 + 4 == pytest.approx(0.1 * 10_004)


def test_the_smallest_weights_are_dropped_and_the_largest_gradients_grow():
    mask = jnp.array([True, True, True, True, False, False, False])
    weights = jnp.array([0.1, -3.0, 0.2, 2.0, 0.0, 0.0, 0.0])
    grads = jnp.array([0.0, 9.0, 0.1, 9.0, -5.0, 1.0, 4.0])
    new, kept = rigl.move(mask, weights, grads, 0.5)
    np.testing.assert_array_equal(kept, [False, True, False, True, False, False, False])
    np.testing.assert_array_equal(new, [False, True, False, True, True, False, True])


def test_a_dropped_weight_of_a_large_gradient_grows_again():
    mask, weights = jnp.array([True, True, False]), jnp.array([0.1, 2.0, 0.0])
    new, kept = rigl.move(mask, weights, jnp.array([5.0, 0.0, 1.0]), 0.5)
    np.testing.assert_array_equal(new, [True, True, False])
    np.testing.assert_array_equal(kept, [False, True, False])


def make(every=5, until=1000, fraction=0.3):
    rng = np.random.default_rng(0)
    params = {"dense": {"kernel": array(rng.normal(size=(20, 30)), jnp.float32), "bias": jnp.ones(30)}}
    optimizer = rigl.rigl(optax.sgd(0.1), ["dense/kernel"], 0.2, fraction, every=every, until=until)
    state = optimizer.init(params)
    return optimizer, rigl.start(params, state), state


def test_the_density_stays_and_only_what_is_masked_is_zero():
    optimizer, params, state = make()
    step = jax.jit(optimizer.update)
    alive = int(state.masks["dense/kernel"].sum())
    assert alive == 120
    moved = 0
    for number in range(1, 21):
        grads = jax.tree.map(lambda p, number=number: jnp.cos(p * number + jnp.arange(p.shape[-1])), params)
        before = state
        updates, state = step(grads, state, params)
        params = optax.apply_updates(params, updates)
        mask = np.asarray(state.masks["dense/kernel"])
        assert mask.sum() == alive
        assert not np.asarray(params["dense"]["kernel"])[~mask].any()
        changed = (mask != before.masks["dense/kernel"]).any()
        assert changed == (number % 5 == 0)
        moved += changed
    assert moved == 4


def test_a_rewiring_step_trains_nothing_and_grows_at_zero():
    optimizer, params, state = make(every=1)
    # The gradient is zero where weights are, so that a dropped weight does not grow again at once.
    grads = {"dense": {"kernel": 1.0 * (params["dense"]["kernel"] == 0), "bias": jnp.ones(30)}}
    updates, new = optimizer.update(grads, state, params)
    after = optax.apply_updates(params, updates)
    grown = np.asarray(new.masks["dense/kernel"] & ~state.masks["dense/kernel"])
    kept = np.asarray(new.masks["dense/kernel"] & state.masks["dense/kernel"])
    assert grown.any()
    assert not np.asarray(after["dense"]["kernel"])[grown].any()
    np.testing.assert_array_equal(after["dense"]["kernel"][kept], params["dense"]["kernel"][kept])
    np.testing.assert_array_equal(after["dense"]["bias"], params["dense"]["bias"])


@pytest.mark.slow
def test_what_moves_becomes_less_by_a_cosine_and_stops():
    optimizer, params, state = make(every=1, until=10, fraction=0.5)
    moved = []
    for number in range(1, 13):
        # Only weights that are zero have gradients, with new values in each step, so that as many weights move as may.
        grads = jax.tree.map(lambda p, n=number: jax.random.normal(jax.random.key(n), p.shape) * (p == 0), params)
        grads["dense"]["bias"] = jnp.zeros(30)
        updates, new = optimizer.update(grads, state, params)
        moved.append(int((new.masks["dense/kernel"] & ~state.masks["dense/kernel"]).sum()))
        params, state = optax.apply_updates(params, updates), new
    # These are upper limits, because a dropped weight may grow again. The last two steps are ordinary.
    limits = [math.floor(0.5 * (1 + math.cos(math.pi * step / 10)) / 2 * 120) for step in range(1, 10)]
    assert all(0 < count <= limit for count, limit in zip(moved[:8], limits[:8], strict=True))
    assert moved[0] > 40 and moved[9:] == [0, 0, 0]


def test_a_density_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`density` must be in"):
        rigl.erdos_renyi_kernel({"a": (2, 2)}, 0.0)
