"""Sizes that models store as numbers: they are found, proved and set. Other numbers with equal values stay."""

import dataclasses
import types
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ramda_jax.compaction import CompactionError, Plan, compact, compact_model, rebuild
from ramda_jax.compaction.adapters.linen import sizes_from_variables
from tests import tiny
from tests.compaction.patterns import relative_difference
from tests.tiny import array

SEQUENCES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 12)), jnp.float32)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)


def fresh(x):
    """Other inputs, with another batch size."""
    return jnp.asarray(np.random.default_rng(5).normal(size=(3, *x.shape[1:])), x.dtype)


def assert_same(grads, small_grads):
    """Checks that two trees of gradients are equal up to rounding; some are zero up to rounding."""
    grads, small_grads = ([np.asarray(leaf) for leaf in jax.tree.leaves(tree)] for tree in (grads, small_grads))
    largest = max(np.abs(one).max() for one in grads)
    assert all(np.abs(one - other).max() <= 1e-5 * largest for one, other in zip(grads, small_grads, strict=True))


def check_nnx(model, x, *, fit=None):
    """The compaction of a model, after checking that outputs and gradients are equal."""
    small = compact_model(model, x, fit=fit, num_random=0)
    assert not small.plan.changes_nothing

    @nnx.jit
    def value_and_grads(model, x):
        def loss(model):
            y = model(x)
            return jnp.sum(jnp.sin(y)), y

        return nnx.value_and_grad(loss, has_aux=True)(model)

    (_, wanted), grads = value_and_grads(model, fresh(x))
    (_, found), small_grads = value_and_grads(small.model, fresh(x))
    assert relative_difference(wanted, found) <= 1e-5
    assert_same(compact(small.plan, grads), small_grads)
    return small


def check_linen(module, x, variables, *, fit=None):
    small = compact_model(module, x, variables=variables, fit=fit, num_random=0)
    assert not small.plan.changes_nothing

    @jax.jit
    def value_and_grads(variables, x):
        return jax.value_and_grad(lambda v: jnp.sum(jnp.sin(module.apply(v, x))))(variables)

    @jax.jit
    def small_value_and_grads(variables, x):
        return jax.value_and_grad(lambda v: jnp.sum(jnp.sin(small.model(v, x))))(variables)

    wanted, grads = value_and_grads(variables, fresh(x))
    found, small_grads = small_value_and_grads(small.variables, fresh(x))
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    assert_same(compact(small.plan, grads), small_grads)
    return small


def zeroed(kernel, axis, dead):
    values = np.array(kernel[...])
    np.moveaxis(values, axis, 0)[np.array(dead)] = 0
    kernel[...] = array(values)


@dataclasses.dataclass(frozen=True)
class Config:
    heads: int = 4
    size: int = 3
    classes: int = 4


class Attention(nnx.Module):
    """Handwritten attention with fewer heads of keys and values than of queries."""

    def __init__(self, rngs, heads=4, kv_heads=2, size=3):
        self.num_heads, self.num_kv_heads, self.head_dim = heads, kv_heads, size
        # These numbers have the same values, but count something else and are not used in a call.
        self.num_classes, self.num_steps = 4, 2
        self.q, self.k, self.v = (nnx.Linear(12, n * size, rngs=rngs) for n in (heads, kv_heads, kv_heads))
        self.o = nnx.Linear(heads * size, 12, rngs=rngs)

    def __call__(self, x):
        b, t, _ = x.shape
        q = self.q(x).reshape(b, t, self.num_heads, self.head_dim)
        k, v = (project(x).reshape(b, t, self.num_kv_heads, self.head_dim) for project in (self.k, self.v))
        k, v = (jnp.repeat(array, self.num_heads // self.num_kv_heads, axis=2) for array in (k, v))
        a = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, k) * self.head_dim**-0.5)
        return self.o(jnp.einsum("bnts,bsnh->btnh", a, v).reshape(b, t, self.num_heads * self.head_dim))


class WithConfig(nnx.Module):
    """Attention whose numbers are in an object that all layers share."""

    def __init__(self, rngs, config):
        self.config = config
        self.q, self.k, self.v, self.o = (nnx.Linear(12, 12, rngs=rngs) for _ in range(4))

    def __call__(self, x):
        shape = (*x.shape[:2], self.config.heads, self.config.size)
        q, k, v = (project(x).reshape(shape) for project in (self.q, self.k, self.v))
        a = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, k))
        return self.o(jnp.einsum("bnts,bsnh->btnh", a, v).reshape(*x.shape[:2], -1))


class Layers(nnx.Module):
    def __init__(self, layers):
        self.layers = nnx.List(layers)

    def __call__(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_heads_of_attention_written_by_hand_go_and_numbers_that_count_something_else_stay():
    layers = [Attention(nnx.Rngs(i)) for i in range(2)]
    zeroed(layers[0].o.kernel, 0, range(6, 12))  # the second head of keys and values, which two query heads share
    small = check_nnx(Layers(layers), SEQUENCES)
    first, second = small.model.layers
    assert (first.num_heads, first.num_kv_heads, first.head_dim) == (2, 1, 3)
    assert (second.num_heads, second.num_kv_heads) == (4, 2)
    assert {(layer.num_classes, layer.num_steps) for layer in (first, second)} == {(4, 2)}
    assert small.sizes == {"layers/0.num_heads": 2, "layers/0.num_kv_heads": 1} and small.refused == {}
    assert "layers/0.num_heads is 2 now" in str(small)


@pytest.mark.parametrize(
    "config", [Config(), types.SimpleNamespace(heads=4, size=3, classes=4)], ids=["frozen", "plain"]
)
def test_numbers_in_a_shared_configuration_are_changed_for_one_layer_alone(config):
    layers = [WithConfig(nnx.Rngs(i), config) for i in range(2)]
    zeroed(layers[1].o.kernel, 0, range(3, 9))
    small = check_nnx(Layers(layers), SEQUENCES)
    assert [layer.config.heads for layer in small.model.layers] == [4, 2]
    assert small.model.layers[1].config.classes == 4 and config.heads == 4
    # The plan holds the numbers, so another process can rebuild the model.
    again = rebuild(Layers(layers), Plan.from_json(small.plan.to_json()), small.variables, SEQUENCES)
    assert [layer.config.heads for layer in again.layers] == [4, 2]
    assert small.model.layers[1].q.kernel.shape == (12, 6)


class Grid(nnx.Module):
    """A model with two equal numbers. One is a size, and the other must stay."""

    def __init__(self, rngs):
        self.grid, self.num_heads = 2, 2
        self.up, self.down = nnx.Linear(12, 8, rngs=rngs), nnx.Linear(8, 12, rngs=rngs)

    def __call__(self, x):
        h = self.up(x).reshape(*x.shape[:2], self.num_heads, -1)
        h = h / (1 + jnp.abs(h).max(-1, keepdims=True))
        return self.down(h.reshape(*x.shape[:2], -1)) * jnp.ones((self.grid, 1)).sum()


def test_of_two_numbers_of_one_value_the_size_is_found():
    net = Grid(nnx.Rngs(0))
    zeroed(net.down.kernel, 0, range(4))
    small = check_nnx(net, SEQUENCES)
    assert (small.model.num_heads, small.model.grid) == (1, 2) and small.model.up.kernel.shape == (12, 4)


class Twice(nnx.Module):
    """A model that divides by its width, so no other number gives equal outputs."""

    def __init__(self, rngs):
        self.width = 8
        self.up, self.down = nnx.Linear(12, 8, rngs=rngs), nnx.Linear(8, 12, rngs=rngs)

    def __call__(self, x):
        return self.down(jnp.tanh(self.up(x)).reshape(*x.shape[:2], self.width) / self.width)


def test_a_number_that_is_used_as_a_size_and_as_a_value_is_refused_with_the_line():
    net = Twice(nnx.Rngs(0))
    zeroed(net.down.kernel, 0, range(4))
    with pytest.raises(CompactionError, match=r"test_remembered.py:\d+, `return self.down\(jnp.tanh\(self.up\(x\)\)"):
        compact_model(net, SEQUENCES)
    assert net.width == 8


class Normalised(nnx.Module):
    def __init__(self, rngs, affine=True):
        self.a = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.norm = nnx.GroupNorm(16, num_groups=4, use_bias=affine, use_scale=affine, rngs=rngs)
        self.b = nnx.Conv(16, 5, (3, 3), rngs=rngs)

    def __call__(self, x):
        return self.b(nnx.silu(self.norm(self.a(x))))


@pytest.mark.parametrize("affine", [True, False])
def test_whole_groups_of_a_group_norm_go_or_none(affine):
    net = Normalised(nnx.Rngs(0), affine)
    zeroed(net.b.kernel, 2, [0, 1, 2, 3, 8, 9, 10, 11, 12])
    small = check_nnx(net, IMAGES)
    # Only one channel of the last group is dead, so it stays.
    assert small.model.a.kernel.shape[-1] == 8 and small.model.norm.num_groups == 2 and small.refused == {}


class Grouped(nnx.Module):
    """A convolution with three groups of four outputs each."""

    def __init__(self, rngs):
        self.a = nnx.Conv(3, 6, (1, 1), rngs=rngs)
        self.b = nnx.Conv(6, 12, (3, 3), feature_group_count=3, rngs=rngs)
        self.c = nnx.Conv(12, 5, (1, 1), rngs=rngs)

    def __call__(self, x):
        return self.c(jnp.tanh(self.b(jnp.tanh(self.a(x)))))


@pytest.mark.parametrize(
    ("dead", "shapes", "groups"),
    [
        ([0, 4, 8], [(1, 1, 3, 6), (3, 3, 2, 9), (1, 1, 9, 5)], 3),  # one output of each group
        ([0, 1, 2, 3], [(1, 1, 3, 4), (3, 3, 2, 8), (1, 1, 8, 5)], 2),  # a whole group
        ([0, 1, 2, 3, 4, 8], [(1, 1, 3, 4), (3, 3, 2, 6), (1, 1, 6, 5)], 2),  # a group, and one output of each other
    ],
)
def test_outputs_of_a_grouped_convolution_go_by_group_and_within_groups(dead, shapes, groups):
    net = Grouped(nnx.Rngs(0))
    zeroed(net.c.kernel, 2, dead)
    small = check_nnx(net, IMAGES)
    assert [layer.kernel.shape for layer in (small.model.a, small.model.b, small.model.c)] == shapes
    assert small.model.b.feature_group_count == groups and small.refused == {}


class Shuffled(nnx.Module):
    """A convolution with two groups, whose channels are shuffled before a depthwise convolution."""

    def __init__(self, half, rngs):
        self.first = nnx.Conv(3 + 1, 2 * half, (1, 1), feature_group_count=2, rngs=rngs)
        self.depthwise = nnx.Conv(2 * half, 2 * half, (3, 3), feature_group_count=2 * half, rngs=rngs)
        self.last = nnx.Conv(2 * half, 3, (1, 1), rngs=rngs)

    def __call__(self, x):
        y = self.first(jnp.concatenate([x, x[..., :1]], axis=-1))
        y = nnx.relu(y).reshape(*y.shape[:3], 2, -1).swapaxes(3, 4).reshape(y.shape)
        return self.last(self.depthwise(y))


@pytest.mark.parametrize("half", [4, 5])  # with 4, the outputs that are left could also form one group
def test_a_grouped_convolution_keeps_its_groups_beside_a_depthwise_one_that_loses_some(half):
    net = Shuffled(half, nnx.Rngs(0))
    zeroed(net.last.kernel, 2, [2, 3, 6, 7])
    small = check_nnx(net, IMAGES)
    left = 2 * half - 4
    assert (small.model.first.feature_group_count, small.model.depthwise.feature_group_count) == (2, left)
    assert small.model.first.kernel.shape == (1, 1, 2, left) and small.refused == {}


def test_fit_sets_what_cannot_be_found():
    class Layer(nnx.Module):
        """A layer with a number that cannot be guessed: twice the number of heads."""

        def __init__(self, rngs):
            self.twice = 8
            self.up, self.down = nnx.Linear(12, 12, rngs=rngs), nnx.Linear(12, 12, rngs=rngs)

        def __call__(self, x):
            h = self.up(x).reshape(*x.shape[:2], self.twice // 2, -1)
            return self.down((h / (1 + jnp.abs(h).max(-1, keepdims=True))).reshape(*x.shape[:2], -1))

    net = Layer(nnx.Rngs(0))
    zeroed(net.down.kernel, 0, range(3, 9))
    with pytest.raises(CompactionError, match="Nothing can be deleted"):
        compact_model(net, SEQUENCES)

    def fit(layer):
        layer.twice = 2 * layer.up.kernel.shape[1] // 3

    small = check_nnx(net, SEQUENCES, fit=fit)
    assert small.model.twice == 4 and small.model.up.kernel.shape == (12, 6)
    # `fit` may change the model in place or return it.
    assert check_nnx(net, SEQUENCES, fit=lambda layer: (fit(layer), layer)[1]).model.twice == 4
    with pytest.raises(CompactionError, match=r"`fit` must be None for a function, got .*; make"):
        compact_model(lambda v, x: x, SEQUENCES, variables={}, fit=fit)


def test_a_cache_in_the_state_of_flax_attention_goes_with_its_heads():
    class Decoder(nnx.Module):
        def __init__(self, rngs):
            self.attention = nnx.MultiHeadAttention(4, 12, decode=True, rngs=rngs)

        def __call__(self, x):
            return self.attention(x)

    net = Decoder(nnx.Rngs(0))
    zeroed(net.attention.out.kernel, 0, [0, 2])
    net.attention.init_cache((2, 5, 12))
    small = compact_model(net, SEQUENCES[:, :1], num_random=0)
    assert small.model.attention.cached_key[...].shape == (2, 5, 2, 3) and small.refused == {}
    for i in range(5):
        step = SEQUENCES[:, i : i + 1] * 1.5
        assert relative_difference(net(step), small.model(step)) <= 1e-5


class SizedByModel(nnx.Module):
    """A decoder whose cache has the size that the model gives."""

    def __init__(self, rngs):
        self.num_heads, self.size, self.length = 4, 3, 7
        self.q, self.k, self.v, self.o = (nnx.Linear(12, 12, rngs=rngs) for _ in range(4))

    def init_cache(self, batch):
        return tuple(jnp.zeros((batch, self.length, self.num_heads, self.size)) for _ in range(2))

    def __call__(self, x):
        cache = self.init_cache(len(x))
        q, k, v = (project(x).reshape(*x.shape[:2], -1, self.size) for project in (self.q, self.k, self.v))
        k, v = (old.at[:, : x.shape[1]].set(new) for old, new in zip(cache, (k, v), strict=True))
        a = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, k))
        return self.o(jnp.einsum("bnts,bsnh->btnh", a, v).reshape(*x.shape[:2], -1))


def test_a_cache_is_as_large_as_the_small_model_says():
    net = SizedByModel(nnx.Rngs(0))
    zeroed(net.o.kernel, 0, range(3, 9))
    small = check_nnx(net, SEQUENCES)
    assert [array.shape for array in small.model.init_cache(2)] == [(2, 7, 2, 3)] * 2 and small.model.length == 7


class Cache(NamedTuple):
    """A cache whose field names are also names in paths of variables."""

    key: Any
    value: Any


def decode_stack(layers, x, cache):
    """One decoding step of a stack of layers, each with its part of a cache of the last keys and values."""

    def layer(x, own):
        params, old = own
        q, k, v = (jnp.einsum("bc,cnh->bnh", x, params[name]) for name in "qkv")
        new = Cache(*(jnp.roll(a, 1, axis=1).at[:, 0].set(b) for a, b in zip(old, (k, v), strict=True)))
        a = nnx.softmax(0.5 * jnp.einsum("bnh,bsnh->bns", q, new.key))
        return x + jnp.einsum("bnh,nhc->bc", jnp.einsum("bns,bsnh->bnh", a, new.value), params["o"]), new

    return jax.lax.scan(layer, x, (layers, cache))


def test_a_cache_of_a_stack_may_have_fields_of_any_name_and_what_goes_is_not_said_to_stay():
    layers = tiny.normal_tree({name: (2, 6, 4, 3) for name in "qkv"} | {"o": (2, 4, 3, 6)})
    layers["o"] = layers["o"].at[:, 1:3].set(0)
    cache, x = Cache(jnp.zeros((2, 1, 5, 4, 3)), jnp.zeros((2, 1, 5, 4, 3))), jnp.ones((1, 6))
    given = compact_model(decode_stack, x, cache, variables=layers, resize={"1/key": "1/key", "1/value": "1/value"})
    assert jax.tree.map(jnp.shape, given.small_args(x, cache)[1]) == Cache((2, 1, 5, 2, 3), (2, 1, 5, 2, 3))
    whole = compact_model(decode_stack, x, cache, variables=layers, resize={1: 1}, num_random=0)
    assert given.plan == whole.plan and whole.plan.unread_inputs == {}


def decode(params, x, cache):
    """One decoding step, with a cache of keys and values and the number of earlier steps."""
    size = params["q"].shape[2]
    q, k, v = (jnp.einsum("bc,cnh->bnh", x, params[name]) for name in "qkv")
    k = jax.lax.dynamic_update_slice(cache["k"], k[:, None], (0, cache["step"], 0, 0))
    v = cache["v"].at[:, cache["step"]].set(v)
    a = jnp.where(jnp.arange(k.shape[1]) <= cache["step"], jnp.einsum("bnh,bsnh->bns", q, k) * size**-0.5, -1e9)
    y = jnp.einsum("bnh,nhc->bc", jnp.einsum("bns,bsnh->bnh", jax.nn.softmax(a), v), params["o"])
    return y, {"k": k, "v": v, "step": cache["step"] + 1}


def test_a_cache_that_is_an_argument_shrinks_with_the_model_where_that_is_said():
    rng = np.random.default_rng(0)
    params = {name: array(rng.normal(size=(12, 4, 3)), jnp.float32) for name in "qkv"}
    params["o"] = array(rng.normal(size=(4, 3, 12)), jnp.float32).at[jnp.array([0, 2])].set(0)
    cache = {name: jnp.zeros((2, 5, 4, 3)) for name in "kv"} | {"step": jnp.int32(0)}
    x = SEQUENCES[:, 0]
    assert compact_model(decode, x, cache, variables=params, num_random=0).plan.changes_nothing
    small = compact_model(decode, x, cache, variables=params, resize={1: 1})
    assert small.variables["q"].shape == (12, 2, 3) and small.proof.error <= 1e-5
    # Compare with another batch size, step by step.
    states = [{name: jnp.zeros((3, 5, 4, 3)) for name in "kv"} | {"step": jnp.int32(0)}]
    states.append(small.small_args(x, states[0])[1])
    assert states[1]["k"].shape == (3, 5, 2, 3)
    for i in range(5):
        step = fresh(SEQUENCES)[:, i]
        wanted, states[0] = jax.jit(decode)(params, step, states[0])
        found, states[1] = jax.jit(small.model)(small.variables, step, states[1])
        assert relative_difference(wanted, found) <= 1e-5
    assert small.report(x, cache, rounds=1).after.params < small.report(x, cache, rounds=0).before.params
    # A part of the cache may be named. A part that does not exist is refused.
    half = compact_model(decode, x, cache, variables=params, resize={"1/k": "1/k"}, num_random=0)
    assert half.plan.changes_nothing
    for wrong in ({2: 1}, {1: 3}):
        with pytest.raises(CompactionError, match=r"`resize` must map inputs to .* there is no (input 2|output 3)"):
            compact_model(decode, x, cache, variables=params, resize=wrong)


def test_the_carry_of_a_recurrent_cell_that_is_an_argument_shrinks():
    class Cell(nnx.Module):
        def __init__(self, rngs):
            self.cell, self.out = nnx.GRUCell(12, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x, carry):
            carry, h = self.cell(carry, x)
            return self.out(h), carry

    net = Cell(nnx.Rngs(0))
    zeroed(net.out.kernel, 0, range(3))
    zeroed(net.cell.dense_h.kernel, 0, range(3))
    x, carry = SEQUENCES[:, 0], jnp.ones((2, 8))
    small = compact_model(net, x, carry, resize={1: 1}, num_random=0)
    assert small.model.cell.hidden_features == 5
    wanted, found = net(x, carry), small.model(*small.small_args(x, carry))
    assert relative_difference(wanted[0], found[0]) <= 1e-5 and found[1].shape == (2, 5)


def test_a_cache_of_linen_attention_shrinks_with_its_heads():
    module = nn.MultiHeadDotProductAttention(4, qkv_features=12, decode=True)
    variables = module.init(jax.random.key(0), SEQUENCES)
    kernel = variables["params"]["out"]["kernel"].at[jnp.array([0, 2])].set(0)
    params = variables["params"] | {"out": variables["params"]["out"] | {"kernel": kernel}}
    variables = {"params": params, "cache": variables["cache"]}

    def call(module, variables, x):
        return module.apply(variables, x, mutable=["cache"])

    small = compact_model(module, SEQUENCES[:, :1], variables=variables, call=call, resize={"cache": 1}, num_random=0)
    assert small.variables["cache"]["cached_key"].shape == (2, 5, 2, 3) and small.refused == {}
    states = [variables["cache"], small.variables["cache"]]
    for i in range(3):
        step = SEQUENCES[:, i : i + 1]
        wanted, new = call(module, variables | {"cache": states[0]}, step)
        found, small_new = small.model(small.variables | {"cache": states[1]}, step)
        states = [new["cache"], small_new["cache"]]
        assert relative_difference(wanted, found) <= 1e-5


class LinenGroupNorm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(5, (3, 3))(nn.silu(nn.GroupNorm(num_groups=4)(nn.Conv(16, (3, 3))(x))))


class LinenScale(nn.Module):
    """A module with parameters whose sizes come from a field and from a number, also in `setup`."""

    features: int

    def setup(self):
        self.shift = self.param("shift", nn.initializers.normal(), (self.features,))
        self.dense = nn.Dense(self.features)

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.normal(), (self.features,))
        offset = self.param("offset", nn.initializers.normal(), (16,))
        return self.dense(x) * scale + self.shift + offset


class LinenScaled(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(5, (3, 3))(nn.silu(LinenScale(16)(x)))


class LinenAttention(nn.Module):
    num_heads: int

    @nn.compact
    def __call__(self, x):
        q, k, v = (nn.Dense(x.shape[-1])(x).reshape(*x.shape[:2], self.num_heads, 3) for _ in range(3))
        a = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, k))
        return nn.Dense(x.shape[-1], name="out")(jnp.einsum("bnts,bsnh->btnh", a, v).reshape(*x.shape[:2], -1))


class LinenRecurrent(nn.Module):
    cell: type

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="out")(nn.RNN(self.cell(8), name="rnn")(x)[:, -1])


def with_dead(module, x, shape, axis, dead):
    """The variables of a module, with zeros at some indices along an axis of all kernels with a shape."""
    variables = jax.jit(module.init)(jax.random.key(0), x)

    def zero(leaf):
        return jnp.moveaxis(jnp.moveaxis(leaf, axis, 0).at[jnp.array(dead)].set(0), 0, axis)

    return jax.tree.map(lambda leaf: zero(leaf) if leaf.shape == shape else leaf, variables)


GROUPS = [0, 1, 2, 3, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("module", "x", "shape", "axis", "dead", "sizes"),
    [
        (LinenGroupNorm(), IMAGES, (3, 3, 16, 5), 2, GROUPS, {"GroupNorm_0.num_groups": 2}),
        (LinenScaled(), IMAGES, (3, 3, 16, 5), 2, [1, 5, 7], {}),
        (LinenAttention(4), SEQUENCES, (12, 12), 0, range(3, 9), {"num_heads": 2}),
    ],
    ids=["GroupNorm", "parameters of its own", "attention"],
)
def test_linen_modules_run_with_the_sizes_of_their_arrays(module, x, shape, axis, dead, sizes):
    variables = with_dead(module, x, shape, axis, dead)
    if sizes == {"num_heads": 2}:
        # Only the output projection reads head by head.
        whole = jax.jit(module.init)(jax.random.key(0), x)["params"]
        variables = {"params": whole | {"out": variables["params"]["out"]}}
    small = check_linen(module, x, variables)
    assert small.sizes == sizes and small.refused == {}
    again = rebuild(module, small.plan, small.variables)
    assert relative_difference(small.model(small.variables, x), again(small.variables, x)) == 0
    assert {leaf.shape for leaf in jax.tree.leaves(small.variables)} != {
        leaf.shape for leaf in jax.tree.leaves(variables)
    }


@pytest.mark.slow_except("LSTMCell")
@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.OptimizedLSTMCell, nn.GRUCell, nn.SimpleCell])
def test_the_first_carry_of_a_linen_cell_is_as_large_as_its_arrays(cell):
    module = LinenRecurrent(cell)
    variables = jax.jit(module.init)(jax.random.key(0), SEQUENCES)
    variables = jax.tree.map(lambda a: a.at[:3].set(0) if a.ndim == 2 and a.shape[0] == 8 else a, variables)
    small = check_linen(module, SEQUENCES, variables)
    assert small.refused == {} and small.variables["params"]["out"]["kernel"].shape == (5, 3)


def test_fit_gives_a_linen_module_other_fields():
    module = LinenAttention(4)
    variables = jax.jit(module.init)(jax.random.key(0), SEQUENCES)
    kernel = variables["params"]["out"]["kernel"].at[3:9].set(0)
    variables = {"params": variables["params"] | {"out": variables["params"]["out"] | {"kernel": kernel}}}

    def fit(module, variables):
        return module.clone(num_heads=variables["params"]["out"]["kernel"].shape[0] // 3)

    small = check_linen(module, SEQUENCES, variables, fit=fit)
    assert small.sizes == {} and small.variables["params"]["out"]["kernel"].shape == (6, 12)


def test_static_fields_of_equinox_modules_follow_their_arrays():

    class Net(eqx.Module):
        conv: Any
        norm: Any
        attention: Any
        cell: Any
        last: Any

        def __init__(self, key):
            keys = jax.random.split(key, 4)
            self.conv = eqx.nn.Conv2d(3, 12, 1, key=keys[0])
            self.norm = eqx.nn.GroupNorm(4, 12)
            self.attention = eqx.nn.MultiheadAttention(4, 12, key=keys[1])
            self.cell = eqx.nn.GRUCell(12, 6, key=keys[2])
            self.last = eqx.nn.Linear(6, 2, key=keys[3])

        def __call__(self, x):
            h = jax.nn.silu(self.norm(self.conv(jnp.moveaxis(x, -1, 0)))).reshape(self.norm.channels, -1).T
            h = self.attention(h, h, h)
            carry = jnp.zeros(self.cell.hidden_size)
            for row in h[:3]:
                carry = self.cell(row, carry)
            return self.last(carry)

    net = Net(jax.random.key(0))

    def dead(weight, indices):
        return weight.at[:, jnp.array(indices)].set(0)

    attention = net.attention
    names = ("query_proj", "key_proj", "value_proj")
    readers = [dead(getattr(attention, name).weight, [0, 1, 2, 9, 10, 11]) for name in names]
    net = eqx.tree_at(lambda net: [getattr(net.attention, name).weight for name in names], net, readers)
    net = eqx.tree_at(lambda net: net.attention.output_proj.weight, net, replace_fn=lambda w: dead(w, range(3, 6)))
    net = eqx.tree_at(lambda net: net.last.weight, net, replace_fn=lambda w: dead(w, [0, 4]))
    net = eqx.tree_at(lambda net: net.cell.weight_hh, net, replace_fn=lambda w: dead(w, [0, 4]))
    small = compact_model(net, IMAGES, call=lambda model, x: jax.vmap(model)(x), num_random=0)
    model = small.model
    assert (model.norm.groups, model.norm.channels, model.attention.num_heads, model.cell.hidden_size) == (2, 6, 3, 4)
    assert small.refused == {}
    x = fresh(IMAGES)
    assert relative_difference(jax.vmap(net)(x), jax.vmap(model)(x)) <= 1e-5
    assert relative_difference(jax.vmap(net)(x), small.apply(small.variables, x)) <= 1e-5


class EquinoxGrouped(eqx.Module):
    convs: list[eqx.nn.Conv1d]

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        sizes = ((3, 8, 1), (8, 6, 2), (6, 2, 1))
        self.convs = [eqx.nn.Conv1d(m, n, 3, groups=g, key=k) for (m, n, g), k in zip(sizes, keys, strict=True)]

    def __call__(self, x):
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return x


@pytest.mark.parametrize(
    ("dead", "shape", "groups", "before"),
    [
        ([3, 4, 5], (3, 4, 3), 1, 4),
        ([0, 1, 2, 3], (2, 4, 3), 1, 4),
        ([0, 3], (4, 4, 3), 2, 8),
        ([0, 1], (6, 4, 3), 2, 8),
    ],
    ids=("a group", "a group and one", "one of each", "two of one"),
)
def test_equinox_convolutions_lose_whole_groups_or_as_many_of_each(dead, shape, groups, before):
    net = eqx.filter_jit(EquinoxGrouped)(jax.random.key(0))
    last = net.convs[2].weight
    net = eqx.tree_at(lambda net: net.convs[2].weight, net, last.at[:, jnp.array(dead)].set(0))
    batch = jax.random.normal(jax.random.key(1), (2, 3, 9))
    small = compact_model(net, batch, call=lambda net, x: jax.vmap(net)(x), num_random=1)
    assert (small.model.convs[1].weight.shape, small.model.convs[1].groups) == (shape, groups)
    assert small.model.convs[0].weight.shape[0] == before


def test_a_linen_module_reads_its_features_from_its_kernel():
    class Wide(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x):
            kernel = self.param("kernel", nn.initializers.ones, (3, self.features))
            return x @ kernel + jnp.zeros(self.features)

    variables = {"params": {"kernel": jnp.ones((3, 2))}}
    np.testing.assert_array_equal(sizes_from_variables(Wide(64).apply)(variables, jnp.ones((1, 3))), [[3.0, 3.0]])
