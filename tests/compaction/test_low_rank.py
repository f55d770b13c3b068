from typing import Any

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
    # Eckart and Young: the error is the norm of the omitted singular values.
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
    # The whole model is unchanged.
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
    # With this tolerance all but three singular values count as zero, but they are not.
    left, right = (np.linalg.qr(RNG.normal(size=(10, 10)))[0] for _ in range(2))
    kernel = jnp.asarray(left * np.repeat([1.0, 0.4], [3, 7]) @ right, jnp.float32)
    with pytest.raises(CompactionError, match="The model of low rank is not equal: outputs differ by"):
        low_rank_model(lambda w, x: x @ w, jnp.ones((2, 10)), variables=kernel, rtol=0.5)


def low(rank, *shape, split):
    """An array that is a matrix of this rank if the axes before `split` are its rows."""
    rows, columns = np.prod(shape[:split]), np.prod(shape[split:])
    return of_rank(rank, int(rows), int(columns)).reshape(shape)


def images(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


class Layers(nnx.Module):
    """A sequence of all nnx layers whose kernels may become two factors."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 12, (3, 3), strides=2, rngs=rngs)
        self.up = nnx.ConvTranspose(12, 12, (2, 2), strides=(2, 2), use_bias=False, rngs=rngs)
        self.split = nnx.LinearGeneral(12, (3, 4), rngs=rngs)
        self.join = nnx.LinearGeneral((3, 4), 10, axis=(-2, -1), rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 10, decode=False, rngs=rngs)
        self.forth = nnx.Einsum("...d,dnh->...nh", (10, 2, 6), (2, 6), rngs=rngs)
        self.back = nnx.Einsum("bsnh,dnh->bsd", (9, 2, 6), rngs=rngs)

    def __call__(self, x):
        x = self.join(self.split(self.up(nnx.relu(self.conv(x)))))
        x = self.attention(x.reshape(x.shape[0], -1, x.shape[-1]))
        return self.back(self.forth(x))


RANKS = {
    "conv": (2, 3),
    "up": (3, 3),
    "split": (1, 1),
    "join": (2, 2),
    "attention/query": (2, 1),
    "attention/out": (1, 2),
    "forth": (2, 1),
    "back": (1, 1),
}


def test_every_layer_of_nnx_becomes_two():
    net, x = Layers(nnx.Rngs(0)), images(2, 6, 6, 3)
    whole, saved = {}, 0
    for path, (rank, split) in RANKS.items():
        layer = net
        for name in path.split("/"):
            layer = getattr(layer, name)
        shape = layer.kernel.get_value().shape
        layer.kernel.set_value(low(rank, *shape, split=split))
        if layer.bias is not None:
            layer.bias.set_value(images(*layer.bias.get_value().shape))
        whole[f"{path}/kernel"] = rank
        rows, columns = np.prod(shape[:split]), np.prod(shape[split:])
        saved += int(rows * columns - rank * (rows + columns))
    small = low_rank_model(net, x)
    assert small.ranks == whole and not small.refused
    assert small.num_params[0] - small.num_params[1] == saved
    assert relative_difference(net(x), small.model(x)) <= 1e-5
    assert isinstance(net.conv, nnx.Conv) and isinstance(net.attention.query, nnx.LinearGeneral)


def test_a_layer_that_several_modules_share_stays_shared():
    class Holder(nnx.Module):
        def __init__(self, layer):
            self.layer = layer

    class Net(nnx.Module):
        def __init__(self, rngs):
            shared = nnx.Linear(12, 12, rngs=rngs)
            shared.kernel.set_value(of_rank(2, 12, 12))
            self.first, self.second = Holder(shared), Holder(shared)
            self.listed, self.named = nnx.List([shared, nnx.relu]), nnx.Dict({"shared": shared})

        def __call__(self, x):
            x = nnx.relu(self.second.layer(self.first.layer(x)))
            return self.named["shared"](self.listed[0](x))

    net, x = Net(nnx.Rngs(0)), images(2, 12)
    small = low_rank_model(net, x)
    assert len(small.ranks) == 1
    assert small.num_params[0] - small.num_params[1] == 144 - 2 * 24
    assert relative_difference(net(x), small.model(x)) <= 1e-5


def test_stacked_layers_are_factored_one_by_one():
    class Block(nnx.Module):
        def __init__(self, rngs):
            self.up, self.down = nnx.Linear(6, 12, rngs=rngs), nnx.Linear(12, 6, rngs=rngs)

        def __call__(self, x):
            return x + self.down(nnx.gelu(self.up(x)))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.vmap(Block)(rngs.split(3))

        def __call__(self, x):
            return nnx.scan(lambda x, block: (block(x), None), in_axes=(nnx.Carry, 0))(x, self.blocks)[0]

    net, x = Net(nnx.Rngs(0)), images(2, 6)
    net.blocks.up.kernel.set_value(jnp.stack([of_rank(rank, 6, 12) for rank in (1, 2, 1)]))
    small = low_rank_model(net, x)
    assert small.ranks == {"blocks/up/kernel": 2}
    assert small.num_params[0] - small.num_params[1] == 3 * (6 * 12 - 2 * 18)
    assert relative_difference(net(x), small.model(x)) <= 1e-5


@pytest.mark.parametrize("read", [lambda kernel: kernel, lambda kernel: kernel[...], lambda kernel: kernel.get_value()])
def test_a_users_own_linear_layer_multiplies_by_both(read):
    class Own(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(of_rank(2, 9, 8))

        def __call__(self, x):
            return x @ read(self.weight)

    class Net(nnx.Module):
        def __init__(self):
            self.own, self.bent = Own(), nnx.Param(of_rank(1, 8, 8))

        def __call__(self, x):
            return self.own(x) + jnp.sum(self.bent[...] ** 2)

    net, x = Net(), images(3, 9)
    small = low_rank_model(net, x)
    assert small.ranks == {"own/weight": 2}
    assert list(small.refused) == ["bent"]
    assert relative_difference(net(x), small.model(x)) <= 1e-5
    assert {tuple(leaf.shape) for leaf in jax.tree.leaves(nnx.state(small.model))} == {(9, 2), (2, 8), (8, 8)}


REFUSED = {
    "groups": (lambda rngs: nnx.Conv(8, 8, (1, 1), feature_group_count=2, rngs=rngs), "must be without groups"),
    "batch_axis": (
        lambda rngs: nnx.LinearGeneral(8, 8, batch_axis={0: 2}, rngs=rngs),
        "must be without `batch_axis`",
    ),
    "shared axis": (
        lambda rngs: nnx.Einsum("bnd,ndh->bnh", (2, 8, 8), rngs=rngs),
        "must be summed with the inputs, or in the result alone",
    ),
    "summed apart": (
        lambda rngs: nnx.Einsum("bnd,nhd->bh", (2, 8, 8), rngs=rngs),
        "that are summed must be next to each other",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_two_layers_is_refused_by_its_reason(case):
    make, reason = REFUSED[case]

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layer = make(rngs)

        def __call__(self, x):
            return self.layer(x)

    net = Net(nnx.Rngs(0))
    shape = net.layer.kernel.get_value().shape
    net.layer.kernel.set_value(jnp.ones(shape))
    x = images(2, 2, 8) if case != "groups" else images(2, 3, 3, 8)
    small = low_rank_model(net, x)
    assert not small.ranks and reason in small.refused["layer/kernel"]
    assert relative_difference(net(x), small.model(x)) == 0


@pytest.mark.slow
def test_every_layer_of_linen_reads_two_factors():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(12, (3, 3), strides=2, name="conv")(x))
            x = nn.ConvTranspose(12, (2, 2), strides=(2, 2), use_bias=False, name="up")(x)
            x = nn.DenseGeneral((3, 4), name="split")(x)
            x = nn.DenseGeneral(10, axis=(-2, -1), name="join")(x)
            x = nn.MultiHeadDotProductAttention(2, name="attention")(x.reshape(x.shape[0], -1, x.shape[-1]))
            x = nn.Einsum((10, 2, 6), "bsd,dnh->bsnh", name="forth")(x)
            x = nn.Einsum((9, 2, 6), "bsnh,dnh->bsd", use_bias=False, name="back")(x)
            return x @ self.param("own", nn.initializers.normal(), (9, 8))

    x = images(2, 6, 6, 3)
    variables = Net().init(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: images(*leaf.shape), variables["params"])
    params["own"] = of_rank(1, 9, 8)
    for path, (rank, split) in RANKS.items():
        layer = params
        for name in path.split("/"):
            layer = layer[name]
        layer["kernel"] = low(rank, *layer["kernel"].shape, split=split)
    variables = {"params": params}
    small = low_rank_model(Net(), x, variables=variables, tolerance=1e-4)
    assert small.ranks == {f"params/{path}/kernel": rank for path, (rank, _) in RANKS.items()} | {"params/own": 1}
    assert not small.refused
    assert small.variables["params"]["attention"]["query"]["kernel_left"].shape == (10, 2)
    assert relative_difference(Net().apply(variables, x), small.model(small.variables, x)) <= 1e-4
    jax.grad(lambda variables: small.model(variables, x).sum())(small.variables)


def test_linen_layers_in_a_scan_are_factored_one_by_one():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return x + nn.Dense(6, name="down")(nn.gelu(nn.Dense(12, name="up")(x))), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            return stack(name="blocks")(x, None)[0]

    x = images(2, 6)
    variables = Net().init(jax.random.key(0), x)
    kernel = jnp.stack([of_rank(rank, 6, 12) for rank in (1, 2, 1)])
    variables["params"]["blocks"]["up"]["kernel"] = kernel
    small = low_rank_model(Net(), x, variables=variables)
    assert small.ranks == {"params/blocks/up/kernel": 2}
    assert small.variables["params"]["blocks"]["up"]["kernel_left"].shape == (3, 6, 2)
    assert relative_difference(Net().apply(variables, x), small.model(small.variables, x)) <= 1e-5


def test_equinox_convolutions_become_two_and_attention_multiplies_by_both():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        conv: Any
        grouped: Any
        attention: Any

        def __call__(self, x):
            x = jax.nn.relu(self.grouped(self.conv(x)))
            x = x.reshape(x.shape[0], -1).T
            return self.attention(x, x, x)

    keys = jax.random.split(jax.random.key(0), 3)
    net = Net(
        eqx.nn.Conv2d(3, 8, 3, padding=1, key=keys[0]),
        eqx.nn.Conv2d(8, 8, 3, groups=8, key=keys[1]),
        eqx.nn.MultiheadAttention(2, 8, key=keys[2]),
    )
    net = eqx.tree_at(
        lambda net: (net.conv.weight, net.grouped.weight, net.attention.query_proj.weight),
        net,
        (low(2, 8, 3, 3, 3, split=1), jnp.ones((8, 1, 3, 3)), of_rank(1, 8, 8)),
    )
    x = images(3, 5, 5)
    small = low_rank_model(net, x)
    assert small.ranks == {"conv/weight": 2, "attention/query_proj/weight": 1}
    assert list(small.refused) == ["grouped/weight"]
    assert relative_difference(net(x), small.model(x)) <= 1e-5
    assert small.num_params[0] - small.num_params[1] == 8 * 27 - 2 * 35 + 64 - 16
