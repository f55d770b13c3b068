import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ramda_jax.compaction import CompactionError, Factored, factor, low_rank_model, low_rank_plan
from tests.compaction.patterns import relative_difference

RNG = np.random.default_rng(0)


def of_rank(rank, *shape):
    product = RNG.normal(size=(shape[0], rank)) @ RNG.normal(size=(rank, shape[1]))
    return jnp.asarray(product / np.sqrt(rank * shape[0]), jnp.float32)


def test_low_rank_plan_takes_matrices_that_are_smaller_as_two_factors():
    variables = {
        "low": of_rank(3, 12, 10),
        "border": of_rank(5, 10, 10),  # 5 * 20 = 10 * 10: nothing to gain
        "full": of_rank(10, 12, 10),
        "zero": jnp.zeros((4, 4)),
        "embedding": of_rank(1, 9, 9),
        "bias": jnp.ones(3),
    }
    assert low_rank_plan(variables) == {"low": 3, "zero": 1}
    assert low_rank_plan(variables)["low"] == np.linalg.matrix_rank(variables["low"], rtol=12 * 2.0**-23)


def test_factor_is_the_best_of_its_rank():
    matrix = np.asarray(of_rank(6, 6, 8), np.float64)
    pair = factor(jnp.asarray(matrix, jnp.float32), 4)
    found = np.asarray(pair.left, np.float64) @ np.asarray(pair.right, np.float64)
    # Eckart and Young: the error is what the singular values left out make.
    wanted = np.sqrt((np.linalg.svd(matrix, compute_uv=False)[4:] ** 2).sum())
    assert np.linalg.norm(found - matrix) == pytest.approx(wanted, rel=1e-5)
    assert pair.shape == (6, 8)


def test_nnx_linears_become_two():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(12, 10, rngs=rngs), nnx.Linear(10, 9, rngs=rngs)])
            self.head = nnx.Linear(9, 3, use_bias=False, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers:
                x = nnx.relu(layer(x))
            return self.head(x)

    net, x = Net(nnx.Rngs(0)), jnp.asarray(RNG.normal(size=(4, 12)), jnp.float32)
    net.layers[0].kernel.set_value(of_rank(2, 12, 10))
    bias = net.layers[0].bias
    assert bias is not None
    bias.set_value(jnp.asarray(RNG.normal(size=10), jnp.float32))
    net.head.kernel.set_value(of_rank(1, 9, 3))
    small = low_rank_model(net, x)
    assert small.ranks == {"head/kernel": 1, "layers/0/kernel": 2}
    assert small.num_params[0] - small.num_params[1] == 120 + 27 - 2 * 22 - 12
    assert small.proof.error <= 1e-5
    assert relative_difference(net(x), small.model(x)) <= 1e-5
    # The whole one is as it was.
    assert isinstance(net.head, nnx.Linear)


def test_linen_dense_reads_two_factors():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(10)(x))
            return nn.Dense(8, use_bias=False)(x)

    x = jnp.asarray(RNG.normal(size=(4, 12)), jnp.float32)
    variables = Net().init(jax.random.key(0), x)
    for name, shape in (("Dense_0", (12, 10)), ("Dense_1", (10, 8))):
        variables["params"][name]["kernel"] = of_rank(2, *shape)
    variables["params"]["Dense_0"]["bias"] = jnp.asarray(RNG.normal(size=10), jnp.float32)
    small = low_rank_model(Net(), x, variables=variables)
    assert set(small.ranks.values()) == {2}
    assert sorted(small.variables["params"]["Dense_1"]) == ["kernel_left", "kernel_right"]
    assert relative_difference(Net().apply(variables, x), small.model(small.variables, x)) <= 1e-5


def test_equinox_linear_holds_two_factors():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        layers: list

        def __call__(self, x):
            return self.layers[1](jnp.tanh(self.layers[0](x)))

    net = Net([eqx.nn.Linear(12, 10, key=jax.random.key(0)), eqx.nn.Linear(10, 9, key=jax.random.key(1))])
    net = eqx.tree_at(lambda net: net.layers[0].weight, net, of_rank(2, 10, 12))
    x = jnp.asarray(RNG.normal(size=(4, 12)), jnp.float32)
    small = low_rank_model(net, x, call=lambda model, batch: jax.vmap(model)(batch))
    assert small.ranks == {"layers/0/weight": 2}
    assert small.num_params[0] - small.num_params[1] == 120 - 2 * 22
    assert isinstance(small.model.layers[0].weight, Factored)
    assert relative_difference(jax.vmap(net)(x), jax.vmap(small.model)(x)) <= 1e-5
    assert isinstance(net.layers[0].weight, jax.Array)


def test_functions_multiply_factored_matrices_and_what_cannot_be_one_stays():
    params = {"product": of_rank(2, 12, 10), "looked_at": of_rank(2, 12, 10)}

    def function(params, x):
        return x @ params["product"] + jnp.sum(params["looked_at"], 0)

    x = jnp.asarray(RNG.normal(size=(4, 12)), jnp.float32)
    small = low_rank_model(function, x, variables=params)
    assert small.ranks == {"product": 2}
    assert list(small.refused) == ["looked_at"]
    assert isinstance(small.variables["product"], Factored)
    assert relative_difference(function(params, x), small.apply(small.variables, x)) <= 1e-5


def test_low_rank_model_refuses_what_changes_the_outputs():
    # All but three singular values count as zero at that tolerance, and they are not.
    left, right = (np.linalg.qr(RNG.normal(size=(10, 10)))[0] for _ in range(2))
    kernel = jnp.asarray(left * np.repeat([1.0, 0.4], [3, 7]) @ right, jnp.float32)
    with pytest.raises(CompactionError, match="The model of low rank is not equal: outputs differ by"):
        low_rank_model(lambda w, x: x @ w, jnp.ones((2, 10)), variables=kernel, rtol=0.5)
