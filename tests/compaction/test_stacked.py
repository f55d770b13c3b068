"""Layers with extra leading axes: stacks that are scanned, vectorised or run one by one."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ramda_jax.compaction import compact, compact_model, plan_compaction, trace_dims
from ramda_jax.compaction.adapters.choose import adapter_for
from ramda_jax.compaction.adapters.sizes.layers import own_axes
from ramda_jax.structure.paths import named_leaves
from tests.compaction.nets_nnx import build
from tests.compaction.nets_stacked import EQUINOX, LINEN, NNX, SEQUENCES, TOKENS, in_turn, stack
from tests.compaction.patterns import relative_difference, zero_readers
from tests.tiny import array


def larger(batch):
    """A batch of another size that the proof has not used."""
    rng = np.random.default_rng(7)
    shape = (len(batch) + 3, *batch.shape[1:])
    if jnp.issubdtype(batch.dtype, jnp.integer):
        return array(rng.integers(0, int(batch.max()) + 1, shape), batch.dtype)
    return array(rng.normal(size=shape), batch.dtype)


def value_and_grads(apply, variables, batch):
    """The outputs, and the gradients of a function of the outputs for all float variables."""
    is_float = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(variables)]

    def with_floats(floats, rest):
        floats, rest = iter(floats), iter(rest)
        return jax.tree.structure(variables).unflatten(next(floats if floating else rest) for floating in is_float)

    def loss(floats, rest):
        outputs = apply(with_floats(floats, rest), batch)
        return jnp.sum(jnp.sin(outputs)), outputs

    leaves = jax.tree.leaves(variables)
    floats = [leaf for leaf, floating in zip(leaves, is_float, strict=True) if floating]
    rest = [leaf for leaf, floating in zip(leaves, is_float, strict=True) if not floating]
    (_, outputs), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(floats, rest)
    names = [name for (name, _), floating in zip(named_leaves(variables), is_float, strict=True) if floating]
    return outputs, dict(zip(names, grads, strict=True))


def check_equal(adapter, variables, small, batch):
    """Checks that outputs for another batch size are equal, and that gradients are equal at the kept indices."""
    batch = larger(batch)
    outputs, grads = value_and_grads(adapter.apply, variables, batch)
    small_outputs, small_grads = value_and_grads(small.apply, small.variables, batch)
    assert relative_difference(outputs, small_outputs) <= 1e-5
    scale = max(np.abs(np.asarray(grad)).max() for grad in grads.values())
    for name, grad in compact(small.plan, grads).items():
        assert np.abs(np.asarray(grad) - np.asarray(small_grads[name])).max() <= 1e-5 * scale


def check_kind(model, batch, member, with_variables, variables=None):
    """Zeroes random indices of every free width; checks that exactly these are removed, and equality."""
    adapter = adapter_for(model, variables)
    dims = trace_dims(model, batch) if variables is None else trace_dims(model, variables, batch)
    assert dims.opaque.keys() <= {"random_fold_in"}
    assert member in {str(axis) for width in dims.widths if not width.reason for axis in width.members}
    values, alive = zero_readers(dims, adapter.variables, np.random.default_rng(3))
    shapes = jax.ShapeDtypeStruct(batch.shape, batch.dtype)
    given = {} if variables is None else {"variables": values}
    # Pass shapes, so that the proof runs nothing and only this test compares outputs.
    small = compact_model(with_variables(values), shapes, num_random=0, **given)
    assert small.refused == {}
    kept = {width.members: width.kept for width in small.plan.widths}
    wanted = {tuple(map(str, width.members)): alive[width.name] for width in dims.widths if width.name in alive}
    assert {members: kept.get(members) for members in wanted} == wanted
    check_equal(adapter, values, small, batch)
    return small


@pytest.mark.slow_except(
    "scan of attention",
    "vmap of convolutions",
    "loop of convolutions",
    "scan of scans",
    "tables",
    "experts",
    "jax.lax.scan",
    "scan of gated",
    "vmap of vmaps",
)
@pytest.mark.parametrize("name", NNX)
def test_a_stack_of_nnx_layers_loses_what_nothing_reads_in_any_of_them(name):
    kind, batch, member = NNX[name]
    net = build(kind)
    graph, _ = nnx.split(net)
    small = check_kind(net, batch, member, lambda values: nnx.merge(graph, values))
    assert type(small.model) is type(net)


@pytest.mark.slow_except("scan", "vmap")
@pytest.mark.parametrize("name", LINEN)
def test_a_stack_of_linen_layers_loses_what_nothing_reads_in_any_of_them(name):
    module, batch, member = LINEN[name]
    variables = jax.jit(module.init)(jax.random.key(0), batch)
    check_kind(module, batch, member, lambda values: module, variables)


def test_a_stack_of_equinox_layers_loses_what_nothing_reads_in_any_of_them():
    kind, batch, member = EQUINOX
    model = kind(jax.random.key(0))
    _, static = eqx.partition(model, eqx.is_array)

    def call(model, x):
        return jax.vmap(model)(x)

    dims = trace_dims(lambda model, x: call(eqx.combine(model, static), x), eqx.filter(model, eqx.is_array), batch)
    assert member in {str(axis) for width in dims.widths if not width.reason for axis in width.members}
    values, alive = zero_readers(dims, eqx.filter(model, eqx.is_array), np.random.default_rng(3))
    model = eqx.combine(values, static)
    small = compact_model(model, jax.ShapeDtypeStruct(batch.shape, batch.dtype), call=call, num_random=0)
    assert small.refused == {}
    assert {width.name: width.kept for width in small.plan.widths if width.name in alive} == alive
    check_equal(adapter_for(model, call=call), values, small, batch)


def test_equinox_layers_remember_the_sizes_of_their_arrays():
    class Net(eqx.Module):
        attention: eqx.nn.MultiheadAttention
        depthwise: eqx.nn.Conv1d
        cell: eqx.nn.LSTMCell
        last: eqx.nn.Linear

        def __init__(self, key):
            self.attention = eqx.nn.MultiheadAttention(4, 8, output_size=6, key=key)
            self.depthwise = eqx.nn.Conv1d(6, 6, 3, padding=1, groups=6, key=key)
            self.cell, self.last = eqx.nn.LSTMCell(6, 8, key=key), eqx.nn.Linear(8, 3, key=key)

        def __call__(self, x):
            x = jnp.tanh(self.depthwise(self.attention(x, x, x).T)).T
            start = (jnp.zeros(self.cell.hidden_size), jnp.zeros(self.cell.hidden_size))
            return self.last(jax.lax.scan(lambda state, x: (self.cell(x, state), None), start, x)[0][0])

    model = Net(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 8))
    arrays, static = eqx.partition(model, eqx.is_array)
    values, alive = zero_readers(trace_dims(model, x), arrays, np.random.default_rng(1))
    small = compact_model(eqx.combine(values, static), x, num_random=1)
    assert {width.name: width.kept for width in small.plan.widths if width.name in alive} == alive and not small.refused
    net, kept = small.model, {width.size: len(width.kept) for width in small.plan.widths if not width.reason}
    assert net.attention.num_heads == kept[4] < 4 and net.attention.query_proj.out_features == 2 * kept[4]
    assert net.depthwise.groups == net.depthwise.in_channels == net.cell.input_size == kept[6] < 6
    assert net.cell.hidden_size == net.last.in_features == kept[8] < 8
    # The whole model still has its own numbers.
    assert (model.attention.num_heads, model.depthwise.groups, model.cell.hidden_size) == (4, 6, 8)


def test_a_model_with_a_stack_and_no_zeros_is_returned_as_it_is():
    kind, batch, _ = NNX["scan of attention"]
    net = build(kind)
    small = compact_model(net, jax.ShapeDtypeStruct(batch.shape, batch.dtype), num_random=0)
    assert small.plan.changes_nothing and not small.refused
    assert relative_difference(nnx.state(net), nnx.state(small.model)) == 0


def test_layers_of_a_stack_remember_the_sizes_of_their_own_axes():
    kind, batch, _ = NNX["scan of attention"]
    net = build(kind)
    out = net.layers.attention.out.kernel
    out[...] = out[...].at[:, jnp.array([0, 2])].set(0)
    layer = compact_model(net, jax.ShapeDtypeStruct(batch.shape, batch.dtype), num_random=0).model.layers.attention
    assert (layer.num_heads, layer.head_dim, layer.in_features, layer.out_features) == (2, 2, 6, 6)
    assert (layer.query.in_features, layer.query.out_features) == ((6,), (2, 2))
    assert (layer.out.in_features, layer.out.out_features) == ((2, 2), (6,))


class Backwards(nnx.Linear):
    """A subclass of a Flax layer that uses the same attributes for other values."""

    def __init__(self, rngs):
        super().__init__(8, 6, rngs=rngs)
        self.kernel = nnx.Param(self.kernel[...].T)
        self.in_features = self.out_features = "whatever fits"

    def __call__(self, inputs, out_sharding=None):
        return inputs @ self.kernel[...].T + self.bias[...]


@pytest.mark.parametrize("stacked", [False, True])
def test_a_layer_that_cannot_be_fitted_is_left_alone_and_the_rest_shrinks(stacked):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(3, 8, rngs=rngs)
            self.odd = stack(Backwards, *((2,) if stacked else ()))(rngs)
            self.b, self.c = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.a(x))
            x = nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(self.odd, x).sum(0) if stacked else self.odd(x)
            return self.c(nnx.relu(self.b(nnx.relu(x))))

    net = build(Net)
    net.c.kernel[...] = net.c.kernel[...].at[:5].set(0)
    net.odd.kernel[...] = net.odd.kernel[...].at[..., :2].set(0)
    small = compact_model(net, SEQUENCES, num_random=0)
    assert small.refused == {} and small.model.odd.in_features == "whatever fits"
    assert small.model.odd.kernel.shape[-1] == 6 and small.model.b.out_features == 3
    assert relative_difference(net(SEQUENCES), small.model(SEQUENCES)) <= 1e-5


def test_own_axes_are_the_last_ones_or_those_that_fit():
    assert own_axes((3, 4, 3, 4), (3, 4)) == (2, 3)
    assert own_axes((4, 3, 5), (4, 5)) == (0, 2)
    for shape, sizes in (((4,), (4, 5)), ((4, 5), (4, 6)), ((5, 4), (4, 5))):
        with pytest.raises(ValueError, match="no axes of"):
            own_axes(shape, sizes)


def test_a_width_of_a_stack_is_one_axis_and_the_axis_of_the_stack_another():
    kind, batch, _ = NNX["scan of feedforward"]
    adapter = adapter_for(build(kind))
    widths = trace_dims(adapter.apply, adapter.variables, batch).widths
    [layers] = [width for width in widths if width.reason == "the axis of a scan"]
    assert len(layers.members) == 5 and layers.size == 3


def test_the_axis_of_a_stack_that_a_loop_goes_over_is_not_dead():
    kind, batch, _ = NNX["loop"]
    adapter = adapter_for(build(kind))
    dims = trace_dims(adapter.apply, adapter.variables, batch)
    [reason] = {width.reason for width in dims.widths if str(width.members[0]).endswith("up/kernel[0]")}
    assert reason == "one index, taken by its number"


def test_layers_that_a_loop_leaves_out_stay_where_their_numbers_are_in_the_code():
    def apply(layers, x):
        for number in (0, 3):
            x = x + jnp.tanh(x @ layers["up"][number]) @ layers["down"][number]
        return x

    rng = np.random.default_rng(0)
    layers = {"up": array(rng.normal(size=(4, 6, 8))), "down": array(rng.normal(size=(4, 8, 6)))}
    layers["down"] = layers["down"].at[:, :5].set(0)
    small = compact_model(apply, jnp.ones((2, 6)), variables=layers, num_random=1)
    assert jax.tree.map(jnp.shape, small.variables) == {"up": (4, 6, 3), "down": (4, 3, 6)}
    assert len(small.refused) == 2


def test_what_reaches_no_output_does_not_matter():
    """Flax's scan leaves equations whose results are not used."""

    def apply(params, x):
        hidden = jnp.tanh(x @ params["up"])
        hidden.sum(axis=-1)  # would fix the width
        return hidden @ params["down"]

    params = {"up": jnp.ones((6, 8)), "down": jnp.ones((8, 3)).at[2:].set(0)}
    small = compact_model(apply, jnp.ones((2, 6)), variables=params, num_random=0)
    assert jax.tree.map(jnp.shape, small.variables) == {"up": (6, 2), "down": (2, 3)}


class Layer(nnx.Module):
    def __init__(self, features, heads, hidden, rngs):
        self.norms = nnx.List([nnx.RMSNorm(features, rngs=rngs), nnx.RMSNorm(features, rngs=rngs)])
        self.attention = nnx.MultiHeadAttention(heads, features, decode=False, rngs=rngs)
        self.gate, self.up = nnx.Linear(features, hidden, rngs=rngs), nnx.Linear(features, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, features, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norms[0](x), mask=nnx.make_causal_mask(x[..., 0]))
        y = self.norms[1](x)
        return x + self.down(nnx.silu(self.gate(y)) * self.up(y))


class Decoder(nnx.Module):
    """A language model with separate layers or with a stack."""

    def __init__(self, rngs, is_stacked, features=2048, heads=16, hidden=5632, depth=22, vocabulary=32000):
        self.embed, self.norm = nnx.Embed(vocabulary, features, rngs=rngs), nnx.RMSNorm(features, rngs=rngs)

        def make(rngs):
            return Layer(features, heads, hidden, rngs)

        self.layers = stack(make, depth)(rngs) if is_stacked else nnx.List([make(rngs) for _ in range(depth)])

    def __call__(self, tokens):
        x = self.embed(tokens)
        if isinstance(self.layers, nnx.List):
            for layer in self.layers:
                x = layer(x)
        else:
            x = in_turn(x, self.layers)
        return self.embed.attend(self.norm(x))


@pytest.mark.parametrize("is_stacked", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_decoder_of_a_billion_parameters_is_planned_and_proved_from_shapes_in_half_a_minute(is_stacked):
    net = nnx.eval_shape(lambda: Decoder(nnx.Rngs(0), is_stacked))
    begun = time.perf_counter()
    small = compact_model(net, jax.ShapeDtypeStruct((1, 16), jnp.int32), num_random=0)
    assert time.perf_counter() - begun < 30
    # With shapes alone no entry is known to be zero.
    assert small.plan.num_params == (1196466176, 1196466176) and small.plan.changes_nothing
    hidden = [width for width in small.dims.widths if width.size == 5632]
    assert len(hidden) == (1 if is_stacked else 22) and not any(width.reason for width in hidden)


@pytest.mark.slow
def test_a_net_of_48_blocks_is_traced_and_planned():
    """This takes a second of processor time (`python -m benchmarks.zoo --times`)."""
    net = nnx.eval_shape(lambda: Decoder(nnx.Rngs(0), False, 16, 2, 24, 48, 11))
    dims = trace_dims(net, TOKENS)
    assert plan_compaction(dims, nnx.state(net)).changes_nothing


def test_a_leaf_that_has_a_shape_alone_is_sliced_as_one():
    params = {"up": jax.ShapeDtypeStruct((6, 8), jnp.float32), "down": jnp.ones((8, 3)).at[2:].set(0)}

    def apply(params, x):
        return jnp.tanh(x @ params["up"]) @ params["down"]

    plan = plan_compaction(trace_dims(apply, params, jnp.ones((2, 6))), params)
    assert compact(plan, params)["up"] == jax.ShapeDtypeStruct((6, 2), jnp.float32)
    assert plan.leaves["down"].small_shape == (2, 3)
