"""A target for the share that is really removed: it is counted by compaction, and met in training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import GroupLasso, Target
from ramda_jax.compaction import (
    CompactionError,
    compact,
    couple_model,
    plan_compaction,
    share_removed,
    trace_dims,
)
from ramda_jax.compaction.tracing.units.savings import total
from tests import tiny

PARAMS = tiny.normal_tree({"conv": (3, 3, 1, 6), "hidden": (2 * 2 * 6, 10), "gate": (2 * 2 * 6, 10), "out": (10, 3)})
IMAGES = jax.random.normal(jax.random.key(0), (4, 4, 4, 1))


def net(params, images):
    """A net with a flatten after a convolution, and units that two layers compute."""
    x = jax.lax.conv_general_dilated(images, params["conv"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jnp.tanh(x).reshape(len(x), -1)
    return (jnp.tanh(x @ params["hidden"]) * jnp.tanh(x @ params["gate"])) @ params["out"]


DIMS = trace_dims(net, PARAMS, IMAGES)
COUPLING = couple_model(net, IMAGES, variables=PARAMS, weight="saving")


def with_zeros(alive):
    packed = COUPLING.pack(PARAMS)
    coupled = {name: leaf * alive[f"coupled/{name}"] for name, leaf in packed["coupled"].items()}
    return COUPLING.unpack(packed | {"coupled": coupled}, PARAMS)


@pytest.mark.parametrize("of", ["parameters", "flops"])
def test_what_is_gone_is_what_the_small_net_lacks(of):
    removed = share_removed(DIMS, of, COUPLING.regularizer())
    sizes = {f"coupled/{name}": len(parts[0].rows) for name, parts in COUPLING.parts.items()}
    rng = np.random.default_rng(0)
    for chance in (1.0, 0.7, 0.2, 0.0):
        alive = {path: rng.random((size, 1)) < chance for path, size in sizes.items()}
        params = with_zeros(alive)
        small = compact(plan_compaction(DIMS, params), params)
        left = total(trace_dims(net, small, IMAGES), of) / total(DIMS, of)
        assert float(removed(alive)) == pytest.approx(1 - left, abs=1e-6)


@pytest.mark.slow
def test_training_leaves_the_parameters_that_were_asked_for():
    def gradient(params):
        return jax.grad(lambda p: jnp.mean((net(p, IMAGES) - jnp.sin(3 * IMAGES[:, :3, 0, 0])) ** 2))(params)

    regularizer = COUPLING.regularizer()
    target = Target(0.6, of=share_removed(DIMS, "parameters", regularizer), total_steps=1200, hold=900)
    method = ramda_jax.ramda(1e-2, regularizer, strength=target, averaging=1.0, restarts=(300, 600))
    params, _ = tiny.train(COUPLING.wrap(method), gradient, PARAMS, 1200)
    whole, left = plan_compaction(DIMS, params).num_params[:2]
    # A channel and its rows have 89 of 624 parameters.
    assert abs(left / whole - 0.4) < 89 / 624


def test_a_function_of_costs_is_those_costs_and_a_traced_share_is_the_number():
    """Bisection and the sorted sum give the same cap and the same steps of lambda."""
    costs = {"kernel": np.arange(1.0, 21)[:, None]}
    truth = tiny.normal_tree({"kernel": (20, 3)})
    params = {"kernel": jnp.zeros((20, 3))}

    def share(alive):
        return jnp.sum(jnp.where(alive["kernel"], 0, costs["kernel"])) / np.sum(costs["kernel"])

    @jax.jit
    def run(wanted):
        found = []
        for of in (costs, share):
            target = Target(wanted if of is share else 0.6, of=of, start=10.0, total_steps=60)
            optimizer = ramda_jax.ramda(0.1, {"kernel": GroupLasso()}, strength=target, averaging=1.0)
            found.append(tiny.train(optimizer, lambda one: jax.tree.map(jnp.subtract, one, truth), params, 60))
        return [(one, optax.tree.get(state, "strength")) for one, state in found]

    (by_costs, lambdas), (by_function, found) = run(0.6)
    assert 0 < float(jnp.mean(by_costs["kernel"] == 0)) < 1
    np.testing.assert_allclose(by_costs["kernel"], by_function["kernel"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(lambdas.current, found.current, rtol=1e-5)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="must be 'parameters' or 'flops', got 'bytes'"):
        share_removed(DIMS, "bytes", COUPLING.regularizer())  # pyright: ignore[reportArgumentType]
    with pytest.raises(CompactionError, match=r"must be that of coupled groups, got GroupLasso.*use `couple_model"):
        share_removed(DIMS, "parameters", GroupLasso())
    with pytest.raises(TypeError, match="must be 'weights', 'groups', a mapping of costs or a function, got 3"):
        Target(0.5, of=3)  # pyright: ignore[reportArgumentType]
    other = trace_dims(lambda params, x: x @ params["a"], {"a": jnp.ones((2, 2))}, jnp.ones((1, 2)))
    with pytest.raises(CompactionError, match="must be of the model that was traced"):
        share_removed(other, "parameters", COUPLING.regularizer())
