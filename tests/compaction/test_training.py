"""Continued training: the small model takes the same steps as the masked model, and zeros can be held."""

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
    compact_state,
    couple,
    expand,
    freeze_structure,
    keep_group_weights,
    plan_compaction,
    trace_dims,
)
from ramda_jax.structure import regularized_leaves
from ramda_jax.structure.paths import named_leaves
from tests import tiny
from tests.compaction.patterns import relative_difference, zero_readers
from tests.tiny import array

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 4, 4, 2)), RNG.normal(size=(16, 3))
REGULARIZER = ramda_jax.GroupLasso("input")


def network(params, x):
    x = jax.lax.conv_general_dilated(
        x, params["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jnp.tanh(x + params["conv"]["bias"]).reshape(len(x), -1)
    x = jnp.tanh(x @ params["dense"]["kernel"] + params["dense"]["bias"])
    # Two leaves read one width.
    return x @ params["out"]["kernel"] + params["out"]["bias"] + jnp.sin(x @ params["side"]["kernel"])


def initial():
    rng = np.random.default_rng(1)
    shapes = {"conv": (3, 3, 2, 5), "dense": (80, 8), "out": (8, 3), "side": (8, 3)}
    return {
        name: {
            "kernel": array(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))),
            "bias": array(rng.normal(size=shape[-1])),
        }
        for name, shape in shapes.items()
    }


def gradient(params):
    return jax.grad(lambda params: jnp.mean((network(params, jnp.asarray(X)) - jnp.asarray(Y)) ** 2))(params)


def steps(optimizer, params, state, number, mask=None):
    """(parameters, state) after each of some steps, with gradients only where the mask is 1."""

    @jax.jit
    def step(params, state):
        grads = gradient(params)
        if mask is not None:
            grads = jax.tree.map(jnp.multiply, grads, mask)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    found = []
    for _ in range(number):
        params, state = step(params, state)
        found.append((params, state))
    return found


def ramda(regularizer):
    schedule = optax.linear_schedule(0.1, 0.02, 20)
    return ramda_jax.ramda(schedule, regularizer, 2e-3, averaging=0.7, restarts=(12,))


OPTIMIZERS = {
    "ramda": ramda,
    "coupled ramda": ramda,
    "rmda": lambda regularizer: ramda_jax.rmda(0.1, regularizer, 2e-3, averaging=0.7, restarts=(12,)),
    "prox_adamw": lambda regularizer: ramda_jax.prox_adamw(0.01, regularizer, 2e-3),
    "adamw": lambda regularizer: optax.adamw(optax.cosine_decay_schedule(0.01, 30)),
    "clipped momentum": lambda regularizer: optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.05, momentum=0.9)),
}


QUICK = ("coupled ramda", "prox_adamw")


@pytest.mark.slow_except("coupled ramda")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in OPTIMIZERS]
)
def test_training_continued_small_equals_training_continued_masked(name):
    with jax.enable_x64():
        make, params = OPTIMIZERS[name], initial()
        dims = trace_dims(network, params, jnp.asarray(X))
        coupling = couple(dims, params) if name.startswith("coupled") else None
        optimizer = coupling.wrap(make(coupling.regularizer())) if coupling else make(REGULARIZER)
        # Train into the middle of a stage, so that sums of gradients are not zero. Then set a structure.
        params, state = steps(optimizer, params, optimizer.init(params), 7)[-1]
        params, _ = zero_readers(dims, params, np.random.default_rng(2))
        plan = state_plan = plan_compaction(dims, params)
        assert plan.num_params[1] < 0.6 * plan.num_params[0]
        small = compact(plan, params)
        if coupling:
            small_coupling, state_plan = compact_coupling(plan, coupling)
            regularizer = keep_group_weights(coupling.regularizer(), coupling.pack(params))
            small_optimizer = small_coupling.wrap(make(regularizer))
        else:
            small_optimizer = make(keep_group_weights(REGULARIZER, params))
        small_state = compact_state(state_plan, state, small_optimizer, small)
        wanted = jax.eval_shape(small_optimizer.init, small)
        assert jax.tree.structure(small_state) == jax.tree.structure(wanted)
        # In the masked run deleted entries are 0 in the parameters, in the state and in every gradient.
        masked, masked_state = expand(plan, small), hide(state_plan, state)
        mask = expand(plan, jax.tree.map(jnp.ones_like, small))
        whole = steps(optimizer, masked, masked_state, 10, mask)
        ours = steps(small_optimizer, small, small_state, 10)
        for (params, state), (small_params, own_state) in zip(whole, ours, strict=True):
            assert relative_difference(compact(plan, params), small_params) <= 1e-12
            # Sums, counts and radii are equal. The solver's residual is only rounding, so it is not compared.
            sliced = without_residual(compact(state_plan, state))
            assert relative_difference(sliced, without_residual(own_state)) <= 1e-12
            deleted = jax.tree.map(jnp.subtract, params, expand(plan, compact(plan, params)))
            assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(deleted))


def without_residual(state):
    return {path: leaf for path, leaf in named_leaves(state) if not path.endswith("residual")}


def hide(plan, tree):
    """The tree with all entries that the plan deletes set to zero."""
    return expand(plan, compact(plan, tree), jax.tree.map(keep_numbers, tree))


def keep_numbers(leaf):
    return leaf if jnp.ndim(leaf) == 0 or 1 in leaf.shape else jnp.zeros_like(leaf)


@pytest.mark.slow
def test_groups_would_weigh_less_without_keep_group_weights():
    with jax.enable_x64():
        params = initial()
        dims = trace_dims(network, params, jnp.asarray(X))
        params, _ = zero_readers(dims, params, np.random.default_rng(2))
        plan = plan_compaction(dims, params)
        small = compact(plan, params)
        kept = keep_group_weights(REGULARIZER, params)
        # If all deleted entries are zero, the penalty has the same value.
        whole = value(REGULARIZER, expand(plan, small))
        assert value(kept, small) == pytest.approx(whole, rel=1e-12)
        assert value(REGULARIZER, small) < 0.95 * whole


def value(regularizer, params):
    return sum(float(resolved.value(leaf)) for _, leaf, resolved in regularized_leaves(regularizer, params))


def test_compact_state_slices_what_map_params_finds():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), initial())
    dims = trace_dims(network, params, jnp.asarray(X, jnp.float32))
    params, _ = zero_readers(dims, params, np.random.default_rng(2))
    plan = plan_compaction(dims, params)
    optimizer = optax.adamw(0.01)
    state = optimizer.update(params, optimizer.init(params), params)[1]
    paths = jax.tree.structure(params).unflatten(path for path, _ in named_leaves(params))

    def cut(leaf, path):
        kept = zip(leaf.shape, plan.leaves[path].kept, strict=True)
        return np.asarray(leaf)[np.ix_(*[range(n) if indices is None else indices for n, indices in kept])]

    wanted = optax.tree.map_params(optimizer, cut, state, paths)
    found = compact(plan, state)
    assert relative_difference(wanted, found) == 0
    # Unchanged arrays are copied too, so that both states may be donated.
    assert found[0].count.unsafe_buffer_pointer() != state[0].count.unsafe_buffer_pointer()


def test_compact_state_refuses_a_state_that_is_not_kept_entry_by_entry():
    params = {"a": jnp.ones((200, 150)), "b": jnp.ones((150, 3)).at[75:].set(0)}
    plan = plan_compaction(trace_dims(lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], params, jnp.ones((2, 200))), params)
    optimizer = optax.adafactor(0.1)
    with pytest.raises(CompactionError, match="fresh"):
        compact_state(plan, optimizer.init(params), optimizer, compact(plan, params))
    with pytest.raises(CompactionError, match=r"of the kind that made the state, but its own has \d leaves"):
        compact_state(plan, optax.sgd(0.1).init(params), optax.adam(0.1), compact(plan, params))
    optimizer = optax.adam(0.1)
    with pytest.raises(CompactionError, match=r"has shape \(200, 75\) once it is compact, but .* wants \(200, 150\)"):
        compact_state(plan, optimizer.init(params), optimizer, params)


def test_nnx_optimizer_goes_on_small():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)])

        def __call__(self, x):
            return self.layers[1](jnp.tanh(self.layers[0](x)))

    x, y = jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32), jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32)

    @nnx.jit
    def step(net, optimizer):
        optimizer.update(net, nnx.grad(lambda net: jnp.mean((net(x) - y) ** 2))(net))

    net = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(net, optax.adam(0.01), wrt=nnx.Param)
    step(net, optimizer)
    kernel = net.layers[1].kernel
    kernel.set_value(kernel.get_value().at[2:].set(0))
    small = compact_model(net, x)
    small_optimizer = nnx.Optimizer(small.model, optax.adam(0.01), wrt=nnx.Param)
    nnx.update(small_optimizer, compact(small.plan, nnx.state(optimizer)))
    # Until the zeros move, both take the same steps. Here this is the first step.
    step(net, optimizer)
    step(small.model, small_optimizer)
    assert small.model.layers[0].kernel.get_value().shape == (4, 2)
    whole = compact(small.plan, nnx.state(net))
    assert relative_difference(whole, nnx.state(small.model)) <= 1e-6


def test_freeze_structure_holds_single_zeros_and_lets_the_rest_and_biases_move():
    params = {"kernel": jnp.array([[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]]), "bias": jnp.zeros(2)}
    optimizer = optax.chain(optax.adamw(0.1, weight_decay=0.1), freeze_structure(params))
    state = optimizer.init(params)
    for _ in range(5):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    assert np.array_equal(params["kernel"] != 0, [[True, False], [False, False], [True, True]])
    assert bool(jnp.all(params["bias"] != 0))


def test_freeze_structure_holds_groups_when_given_the_regularizer():
    structured = {"kernel": jnp.array([[1.0, 0.0], [0.0, 0.0]]), "other": jnp.zeros((2, 2))}
    regularizer = {"kernel": ramda_jax.GroupLasso("input"), "other": None}
    optimizer = optax.chain(optax.sgd(0.1), freeze_structure(structured, regularizer))
    # The current point differs slightly from the structured point, as with averaging. The first step sets the zeros.
    params = jax.tree.map(lambda leaf: leaf + 0.01, structured)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    params = optax.apply_updates(params, updates)
    assert np.array_equal(params["kernel"] != 0, [[True, True], [False, False]])
    assert bool(jnp.all(params["other"] != 0))


def test_freeze_structure_works_in_bfloat16_under_jit_with_donation_and_wants_params():
    params = {"kernel": jnp.array([[1.0], [0.0]], jnp.bfloat16)}
    optimizer = optax.chain(optax.adam(0.1), freeze_structure(params))
    step = jax.jit(lambda params, state: optimizer.update(params, state, params), donate_argnums=1)
    updates, state = step(params, optimizer.init(params))
    assert updates["kernel"].dtype == jnp.bfloat16
    assert float(updates["kernel"][1, 0]) == 0 != float(updates["kernel"][0, 0])
    # The donated state does not hold the structure itself.
    updates, state = step(params, optimizer.init(params))
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        optimizer.update(params, state)


@pytest.mark.parametrize(
    "regularizer",
    [
        ramda_jax.TopGroups(0.5),
        2.0 * ramda_jax.TopEntries(0.5),
        ramda_jax.NofM(1, 2),
        ramda_jax.GroupLasso(group_weight=np.ones((4, 1))),
        2.0 * ramda_jax.GroupLasso(group_weight=np.ones((4, 1))),
    ],
)
def test_keep_group_weights_refuses_what_counts_or_weighs_the_whole(regularizer):
    with pytest.raises(ValueError, match=r"`keep_group_weights` cannot keep .* for 'kernel': it (counts|has a weight)"):
        keep_group_weights(regularizer, {"kernel": jnp.ones((4, 3))})


def test_expand_puts_one_kept_index_where_it_was():
    plan = Plan({"bias": LeafPlan((4,), ((2,),)), "kernel": LeafPlan((3, 4), (None, (2,)))}, (), {})
    whole = {"bias": np.arange(4.0), "kernel": np.ones((3, 4))}
    expanded = expand(plan, compact(plan, whole))
    assert expanded["bias"].tolist() == [0, 0, 2, 0]
    assert expanded["kernel"].tolist() == [[0, 0, 1, 0]] * 3


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.clip(1.0), optax.adamw(1e-2)),
        ramda_jax.ramda(1e-2, ramda_jax.GroupLasso(groups=1), strength=1e-4),
        optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.sgd(1e-2, momentum=0.9)),
    ],
    ids=("adamw", "ramda", "with a key"),
)
def test_the_state_of_a_single_array_is_cut_and_expanded(optimizer):
    weights = tiny.normal_tree((6, 8)).at[:, 2:].set(0)
    small = compact_model(lambda w, x: jnp.tanh(x @ w) @ w.T, jnp.ones((2, 6)), variables=weights)
    assert small.variables.shape == (6, 2)
    _, state = optimizer.update(tiny.normal_tree((6, 8), seed=1), optimizer.init(weights), weights)
    compacted = compact_state(small.plan, state, optimizer, small.variables)
    kept = [
        leaf[:, :2] if leaf.shape == (6, 8) or leaf.shape == (1, 8) else leaf
        for leaf in jax.tree.leaves(state)
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]
    found = [leaf for leaf in jax.tree.leaves(compacted) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    assert any(leaf.shape == (6, 2) for leaf in found)
    for one, other in zip(kept, found, strict=True):
        np.testing.assert_array_equal(one, other)
    back = expand(small.plan, compacted)
    assert list(map(jnp.shape, jax.tree.leaves(back))) == list(map(jnp.shape, jax.tree.leaves(state)))
    # Other arrays in the tree stay.
    other = {"mu": weights, "seen": jnp.ones(3)}
    assert jax.tree.map(jnp.shape, compact(small.plan, other)) == {"mu": (6, 2), "seen": (3,)}
