"""The cost of a group, compared with what is saved when its unit is deleted."""

import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ramda_jax
from ramda_jax import GroupLasso, GroupMCP
from ramda_jax.compaction import (
    CompactionError,
    LeafPlan,
    Plan,
    compact,
    compact_coupling,
    cost,
    costs,
    couple,
    couple_model,
    groups,
    plan_compaction,
    trace_dims,
)
from ramda_jax.compaction.adapters.choose import adapter_for
from ramda_jax.compaction.tracing.units.savings import savings, total
from ramda_jax.structure import assign
from tests import tiny
from tests.compaction.nets_nnx import make
from tests.compaction.test_groups import CASES


def plan_without(dims, node):
    """A plan that deletes a single node."""
    kept = np.ones(dims.nodes.count, bool)
    kept[node] = False
    leaves = {}
    for path, value in dims.leaves.items():
        masks = [dims.nodes.mask(label, kept) for label in value.labels]
        leaves[path] = LeafPlan(value.shape, tuple(tuple(np.flatnonzero(mask).tolist()) for mask in masks))
    return Plan(leaves, (), {})


def check_by_deletion(dims, variables, rebuild, x):
    """Deletes the first unit of each width, and compares the count after with the predicted saving."""
    for of in ("parameters", "flops"):
        saved, whole, found = savings(dims, of), total(dims, of), 0
        for width in dims.widths:
            if not width.reason and width.size > 1:
                small = compact(plan_without(dims, width.nodes[0]), variables)
                left = total(trace_dims(rebuild(small), small, x), of)
                assert saved[width.nodes[0]] == pytest.approx(whole - left), (of, width.name)
                found += 1
        assert found > 0


@pytest.mark.parametrize(
    "name",
    [
        "llama's names",
        "heads in the middle",
        "pytorch's layout",
        "depthwise, two outputs each",
        "a stack by scan",
        "grouped queries",
    ],
)
def test_what_a_unit_saves_is_what_is_less_without_it(name):
    function, params, x, _ = CASES[name]
    check_by_deletion(trace_dims(function, params, x), params, lambda small: function, x)


@pytest.mark.parametrize("name", ["lenet5", "densenet"])
def test_what_a_channel_saves_is_what_is_less_without_it(name):
    net, batch = make(name)
    adapter = adapter_for(net)
    check_by_deletion(trace_dims(net, batch), adapter.variables, lambda small: adapter.rebuild(small, {})[1], batch)


def test_operations_are_those_that_xla_counts():
    function, params, x, _ = CASES["flax's layout"]
    linear = lambda params, x: x @ params["in"] @ params["square"] @ params["out"]  # noqa: E731
    assert total(trace_dims(linear, params, x), "flops") == cost(linear, params, x).flops
    assert total(trace_dims(function, params, x), "parameters") == sum(leaf.size for leaf in params.values())
    # Each step of a loop counts.
    scanned, stack, x, _ = CASES["a stack by scan"]
    assert total(trace_dims(scanned, stack, x), "flops") == 2 * 4 * (3 * 2 * 6 * 8 + 6 * 2)


def test_costs_are_shaped_as_the_norms_and_parts_of_a_unit_add_up():
    net, batch = make("lenet5")
    dims, params = trace_dims(net, batch), nnx.state(net, nnx.Param)
    regularizer = groups(dims)
    for of in ("parameters", "flops"):
        found = costs(dims, of)
        leaves = {
            path: (leaf, resolved) for path, leaf, resolved in assign(regularizer, params) if resolved is not None
        }
        assert {path: array.shape for path, array in found.items()} == {
            path: resolved.radii_shape(leaf.shape) for path, (leaf, resolved) in leaves.items()
        }
    by_parameters = costs(dims)
    # A hidden unit of the last layer: 12 entries and a bias make it, and 5 entries read it.
    assert set(by_parameters["dense3/kernel"].ravel()) == {12 + 1 + 5}
    # A channel before the flatten: 5 x 5 x 6 entries and a bias make it, and 4 rows of 12 entries read it.
    assert by_parameters["dense1/kernel"].ravel().tolist() == [(4 * 12 + 150 + 1) / 4] * 32


def test_a_unit_with_several_readers_is_divided_among_them():
    def net(params, x):
        h = jnp.tanh(x @ params["in"])
        return jnp.concatenate([h @ params["a"], h @ params["b"]], axis=1)

    params = tiny.normal_tree({"in": (5, 8), "a": (8, 3), "b": (8, 2)})
    dims = trace_dims(net, params, jnp.ones((1, 5)))
    assert {path: set(array.ravel()) for path, array in costs(dims).items()} == {"a": {5.0}, "b": {5.0}}
    # A unit saves nothing if it cannot be removed, because the other reader has no groups.
    assert set(costs(dims, regularizer={"^a$": GroupLasso()})["a"].ravel()) == {0.0}
    # A user's regularizer with groups along several axes.
    single = costs(dims, regularizer={"^(a|b)$": GroupLasso((0, 1))})
    assert single["a"].shape == (8, 3) and single["a"].sum() + single["b"].sum() == pytest.approx(8 * 10)


def test_costs_have_the_paths_that_the_optimizer_sees():
    module = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(3)])
    variables = module.init(jax.random.key(0), jnp.ones((1, 5)))
    dims = trace_dims(module, variables, jnp.ones((1, 5)))
    assert set(costs(dims)) == set(costs(dims, params=variables["params"])) == {"layers_2/kernel"}
    assert set(costs(dims, params=variables)) == {"params/layers_2/kernel"}
    with pytest.raises(ValueError, match="`of` must be 'parameters' or 'flops', got 'bytes'; use"):
        costs(dims, "bytes")


def first_use():
    """A conv net for which the savings of the units are known."""

    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.conv1, self.conv2 = (nnx.Conv(i, o, (3, 3), strides=2, rngs=rngs) for i, o in ((1, 24), (24, 48)))
            self.dense1, self.dense2 = nnx.Linear(2352, 128, rngs=rngs), nnx.Linear(128, 10, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
            return self.dense2(nnx.relu(self.dense1(x.reshape(len(x), -1))))

    return nnx.eval_shape(Net), jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)


def test_groups_weigh_the_root_of_what_they_save():
    model, images = first_use()
    # A channel of conv1 saves 432 + 10 parameters, a channel of conv2 6,489, and a hidden unit 2,363.
    saved = [442.0, 6489.0, 2363.0]
    coupling = couple_model(model, images, weight="saving")
    weights = [resolved.group_weight for resolved in coupling.regularizer().values()]
    assert weights == [math.sqrt(x) for x in saved]
    dims = trace_dims(model, images)
    by_leaf = [resolved.group_weight for resolved in groups(dims, weight="saving").values()]
    assert by_leaf == [math.sqrt(x) for x in (442, 6489 / 49, 2363)]
    scaled = groups(dims, 2.0 * GroupLasso(), weight="saving")
    assert [resolved.regularizer.group_weight for resolved in scaled.values()] == by_leaf
    # The weights may also come from the costs in operations.
    operations = costs(dims, "flops")
    by_operations = groups(dims, weight=operations)
    assert [resolved.group_weight for resolved in by_operations.values()] == [
        math.sqrt(array.flat[0]) for array in operations.values()
    ]
    plain = couple_model(model, images)
    params = nnx.state(model, nnx.Param)
    of_coupling = costs(dims, "flops", plain.regularizer())
    heavy = couple(dims, params, weight=of_coupling)
    assert [resolved.group_weight for resolved in heavy.regularizer().values()] == [
        math.sqrt(array.flat[0]) for array in of_coupling.values()
    ]
    # A weight that the user sets stays.
    own = coupling.regularizer(GroupLasso(0, group_weight=3.0))
    assert {resolved.group_weight for resolved in own.values()} == {3.0}


def test_patterns_of_a_coupling_have_its_weights():
    model, images = first_use()
    coupling = couple_model(model, images, weight="saving")
    params = nnx.state(model, nnx.Param)
    first, second, third = (f"coupled/{name}" for name in coupling.parts)
    roots = dict(zip((first, second, third), map(math.sqrt, (442, 6489, 2363)), strict=True))

    def weights(patterns):
        assigned = assign(coupling.regularizer(patterns), jax.eval_shape(coupling.pack, params))
        inner = {path: getattr(own, "regularizer", own) for path, _, own in assigned}
        return {path: own.group_weight for path, own in inner.items() if own is not None}

    every = GroupLasso(0)
    assert weights({"^coupled/": every}) == roots
    # The first match wins, even None. A weight that the user sets stays. Leaves that are not coupled have their own
    # rule.
    assert weights({f"^{first}$": None, "^coupled/": 2.0 * every}) == {second: roots[second], third: roots[third]}
    own = GroupLasso(0, group_weight=3.0)
    assert weights({f"^{second}$": own, "": GroupMCP(0, omega=1.0)}).items() >= (roots | {second: 3.0}).items()
    assert any(path.startswith("rest/") for path in weights({"": every}))
    with pytest.raises(ValueError, match="matches no leaf"):
        weights({"^coupled/": every, "^nothing": every})


@pytest.mark.parametrize("given", [ramda_jax.TopGroups(0.5, groups=0), 2.0 * ramda_jax.L1(), ramda_jax.NofM(2, 4)])
def test_a_coupling_with_weights_refuses_what_would_ignore_them(given):
    function, params, x, _ = CASES["flax's layout"]
    dims = trace_dims(function, params, x)
    weighted, plain = couple(dims, params, weight="saving"), couple(dims, params)
    inner = getattr(given, "regularizer", given)
    for patterns in (given, {"^coupled/": given}):
        with pytest.raises(ValueError, match=rf"got {re.escape(repr(inner))}, which would ignore them; use"):
            weighted.regularizer(patterns)
        assert given in plain.regularizer(patterns).values()
    # What has no regularizer, and what is not coupled, has no weights to ignore.
    for patterns in ({"^coupled/": None}, {"^coupled/": ramda_jax.Null(), "": given}):
        assert weighted.regularizer(patterns) == patterns
    assert weighted.regularizer(rest={"^rest/": given})["^rest/"] == given


def test_weights_that_do_not_fit_are_refused():
    function, params, x, _ = CASES["flax's layout"]
    dims = trace_dims(function, params, x)
    for refused in (lambda: groups(dims, weight="savings"), lambda: couple(dims, params, weight="savings")):
        with pytest.raises(
            ValueError, match="`weight` must be 'size', 'saving' or a mapping of costs, got 'savings'; use"
        ):
            refused()
    with pytest.raises(ValueError, match="must be 'size' where groups have no weights, got TopGroups"):
        groups(dims, ramda_jax.TopGroups(0.5), weight="saving")
    with pytest.raises(CompactionError, match=r"must have a cost for each of the 8 groups of d\d, got None"):
        couple(dims, params, weight={"other": np.ones(8)})
    other = couple_model(
        lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], x, variables=tiny.normal_tree({"a": (6, 7), "b": (7, 2)})
    )
    with pytest.raises(CompactionError, match="must be of the model that was traced"):
        costs(dims, "flops", other.regularizer())


def test_groups_that_go_cheaply_go_first_with_the_weights_of_what_they_save():
    """Two widths have similar readers, but a unit of one width saves far more, so more of its groups become zero."""

    def net(params, x):
        wide, narrow = jnp.tanh(x @ params["wide"]), jnp.tanh(x[:, :2] @ params["narrow"])
        return wide @ params["a"] + narrow @ params["b"]

    params = tiny.normal_tree({"wide": (80, 8), "narrow": (2, 8), "a": (8, 3), "b": (8, 3)})
    coupling = couple_model(net, jnp.ones((1, 80)), variables=params, weight="saving")
    assert coupling.weights is not None
    weights = {parts[0].path: float(coupling.weights[name][0]) for name, parts in coupling.parts.items()}
    assert weights == {"a": math.sqrt(83), "b": math.sqrt(5)}
    shrunk = ramda_jax.prox(coupling.regularizer(), params, 0.3)
    assert not jnp.any(shrunk["a"]) and jnp.any(shrunk["b"])
    # The small coupling has the weights of the whole coupling.
    structured = params | {"a": params["a"].at[2:].set(0)}
    plan = plan_compaction(trace_dims(net, structured, jnp.ones((1, 80))), structured)
    small, _ = compact_coupling(plan, coupling)
    assert small.weights is not None
    assert {name: len(found) for name, found in small.weights.items()} == {
        name: len(parts[0].rows) for name, parts in small.parts.items()
    }
    assert {float(found[0]) for found in small.weights.values()} == set(weights.values())


@pytest.mark.slow_except("flops")
@pytest.mark.parametrize("of", ["parameters", "flops"])
def test_a_target_of_costs_is_met(of):
    params = tiny.normal_tree({"in": (6, 24), "mid": (24, 20), "out": (20, 3)})
    x = jax.random.normal(jax.random.key(0), (64, 6))

    def net(params, x):
        return jnp.tanh(jnp.tanh(x @ params["in"]) @ params["mid"]) @ params["out"]

    dims = trace_dims(net, params, x)
    coupling = couple(dims, params, weight="saving")
    worth = costs(dims, of, coupling.regularizer())
    target = ramda_jax.Target(0.5, of=worth, total_steps=2000, hold=1500)
    method = ramda_jax.ramda(1e-2, coupling.regularizer(), strength=target, averaging=1.0, restarts=(500, 1000))
    gradient = jax.grad(lambda params: jnp.mean((net(params, x) - jnp.sin(2 * x[:, :3])) ** 2))
    params, _ = tiny.train(coupling.wrap(method), gradient, params, 2000)
    alive = ramda_jax.metrics.support(coupling.regularizer(), params)
    removed = sum(float(array[~np.asarray(alive[path])].sum()) for path, array in worth.items())
    assert removed / sum(array.sum() for array in worth.values()) == pytest.approx(0.5, abs=0.05)
