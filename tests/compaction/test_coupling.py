import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ramda_jax
from ramda_jax.compaction import (
    CompactionError,
    LeafPlan,
    Plan,
    compact,
    compact_coupling,
    compact_model,
    couple,
    plan_compaction,
    trace_dims,
)
from ramda_jax.compaction.adapters.choose import adapter_for
from ramda_jax.structure import named_leaves, regularized_leaves
from tests.compaction.nets_nnx import make
from tests.compaction.patterns import relative_difference, zero_readers
from tests.tiny import array

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 6)), RNG.normal(size=(32, 2))


def residual(params, x):
    """A net whose stream has three readers."""
    stream = x @ params["in"]["kernel"]
    stream = stream + jnp.tanh(stream @ params["up"]["kernel"]) @ params["down"]["kernel"] + params["bias"]
    return jnp.sin(stream @ params["left"]["kernel"]) + stream @ params["right"]["kernel"]


def initial():
    rng = np.random.default_rng(1)
    shapes = {"in": (6, 8), "up": (8, 10), "down": (10, 8), "left": (8, 2), "right": (8, 2)}
    params = {name: {"kernel": array(rng.normal(size=shape) / 3)} for name, shape in shapes.items()}
    return params | {"bias": array(rng.normal(size=8))}


def trained(optimizer, params, steps):
    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda params: jnp.mean((residual(params, jnp.asarray(X)) - jnp.asarray(Y)) ** 2))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def test_a_group_is_index_i_of_all_readers_and_weighs_the_root_of_its_size():
    with jax.enable_x64():
        params = initial()
        coupling = couple(trace_dims(residual, params, jnp.asarray(X)), params)
        packed = coupling.pack(params)
        assert sorted(leaf.shape for leaf in packed["coupled"].values()) == [(8, 10 + 2 + 2), (10, 8)]
        assert set(packed["rest"]) == {"in/kernel", "bias"}
        stream = jnp.concatenate([params[name]["kernel"] for name in ("up", "left", "right")], axis=1)
        wanted = np.sqrt(14) * jnp.linalg.norm(stream, axis=1).sum()
        wanted += np.sqrt(8) * jnp.linalg.norm(params["down"]["kernel"], axis=1).sum()
        value = sum(resolved.value(leaf) for _, leaf, resolved in regularized_leaves(coupling.regularizer(), packed))
        assert float(value) == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.slow_except("transformer")
@pytest.mark.parametrize(
    "name", ["densenet", "transformer", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lenet5", "lstm"))]
)
def test_pack_has_its_inverse_and_its_like_in_the_small_model(name):
    net, batch = make(name)
    adapter = adapter_for(net)
    params = nnx.state(net, nnx.Param)
    dims = trace_dims(adapter.apply, adapter.variables, batch)
    coupling = couple(dims, params)
    packed = coupling.pack(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(packed)) == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert len(packed["coupled"]) > 0
    blank = jax.tree.map(jnp.zeros_like, params)
    assert relative_difference(params, coupling.unpack(packed, blank)) == 0

    variables, alive = zero_readers(dims, adapter.variables, np.random.default_rng(0))
    plan = plan_compaction(dims, variables)
    small_coupling, packed_plan = compact_coupling(plan, coupling)
    cut = compact(packed_plan, packed)
    lengths = {name: len(leaf) for name, leaf in cut["coupled"].items()}
    assert lengths == {name: len(alive[name]) for name in coupling.parts}
    assert relative_difference(cut, small_coupling.pack(compact(plan, params))) == 0


def test_whole_heads_and_the_rows_of_a_flattened_channel_are_groups():
    net, batch = make("transformer")
    adapter = adapter_for(net)
    coupling = couple(trace_dims(adapter.apply, adapter.variables, batch), nnx.state(net, nnx.Param))
    heads = [parts for parts in coupling.parts.values() if parts[0].path == "blocks/0/attention/out/kernel"]
    assert [(part.axis, part.rows.shape) for parts in heads for part in parts] == [(0, (4, 1))]

    net, batch = make("lenet5")
    adapter = adapter_for(net)
    coupling = couple(trace_dims(adapter.apply, adapter.variables, batch), nnx.state(net, nnx.Param))
    [channels] = [parts for parts in coupling.parts.values() if parts[0].path == "dense1/kernel"]
    # Of the 2 x 2 x 8 rows, row (h, w, c) belongs to channel c.
    assert np.array_equal(channels[0].rows, np.arange(32).reshape(4, 8).T)


@pytest.mark.slow
def test_what_ramda_zeroes_is_exactly_what_is_removed():
    with jax.enable_x64():
        params = initial()
        dims = trace_dims(residual, params, jnp.asarray(X))
        coupling = couple(dims, params)
        # With averaging, so that only the structured point has the zeros.
        optimizer = coupling.wrap(ramda_jax.ramda(0.05, coupling.regularizer(), 0.005, averaging=0.2))
        params, state = trained(optimizer, params, 150)
        structured = coupling.unpack(ramda_jax.eval_params(state, coupling.pack(params)), params)
        alive = {
            name: tuple(np.flatnonzero(np.asarray(leaf).any(axis=1)).tolist())
            for name, leaf in coupling.pack(structured)["coupled"].items()
        }
        assert all(0 < len(kept) for kept in alive.values())
        assert sum(map(len, alive.values())) < 18 - 2
        plan = plan_compaction(dims, structured)
        assert {width.name: width.kept for width in plan.widths if width.name in alive} == alive
        small = compact_model(residual, jnp.asarray(X), variables=structured)
        assert small.proof.error <= 1e-12
        assert small.plan.num_params[1] < small.plan.num_params[0]


def test_without_strength_it_is_the_optimizer_itself():
    with jax.enable_x64():
        params = initial()
        coupling = couple(trace_dims(residual, params, jnp.asarray(X)), params)
        ours = trained(coupling.wrap(ramda_jax.ramda(0.05, coupling.regularizer(), 0.0, averaging=0.5)), params, 5)[0]
        assert relative_difference(trained(ramda_jax.ramda(0.05, averaging=0.5), params, 5)[0], ours) <= 1e-12


def test_the_rest_may_have_regularizers_of_its_own():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), initial())
    coupling = couple(trace_dims(residual, params, jnp.asarray(X, jnp.float32)), params)
    regularizer = coupling.regularizer(rest={r"in/kernel$": ramda_jax.GroupLasso("input")})
    groups = {path: resolved.groups for path, _, resolved in regularized_leaves(regularizer, coupling.pack(params))}
    assert {path.split("/", 1)[1] for path in groups} == {*coupling.parts, "in/kernel"}


def test_coupling_wants_the_parameters_that_were_traced_and_params_in_update():
    params = initial()
    dims = trace_dims(residual, params, jnp.asarray(X))
    with pytest.raises(CompactionError, match="'other' of shape"):
        couple(dims, {"other": jnp.ones(3)})
    with pytest.raises(CompactionError, match="may be any of"):
        couple(dims, {"kernel": jnp.ones((8, 2))})
    coupling = couple(dims, params)
    with pytest.raises(CompactionError, match=r"'up/kernel' has shape \(7, 10\), not \(8, 10\)"):
        coupling.pack(params | {"up": {"kernel": jnp.ones((7, 10))}})
    with pytest.raises(CompactionError, match="must be of the parameters that were coupled"):
        compact_coupling(Plan({"up/kernel": LeafPlan((8, 10), (None, None))}, (), {}), coupling)
    # The plan keeps rows 0 and 1 of one leaf, and rows 1 and 2 of another leaf of the same groups.
    leaves = {path: LeafPlan(shape, (None,) * len(shape)) for path, shape in coupling.shapes.items()}
    leaves |= {"left/kernel": LeafPlan((8, 2), ((0, 1), None)), "right/kernel": LeafPlan((8, 2), ((1, 2), None))}
    with pytest.raises(CompactionError, match="must keep the same entries in all kept groups of d0"):
        compact_coupling(Plan(leaves, (), {}), coupling)
    optimizer = coupling.wrap(optax.sgd(0.1))
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        optimizer.update(params, optimizer.init(params))


def test_parameters_may_be_a_part_of_what_was_traced_by_one_prefix():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(8)(nn.relu(nn.BatchNorm(use_running_average=True)(nn.Dense(16)(x))))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):  # Dense_0 and Block_0/Dense_0
            return nn.Dense(3)(nn.relu(Block()(x)))

    module, x = Net(), jnp.ones((2, 8))
    variables = module.init(jax.random.key(0), x)
    dims = trace_dims(module, variables, x)
    whole = couple(dims, variables)
    part = couple(dims, variables["params"])
    assert [[leaf.path for leaf in parts] for parts in whole.parts.values()] == [
        [f"params/{leaf.path}" for leaf in parts] for parts in part.parts.values()
    ]
    assert set(part.parts) and set(part.shapes) == {path for path, _ in named_leaves(variables["params"])}
    # The trace may be of the collection alone.
    alone = trace_dims(lambda params, x: module.apply({**variables, "params": params}, x), variables["params"], x)
    assert (
        couple(alone, {"params": variables["params"]}).parts.keys() == couple(alone, variables["params"]).parts.keys()
    )


def test_a_square_kernel_is_coupled_along_what_it_reads():
    params = {"in": jnp.ones((8, 6)), "square": jnp.ones((8, 8)), "out": jnp.ones((3, 8))}

    def stream(params, x):
        h = x @ params["in"].T
        return (h + jnp.tanh(h @ params["square"].T)) @ params["out"].T

    [parts] = couple(trace_dims(stream, params, jnp.ones((2, 6))), params).parts.values()
    assert [(part.path, part.axis) for part in parts] == [("out", 1), ("square", 1)]
