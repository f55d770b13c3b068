"""Stacks in which each layer has other dead units: as many are removed as the layer with the fewest has."""

import dataclasses
import functools
import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ramda_jax.compaction import (
    CompactionError,
    Plan,
    compact,
    compact_coupling,
    compact_model,
    compact_state,
    couple,
    expand,
    plan_compaction,
    trace_dims,
    verify,
)
from ramda_jax.compaction.adapters.choose import adapter_for
from ramda_jax.compaction.planning.plan import AxisOrder
from ramda_jax.compaction.symmetry.follow import why_not_symmetric
from ramda_jax.compaction.symmetry.moves import Move
from ramda_jax.structure.paths import named_leaves
from tests.compaction.nets_nnx import build
from tests.compaction.nets_stacked import NNX
from tests.compaction.patterns import relative_difference
from tests.compaction.test_stacked import check_equal

#: The number of layer axes for the first key of a path.
DEPTHS = {"layers": 1, "nets": 1, "experts": 1}
#: Maps nets to (units left, units) of their widths, with 3 or 4 dead units of 8 in each layer, or 1 or 2 dead heads of
#: 4.
KINDS = {
    "scan of feedforward": {(5, 8)},
    "scan of scans": {(5, 8)},
    "scan of gated": {(5, 8)},
    "scan of attention": {(3, 4)},
    "scan of einsums": {(3, 4)},
    "scan of convolutions": {(5, 8)},
    "scan of recurrent nets": {(5, 8)},
    "loop of attention": {(3, 4)},
    "vmap of vmaps": {(5, 8)},
    "vmap of attention": {(3, 4)},
    "experts": {(5, 8)},
}


def zero_in_each_layer(dims, variables, depths, share=0.4):
    """The variables with different dead units in each layer, for each width."""
    values = {path: leaf for path, leaf in named_leaves(variables)}
    for width in dims.widths:
        depth = min((depths.get(member.path.split("/")[0], 0) for member in width.readers), default=0)
        if width.reason or not depth:
            continue
        lengths = values[width.readers[0].path].shape[:depth]
        for number, layer in enumerate(np.ndindex(*lengths)):
            dead = (np.arange(int(width.size * share) + number % 2) + 2 * number) % width.size
            for member in width.readers:
                leaf = np.array(values[member.path])
                np.moveaxis(leaf[layer], member.axis - depth, 0)[np.isin(member.index, dead)] = 0
                values[member.path] = jnp.asarray(leaf)
    return jax.tree.structure(variables).unflatten(values[path] for path, _ in named_leaves(variables))


@pytest.mark.slow_except("scan of attention", "vmap of vmaps", "scan of gated", "experts")
@pytest.mark.parametrize("name", KINDS)
def test_as_many_units_go_as_the_layer_with_fewest_dead_ones_has(name):
    kind, batch, _ = NNX[name]
    net = build(kind)
    graph, state = nnx.split(net)
    depths = {key: 2 if name in ("scan of scans", "vmap of vmaps") else depth for key, depth in DEPTHS.items()}
    state = zero_in_each_layer(trace_dims(net, batch), state, depths)
    shapes = jax.ShapeDtypeStruct(batch.shape, batch.dtype)
    small = compact_model(nnx.merge(graph, state), shapes, num_random=0)
    assert small.refused == {} and small.plan.has_orders
    shrunk = [(len(width.kept), width.size) for width in small.plan.widths if len(width.kept) < width.size]
    assert set(shrunk) == KINDS[name]
    assert "other ones in each layer" in str(small)
    in_one_order = compact_model(nnx.merge(graph, state), shapes, num_random=0, permute=False)
    assert not in_one_order.plan.has_orders
    assert small.plan.num_params[1] < in_one_order.plan.num_params[1]
    check_equal(adapter_for(net), state, small, batch)
    # Expanding is exact, and JSON keeps the plan.
    assert Plan.from_json(small.plan.to_json()) == small.plan
    assert relative_difference(expand(small.plan, small.variables, state), state) == 0
    assert relative_difference(compact(small.plan, expand(small.plan, small.variables)), small.variables) == 0


def mlps(layers, x):
    """A stack of residual layers, run in sequence."""
    return jax.lax.scan(lambda x, layer: (x + jnp.tanh(x @ layer["up"]) @ layer["down"], None), x, layers)[0]


X = jax.random.normal(jax.random.key(0), (4, 6))


def make_layers(seed=0, dead=(3, 4, 5)):
    """Three layers of 8 units, each with its number of dead units at random places."""
    rng = np.random.default_rng(seed)
    up, down = rng.normal(size=(3, 6, 8)), rng.normal(size=(3, 8, 6))
    for layer, number in zip(down, dead, strict=True):
        layer[rng.permutation(8)[:number]] = 0
    return {"up": jnp.asarray(up, jnp.float32), "down": jnp.asarray(down, jnp.float32)}


def test_layers_with_the_same_dead_units_keep_their_order():
    layers = make_layers(dead=(0, 0, 0))
    layers["down"] = layers["down"].at[:, jnp.array([1, 4, 5])].set(0)
    plan = plan_compaction(trace_dims(mlps, layers, X), layers)
    assert not plan.has_orders and plan.leaves["up"].kept[2] == (0, 2, 3, 6, 7)
    assert json.loads(plan.to_json())["format"] == 1


def test_units_move_only_where_they_must():
    layers = make_layers()
    plan = plan_compaction(trace_dims(mlps, layers, X), layers)
    [order] = plan.leaves["up"].orders
    assert (order.axis, order.by) == (2, (0,)) and plan.leaves["up"].small_shape == (3, 6, 5)
    assert plan.leaves["down"].orders == (AxisOrder(1, (0,), order.indices),)
    alive = np.asarray(layers["down"]).any(2)
    for row, own in zip(np.array(order.indices), alive, strict=True):
        kept = row[list(plan.leaves["up"].kept[2])]
        assert set(np.flatnonzero(own)) <= set(kept.tolist())
        moved = np.flatnonzero(row != np.arange(8))
        assert (own[moved] != own[row[moved]]).all()


def carried(layers, x):
    """The layers pass the units on, so the units have one order for all layers."""

    def step(carry, layer):
        hidden, x = carry
        hidden = jnp.tanh(x @ layer["up"]) + hidden
        return (hidden, x + hidden @ layer["down"]), None

    return jax.lax.scan(step, (jnp.zeros((len(x), 8)), x), layers)[0][1]


def read_by_all(layers, x):
    """The layers' units are summed before they are read."""
    hidden = jax.vmap(lambda up: jnp.tanh(x @ up))(layers["up"]).sum(0)
    return jax.vmap(lambda down: hidden @ down)(layers["down"]).sum(0)


def with_places(layers, x):
    """Each unit is multiplied by its position."""

    def step(x, layer):
        return x + (jnp.tanh(x @ layer["up"]) * jnp.arange(1.0, 9.0)) @ layer["down"], None

    return jax.lax.scan(step, x, layers)[0]


def neighbours(layers, x):
    """Each unit is multiplied by its neighbour."""

    def step(x, layer):
        hidden = jnp.tanh(x @ layer["up"])
        return x + (hidden * jnp.concatenate([hidden[:, 1:], hidden[:, :1]], 1)) @ layer["down"], None

    return jax.lax.scan(step, x, layers)[0]


def one_order_for_all(layers, x):
    """A vector without a layer axis scales the units of all layers."""

    def step(x, layer):
        return x + (jnp.tanh(x @ layer["up"]) * layers["scale"]) @ layer["down"], None

    return jax.lax.scan(step, x, {"up": layers["up"], "down": layers["down"]})[0]


def other_layer(layers, x):
    """Each layer also reads the units of the next layer."""

    def step(x, layer):
        mine, next_one = layer
        both = jnp.tanh(x @ mine["up"]) + jnp.tanh(x @ next_one["up"])
        return x + both @ mine["down"], None

    shifted = jax.tree.map(lambda leaf: jnp.concatenate([leaf[1:], leaf[:1]]), layers)
    return jax.lax.scan(step, x, (layers, shifted))[0]


def turned(layers, x):
    """The scan takes the second kernels from the last layer to the first."""

    def step(x, layer):
        return x + jnp.tanh(x @ layer["up"]) @ layer["down"], None

    return jax.lax.scan(step, x, {"up": layers["up"], "down": layers["down"][::-1]})[0]


@pytest.mark.parametrize(
    "apply",
    [carried, read_by_all, with_places, neighbours, one_order_for_all, other_layer, turned],
    ids=lambda f: f.__name__,
)
def test_units_that_have_one_order_in_all_layers_keep_it_and_a_plan_that_changes_it_is_refused(apply):
    layers = make_layers()
    if apply is one_order_for_all:
        layers["scale"] = jnp.arange(1.0, 9.0)
    dims = trace_dims(apply, layers, X)
    own = plan_compaction(dims, layers)
    assert not own.has_orders
    # A plan for independent layers fits the shapes, but gives wrong outputs.
    parts = {name: layers[name] for name in ("up", "down")}
    foreign = plan_compaction(trace_dims(mlps, parts, X), parts)
    if apply is one_order_for_all:
        kept = (foreign.leaves["up"].kept[2],)
        foreign = dataclasses.replace(
            foreign, leaves=foreign.leaves | {"scale": type(foreign.leaves["up"])((8,), kept)}
        )
    small = compact(foreign, layers)
    with pytest.raises(CompactionError, match="the order of units in each layer matters"):
        verify(apply, layers, apply, small, X, plan=foreign, dims=dims)
    proved = compact_model(apply, X, variables=layers, num_random=1)
    assert relative_difference(apply(layers, X), proved.apply(proved.variables, X)) <= 1e-5


def test_random_keys_that_the_program_closes_over_are_no_hindrance():
    keys = jax.random.split(jax.random.key(0), 3)

    def apply(layers, x):
        def step(x, layer_and_key):
            layer, key = layer_and_key
            return x + jnp.tanh(x @ layer["up"]) @ layer["down"] + jax.random.uniform(key, (x.shape[1],)), None

        return jax.lax.scan(step, x, (layers, keys))[0]

    layers = make_layers()
    small = compact_model(apply, X, variables=layers, num_random=0)
    assert small.plan.has_orders and small.variables["up"].shape == (3, X.shape[1], 5)


def by_slice(cache, new):
    return jax.lax.dynamic_update_slice(cache, new, (0, 2, 0))


def by_set(cache, new):
    return cache.at[:, 2:5].set(new)


def by_place(cache, new):
    for number in range(new.shape[1]):
        cache = cache.at[jnp.arange(len(cache)), number].add(new[:, number])
    return cache


def with_cache(write, layers, x, cache=None):
    """Layers that write their units into parts of a cache. If a cache is given, they also return the new cache."""
    given = cache
    cache = jnp.zeros((len(layers["up"]), len(x), 7, layers["up"].shape[2])) if cache is None else cache

    def step(x, own):
        layer, old = own
        new = write(old, jnp.tanh(x @ layer["up"]))
        return x + jnp.einsum("bth,hc->bc", new, layer["down"])[:, None], new

    x, cache = jax.lax.scan(step, x, (layers, cache))
    return x if given is None else (x, cache)


@pytest.mark.parametrize("write", [by_slice, by_set, by_place])
def test_units_that_are_written_into_a_cache_of_each_layer_have_an_order_in_each(write):
    layers, x = make_layers(), jax.random.normal(jax.random.key(1), (2, 3, 6))
    apply = functools.partial(with_cache, write)
    small = compact_model(apply, x, variables=layers, num_random=1)
    assert small.plan.has_orders and small.variables["up"].shape == (3, 6, 5)
    # If the cache is an input and an output, its units must have one order for all layers.
    cache = jnp.zeros((3, 2, 7, 8))
    kept = compact_model(apply, x, cache, variables=layers, resize={1: 1}, num_random=0)
    assert not kept.plan.has_orders
    # The cache's initial content differs between the units.
    before = cache + jnp.arange(8.0)
    kept = compact_model(lambda layers, x: apply(layers, x, before)[0], x, variables=layers, num_random=0)
    assert not kept.plan.has_orders


def wider(cache):
    """A cache with one more unit, before the others."""
    return jnp.zeros((*cache.shape[:-1], 9))


def by_part(cache, new):
    return wider(cache).at[:, 2:5, 1:].set(new)[:, :, 1:]


def by_part_slice(cache, new):
    return jax.lax.dynamic_update_slice(wider(cache), new, (0, 2, 1))[:, :, 1:]


def by_places_of_units(cache, new):
    return cache.at[:, 2:5, jnp.arange(7, -1, -1)].set(new)


@pytest.mark.parametrize("write", [by_part, by_part_slice, by_places_of_units])
def test_units_that_are_written_to_places_of_their_own_keep_their_order(write):
    layers, x = make_layers(), jax.random.normal(jax.random.key(1), (2, 3, 6))
    table = np.stack([np.roll(np.arange(8), layer) for layer in range(3)])
    moved = {"up": {2: Move(table, (("axis", 0),))}, "down": {1: Move(table, (("axis", 0),))}}
    reasons = [
        why_not_symmetric(trace_dims(functools.partial(with_cache, how), layers, x), moved) for how in (write, by_set)
    ]
    assert re.match("(scatter|dynamic_update_slice)[^:]*: ", reasons[0]) and reasons[1] == ""


def test_what_is_returned_keeps_its_order():
    """The units of the layers are an output, so none could be deleted anyway."""

    def apply(layers, x):
        return jax.lax.scan(lambda x, layer: (x, jnp.tanh(x @ layer["up"])), x, layers)[1]

    layers = {"up": make_layers()["up"]}
    dims = trace_dims(apply, layers, X)
    table = np.stack([np.arange(8), np.arange(8)[::-1], np.arange(8)])
    moved = {"up": {2: Move(table, (("axis", 0),))}}
    assert why_not_symmetric(dims, moved) == "an output of the model would be in another order"
    assert why_not_symmetric(dims, {"up": {}}) == ""


def test_the_axis_of_layers_may_lie_elsewhere_in_each_leaf():
    """The layer axis of one leaf is at the position that the stream, of the same length, has in another leaf."""

    def apply(layers, x):
        def step(x, layer):
            return x + jnp.tanh(x @ layer["up"]) @ layer["down"], None

        return jax.lax.scan(step, x, {"up": layers["up"], "down": jnp.moveaxis(layers["down"], 1, 0)})[0]

    rng = np.random.default_rng(0)
    up, down = rng.normal(size=(3, 3, 8)), rng.normal(size=(3, 3, 8))
    for layer in range(3):
        down[:, layer, rng.permutation(8)[:4]] = 0
    layers = {"up": jnp.asarray(up, jnp.float32), "down": jnp.asarray(down, jnp.float32)}

    def run(layers, x):
        return apply({"up": layers["up"], "down": jnp.swapaxes(layers["down"], 0, 2)}, x)

    small = compact_model(run, X[:, :3], variables=layers, num_random=1)
    assert jax.tree.map(jnp.shape, small.variables) == {"up": (3, 3, 4), "down": (3, 3, 4)}
    assert small.plan.leaves["down"].orders[0].by == (1,) and small.plan.leaves["up"].orders[0].by == (0,)


def test_heads_have_sizes_of_values_in_orders_of_their_own():
    """Heads are not layers, but they are also leading axes of a width."""

    attention = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=16)
    x = jax.random.normal(jax.random.key(1), (2, 3, 6))
    variables = jax.jit(attention.init)(jax.random.key(0), x)
    out = variables["params"]["out"]["kernel"]
    out = out.at[0, jnp.array([0, 2, 5])].set(0).at[1, jnp.array([1, 2, 7])].set(0)
    variables["params"]["out"]["kernel"] = out
    small = compact_model(attention, x, variables=variables, num_random=1)
    assert small.variables["params"]["value"]["kernel"].shape == (6, 2, 5)
    [order] = small.plan.leaves["params/value/kernel"].orders
    assert (order.axis, order.by) == (2, (1,))


def test_training_goes_on_with_the_state_in_the_new_order():
    layers = make_layers()
    small = compact_model(mlps, X, variables=layers, num_random=0)
    optimizer = optax.adam(1e-2)
    grads = jax.grad(lambda layers: jnp.sum(mlps(layers, X) ** 2))(layers)
    # The dead units stay dead, as with `freeze_structure`.
    grads["down"] = jnp.where(layers["down"] == 0, 0, grads["down"])
    _, state = optimizer.update(grads, optimizer.init(layers), layers)
    updates, _ = optimizer.update(grads, state, layers)
    small_state = compact_state(small.plan, state, optimizer, small.variables)
    small_updates, _ = optimizer.update(compact(small.plan, grads), small_state, small.variables)
    assert relative_difference(compact(small.plan, updates), small_updates) <= 1e-6


def test_numbers_per_group_of_all_layers_stay_where_they_are():
    layers = make_layers()
    plan = plan_compaction(trace_dims(mlps, layers, X), layers)
    radii = {"down": jnp.arange(8.0).reshape(1, 8, 1)}
    np.testing.assert_array_equal(compact(plan, radii)["down"].ravel(), plan.leaves["down"].kept[1])


def test_a_coupling_refuses_orders_of_which_it_knows_nothing():
    layers = make_layers()
    dims = trace_dims(mlps, layers, X)
    coupling = couple(dims, layers)
    with pytest.raises(CompactionError, match="must keep the same order of units in all layers"):
        compact_coupling(plan_compaction(dims, layers), coupling)
    compact_coupling(plan_compaction(dims, layers, permute=False), coupling)


def test_orders_in_json_are_checked():
    layers = make_layers()
    fields = json.loads(plan_compaction(trace_dims(mlps, layers, X), layers).to_json())
    assert fields["format"] == 2
    for change, message in (
        ({"axis": 0}, "must be an axis that is not one of `by`"),
        ({"axis": 3}, "must be an axis that is not one of `by`"),
        ({"by": [3]}, "must be indices from 0 to 2"),
        ({"by": [0, 1]}, "must be 6 entries, got 8"),
        ({"indices": [[0] * 8] * 3}, "must be the numbers from 0 to 7 in some order"),
        ({"indices": [list(range(8))] * 2}, "must be 3 entries, got 2"),
        ({"indices": [1.0] * 3}, "must be a list"),
    ):
        broken = json.loads(json.dumps(fields))
        broken["leaves"]["up"]["orders"][0] |= change
        with pytest.raises(CompactionError, match=message):
            Plan.from_fields(broken)
    twice = json.loads(json.dumps(fields))
    twice["leaves"]["up"]["orders"] *= 2
    with pytest.raises(CompactionError, match="orders of different axes, by axes that stay in theirs"):
        Plan.from_fields(twice)
