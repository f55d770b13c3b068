"""Widths that nothing reads lose all indices, and the operations that compute them leave the compiled program."""

import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ramda_jax
from ramda_jax import compaction
from ramda_jax.compaction import (
    CompactionError,
    Plan,
    compact,
    compact_coupling,
    compact_model,
    compact_state,
    couple_model,
    expand,
    keep_group_weights,
    low_rank_model,
    plan_compaction,
    trace_dims,
)
from tests import tiny
from tests.compaction import nets_branches
from tests.compaction.nets_branches import IMAGES
from tests.compaction.nets_stacked import SEQUENCES, Attending, Convolving, Feedforward, Scanned


def over_batch(model, x):
    return jax.vmap(model)(x)


def make(name):
    """(arguments, keywords) of `compact_model`."""
    if name == "nnx":
        return (nets_branches.Nnx(nnx.Rngs(0)), IMAGES), {}
    if name == "linen":
        return (nets_branches.Linen(), IMAGES), {
            "variables": jax.jit(nets_branches.Linen().init)(jax.random.key(0), IMAGES)
        }
    if name == "equinox":
        return (eqx.filter_jit(nets_branches.Equinox)(jax.random.key(0)), IMAGES), {"call": over_batch}
    params = tiny.normal_tree(nets_branches.SHAPES)
    params |= {path: jnp.zeros_like(params[path]) for path in ("o", "down")}
    return (nets_branches.function, IMAGES), {"variables": params}


def operations(apply, variables, *args):
    """The numbers of some operations in the compiled program."""
    text = jax.jit(apply).lower(variables, *args).compile().as_text()
    names = ("dot", "convolution", "exponential", "tanh", "rsqrt")
    return {name: found for name in names if (found := len(re.findall(rf" {name}\(", text)))}


@functools.partial(jax.jit, static_argnums=0)
def outputs_and_gradient(apply, variables, x):
    """The outputs, and the gradient of the sum of their squares in `variables`, by one program."""

    def loss(variables):
        outputs = apply(variables, x)
        return jnp.sum(outputs**2), outputs

    grads, outputs = jax.grad(loss, allow_int=True, has_aux=True)(variables)
    return outputs, grads


#: The operations that are left: the stem, the head, and for the batch norm after a zero kernel one on a vector.
LEFT = {
    "nnx": {"convolution": 1, "dot": 1, "rsqrt": 1},
    "linen": {"convolution": 1, "dot": 1, "rsqrt": 1},
    "equinox": {"convolution": 1, "dot": 1},
    "function": {"dot": 2},
}


@pytest.mark.slow_except("function")
@pytest.mark.parametrize("name", LEFT)
def test_branches_that_add_nothing_leave_the_compiled_program(name):
    args, given = make(name)
    small = compact_model(*args, **given, allow_empty=True)
    assert all(not width.kept for width in small.plan.widths if width.is_dead and width.name not in small.not_empty)
    assert "empty: nothing reads it" in str(small)
    apply, variables = small.whole
    before = operations(apply, variables, IMAGES)
    assert all(before.get(kind, 0) > count for kind, count in LEFT[name].items() if kind != "rsqrt")
    assert before["exponential"] and before["rsqrt"] > 1
    assert operations(small.apply, small.variables, IMAGES) == LEFT[name]
    # Compare outputs for another batch size, and gradients.
    more = np.concatenate([IMAGES, -np.asarray(IMAGES)])
    wanted, whole = outputs_and_gradient(apply, variables, more)
    outputs, found = outputs_and_gradient(small.apply, small.variables, more)
    np.testing.assert_allclose(wanted, outputs, rtol=1e-5, atol=1e-6)
    wanted = compact(small.plan, whole)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if one.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    if name == "function":
        # Without the option each width keeps a unit.
        assert not any(width.kept == () for width in compact_model(*args, **given).plan.widths)


@pytest.mark.slow_except("Feedforward")
@pytest.mark.parametrize("kind", [Feedforward, Convolving, Attending])
def test_stacked_layers_that_are_all_dead_lose_their_width(kind):
    model = Scanned(kind, 3, rngs=nnx.Rngs(0))
    layers = model.layers
    last = {Feedforward: "down", Convolving: "last"}.get(kind)
    kernel = (layers.attention.out if last is None else getattr(layers, last)).kernel
    alive = kernel[...]
    kernel[...] = jnp.zeros_like(alive)
    batch = SEQUENCES if kind is not Convolving else jnp.ones((2, 3, 3, 3))
    small = compact_model(model, batch, num_random=1, allow_empty=True)
    if kind is Feedforward:
        assert small.model.layers.up.kernel.shape == (3, 6, 0) and small.not_empty == {}
        assert "rsqrt" not in operations(small.apply, small.variables, batch)
        # If one layer is alive, the width keeps as many units as that layer has.
        kernel[...] = jnp.zeros_like(alive).at[1, :3].set(alive[1, :3])
        small = compact_model(model, batch, num_random=1, allow_empty=True)
        assert small.model.layers.up.kernel.shape == (3, 6, 3)
        return
    # A depthwise convolution divides by the number of channels, and JAX's attention by the number of heads.
    [reason] = small.not_empty.values()
    assert "ZeroDivisionError" in reason and f"had to keep an index: {reason}" in str(small)
    assert sorted(len(width.kept) for width in small.plan.widths if width.is_dead)[0] == 1


def test_each_width_that_can_be_empty_is_though_others_cannot():
    def net(params, x):
        h = jnp.tanh(x @ params["a"])
        h = h + (jnp.tanh(h @ params["b"]) * (8 // params["b"].shape[1])) @ params["c"]
        return (h + jnp.tanh(h @ params["d"]) @ params["e"]) @ params["f"]

    shapes = {"a": (3, 6), "b": (6, 8), "c": (8, 6), "d": (6, 8), "e": (8, 6), "f": (6, 2)}
    params = tiny.normal_tree(shapes) | {"c": jnp.zeros((8, 6)), "e": jnp.zeros((8, 6))}
    small = compact_model(net, SEQUENCES, variables=params, allow_empty=True)
    # The code of the first branch has its width as a number, so this width stays.
    assert [small.variables[name].shape[1] for name in "bd"] == [8, 0]
    [[name, reason]] = small.refused.items()
    assert "depends on a size" in reason and name not in small.not_empty
    with pytest.raises(CompactionError, match="ZeroDivisionError"):
        compact_model(net, SEQUENCES, variables=params, allow_empty=True, strict=True)


def test_plan_compaction_empties_the_widths_that_are_named():
    def net(params, x):
        return x + jnp.tanh(x @ params["a"]) @ params["b"] + jnp.tanh(x @ params["c"]) @ params["d"]

    shapes = {"a": (3, 8), "b": (8, 3), "c": (3, 8), "d": (8, 3)}
    params = tiny.normal_tree(shapes) | {"b": jnp.zeros((8, 3)), "d": jnp.zeros((8, 3))}
    dims = trace_dims(net, params, SEQUENCES)
    names = {str(member): width.name for width in dims.widths for member in width.members}
    for given, wanted in ((False, (1, 1)), (True, (0, 0)), ([names["c[1]"]], (1, 0))):
        plan = plan_compaction(dims, params, allow_empty=given)
        assert (plan.leaves["a"].small_shape[1], plan.leaves["c"].small_shape[1]) == wanted
        compaction.verify(net, params, net, compact(plan, params), SEQUENCES, plan=plan)
        assert Plan.from_json(plan.to_json()) == plan
        assert len(plan.dead) == 2
    # 0 is a multiple of 4, so `round_to` allows it.
    assert plan_compaction(dims, params, round_to=4, allow_empty=True).leaves["a"].small_shape == (3, 0)
    with pytest.raises(CompactionError, match=r"`allow_empty` must name widths of `dims`, got \[\"'d9'\"\]; print"):
        plan_compaction(dims, params, allow_empty=["d9"])
    with pytest.raises(TypeError, match="`allow_empty` must be a bool, or names of widths, got 'd1'; use True"):
        plan_compaction(dims, params, allow_empty="d1")
    whole = expand(plan, compact(plan, params))
    assert jax.tree.map(jnp.shape, whole) == shapes


@pytest.fixture(scope="module")
def block():
    """(whole model, small model, batch)."""

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.stem, self.norm = nnx.Linear(3, 6, rngs=rngs), nnx.LayerNorm(6, rngs=rngs)
            self.up = nnx.Linear(6, 8, rngs=rngs)
            self.down = nnx.Linear(8, 6, kernel_init=nnx.initializers.zeros, rngs=rngs)
            self.head = nnx.Linear(6, 4, kernel_init=nnx.initializers.ones, rngs=rngs)

        def __call__(self, x):
            x = self.stem(x)
            return self.head(x + self.down(nnx.gelu(self.up(self.norm(x)))))

    model = Block(nnx.Rngs(0))
    return model, compact_model(model, SEQUENCES, allow_empty=True), SEQUENCES


def gradient(graph, x):
    return jax.grad(lambda params: jnp.sum(nnx.merge(graph, params)(x) ** 2))


OPTIMIZERS = {
    "adamw": lambda regularizer: optax.adamw(1e-3),
    "ramda": lambda regularizer: ramda_jax.ramda(1e-2, regularizer, strength=1e-4, averaging=0.9),
}


@pytest.mark.slow_except("adamw")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_continues_with_empty_layers(name, block):
    model, small, x = block
    graph, params = nnx.split(model)
    small_graph, small_params = nnx.split(small.model)
    regularizer = ramda_jax.GroupLasso()
    optimizer = OPTIMIZERS[name](regularizer)
    params, state = tiny.step(optimizer, gradient(graph, x), params, optimizer.init(params))
    small_optimizer = OPTIMIZERS[name](keep_group_weights(regularizer, params))
    params = expand(small.plan, compact(small.plan, params))  # sets deleted entries to zero
    small_params = compact(small.plan, params)
    small_state = compact_state(small.plan, state, small_optimizer, small_params)
    small_params, small_state = tiny.step(small_optimizer, gradient(small_graph, x), small_params, small_state)
    params, state = tiny.step(optimizer, gradient(graph, x), params, state)
    for one, other in zip(jax.tree.leaves(compact(small.plan, params)), jax.tree.leaves(small_params), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
    back = expand(small.plan, small_state)
    assert list(map(jnp.shape, jax.tree.leaves(back))) == list(map(jnp.shape, jax.tree.leaves(state)))


@pytest.mark.parametrize(
    "regularizer",
    [
        ramda_jax.GroupLasso("output"),
        ramda_jax.GroupMCP(omega=1.0),
        ramda_jax.TopGroups(0.5),
        {"kernel": ramda_jax.NuclearNorm(), "": ramda_jax.Null()},
    ],
    ids=str,
)
def test_every_kind_of_group_takes_a_step_on_empty_layers(regularizer, block):
    _, small, x = block
    graph, params = nnx.split(small.model)
    optimizer = ramda_jax.ramda(1e-2, regularizer, strength=1e-4)
    params, state = tiny.step(optimizer, gradient(graph, x), params, optimizer.init(params))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, state)))


def test_groups_without_entries_do_not_count(block):
    _, small, _ = block
    params = nnx.state(small.model, nnx.Param)
    assert params["up"]["kernel"].shape == (6, 0)
    regularizer = ramda_jax.GroupLasso()
    assert ramda_jax.metrics.group_sparsity(regularizer, params) == 0
    assert ramda_jax.metrics.weighted_group_sparsity(regularizer, params) == 0
    assert "up/kernel        0       0     0.0 %" in ramda_jax.metrics.layer_table(regularizer, params)


def test_a_target_is_one_of_the_groups_that_have_entries():
    target = ramda_jax.Target(0.5, of="groups", total_steps=40)
    optimizer = ramda_jax.ramda(1e-2, ramda_jax.GroupLasso(groups=0), strength=target)
    found = []
    for params in ({"head": tiny.normal_tree((12, 4))}, {"head": tiny.normal_tree((12, 4)), "up": jnp.zeros((40, 0))}):
        gradients = jax.tree.map(lambda w: w / 2, params)
        _, state = tiny.train(optimizer, lambda p, by=gradients: jax.tree.map(jnp.subtract, p, by), params, 40)
        found.append(float(state[1].strength.current))
    assert found[0] == found[1] > 1e-3


def test_coupled_groups_of_an_empty_width_are_none(block):
    model, small, _ = block
    coupling = couple_model(model, SEQUENCES)
    params, small_params = nnx.state(model, nnx.Param), nnx.state(small.model, nnx.Param)
    small_coupling, packed_plan = compact_coupling(small.plan, coupling)
    shapes = jax.tree.map(jnp.shape, small_coupling.pack(small_params))
    assert jax.tree.map(jnp.shape, compact(packed_plan, coupling.pack(params))) == shapes
    assert [shape[0] for shape in shapes["coupled"].values()] == [0]
    for weight in (None, "saving"):
        coupling = couple_model(model, SEQUENCES, weight=weight) if weight else coupling
        small_coupling = compact_coupling(small.plan, coupling)[0]
        state = coupling.wrap(ramda_jax.ramda(1e-2, coupling.regularizer(), strength=1e-4)).init(params)
        kept = keep_group_weights(coupling.regularizer(), params)
        optimizer = small_coupling.wrap(ramda_jax.ramda(1e-2, small_coupling.regularizer(kept), strength=1e-4))
        state = compact_state(small.plan, state, optimizer, small_params)
        updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, small_params), state, small_params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


def test_reports_and_later_steps_take_empty_layers(block):
    model, small, x = block
    report = small.report(x, rounds=0, regularizer=ramda_jax.GroupLasso(), params=nnx.state(model, nnx.Param))
    assert "6x8     6x0" in str(report) and report.after.flops < 0.4 * report.before.flops
    assert small.widths() == {"up/kernel[1]": 0}
    # Compaction of a small model changes nothing.
    assert compact_model(small.model, x, allow_empty=True).plan.changes_nothing
    dims = trace_dims(small.model, x)
    params = nnx.state(small.model, nnx.Param)
    assert "up/kernel" in str(ramda_jax.describe(compaction.groups(dims, ramda_jax.GroupLasso()), params, trace=dims))
    assert {path: cost.shape for path, cost in compaction.costs(dims).items()} == {"head/kernel": (6, 1)}
    assert compaction.freeze_structure(params).init(params) is not None
    assert low_rank_model(small.model, x).ranks == {"head/kernel": 1}
