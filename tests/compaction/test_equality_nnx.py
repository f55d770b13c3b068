import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ramda_jax.compaction import compact, compact_model, trace_dims
from tests.compaction.nets_nnx import FULL_DEPTH, NETS, ResNet50, build, every_net, images, make
from tests.compaction.patterns import TOLERANCES, relative_difference, zero_groups, zero_readers
from tests.tiny import array

#: Widths that Flax's code fixes, although the mathematics would not: the size of a head's values, which Flax's
#: attention requires to be the size of its keys.
REFUSED = {"transformer": {"d3", "d7"}}


def with_zeros(net, seed, share=0.6):
    graph, state = nnx.split(net)
    params, rest = nnx.split_state(state, nnx.Param, ...)
    return nnx.merge(graph, zero_groups(params, np.random.default_rng(seed), share), rest)


def outputs(net, batch):
    return nnx.jit(lambda net, batch: net(batch))(net, batch)


def traced(net, batch):
    """(dims, state, a function from a state to the module with this state)."""
    graph, state = nnx.split(net)
    return trace_dims(net, batch), state, lambda state: nnx.merge(graph, state)


def shuffled(batch):
    """A batch that the proof has not used."""
    return array(np.random.default_rng(7).permutation(np.asarray(batch).ravel()).reshape(batch.shape))


@pytest.mark.slow_except("mlp", "lenet5", "transformer")
@every_net
def test_compact_model_computes_the_same_when_random_groups_are_zero(name):
    net, batch = make(name)
    net = with_zeros(net, seed=len(name))
    small = compact_model(net, batch, num_random=1)
    before, after = small.plan.num_params
    assert after < before
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(small.model))) == after
    assert small.proof.error <= TOLERANCES["float32"]
    assert small.proof.batches == 2


@every_net
def test_compact_model_deletes_exactly_what_nothing_reads_and_computes_the_same_in_float64(name):
    with jax.enable_x64():
        net, batch = make(name, jnp.float64)
        dims, state, with_state = traced(net, batch)
        assert dims.opaque == {}
        free = {str(member) for width in dims.widths if not width.reason for member in width.members}
        assert set(NETS[name][2]) <= free
        state, alive = zero_readers(dims, state, np.random.default_rng(3))
        net = with_state(state)
        # Pass shapes, so that the proof runs nothing and only this test compares outputs.
        small = compact_model(net, jax.ShapeDtypeStruct(batch.shape, batch.dtype), num_random=0)
        assert small.proof.batches == 0
        wanted = {name: kept for name, kept in alive.items() if name not in small.refused}
        assert {width.name: width.kept for width in small.plan.widths if width.name in wanted} == wanted
        assert set(small.refused) == REFUSED.get(name, set())
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(nnx.state(small.model, nnx.Param))} == {"float64"}
        other = shuffled(batch)
        assert relative_difference(outputs(net, other), outputs(small.model, other)) <= TOLERANCES["float64"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_DEPTH)
def test_compact_model_deletes_exactly_what_nothing_reads_at_full_depth(name):
    """This test checks the structure only and runs nothing."""
    net, batch = make(name)
    dims, state, with_state = traced(net, batch)
    assert dims.opaque == {}
    free = {str(member) for width in dims.widths if not width.reason for member in width.members}
    assert set(NETS[name][2]) <= free
    state, alive = zero_readers(dims, state, np.random.default_rng(3))
    small = compact_model(with_state(state), jax.ShapeDtypeStruct(batch.shape, batch.dtype), num_random=0)
    assert {width.name: width.kept for width in small.plan.widths if width.name in alive} == alive
    assert small.refused == {}


@pytest.mark.parametrize("name", ["mlp", "mobilenet", "lstm"])
def test_compact_model_twice_equals_once(name):
    net, batch = make(name)
    once = compact_model(with_zeros(net, seed=3), batch, num_random=1)
    twice = compact_model(once.model, batch, num_random=1)
    assert twice.plan.changes_nothing
    assert relative_difference(once.variables, twice.variables) == 0


def test_gradients_and_batch_statistics_of_the_compact_model_are_the_kept_slices():
    with jax.enable_x64():
        net, batch = build(functools.partial(ResNet50, depths=(1,)), jnp.float64), images(8, 3).astype(jnp.float64)
        labels = jnp.asarray(np.random.default_rng(0).normal(size=(len(batch), 5)))
        dims, state, with_state = traced(net, batch)
        net = with_state(zero_readers(dims, state, np.random.default_rng(3))[0])
        small = compact_model(net, jax.ShapeDtypeStruct(batch.shape, batch.dtype), num_random=0)

        @nnx.jit
        def train(net):
            return nnx.value_and_grad(lambda net: jnp.mean((net(batch) - labels) ** 2))(net)

        before = jax.tree.map(jnp.copy, nnx.state(net, nnx.BatchStat))
        net.train()
        small.model.train()
        value, grads = train(net)
        small_value, small_grads = train(small.model)
        assert float(small_value) == pytest.approx(float(value), rel=1e-12)
        assert relative_difference(compact(small.plan, grads), small_grads) <= 1e-12
        statistics = nnx.state(net, nnx.BatchStat)
        assert relative_difference(before, statistics) > 0.01
        kept = compact(small.plan, statistics)
        assert relative_difference(kept, nnx.state(small.model, nnx.BatchStat)) <= 1e-12
        sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (grads, small_grads)]
        assert sizes[1] < sizes[0]


def test_compact_model_rounds_widths_up():
    net, batch = make("mlp")
    net = with_zeros(net, seed=1)
    small = compact_model(net, batch, round_to=8)
    widths = [len(width.kept) for width in small.plan.widths if not width.reason]
    sizes = [width.size for width in small.plan.widths if not width.reason]
    assert all(width % 8 == 0 or width == size for width, size in zip(widths, sizes, strict=True))
    assert any(width.padding for width in small.plan.widths)
    assert relative_difference(outputs(net, batch), outputs(small.model, batch)) <= TOLERANCES["float32"]
    assert compact_model(small.model, batch, round_to=8).plan.changes_nothing


def test_compact_model_keeps_one_index_of_a_dead_layer():
    net, batch = make("mlp")
    net.layers[2].kernel[...] = jnp.zeros_like(net.layers[2].kernel[...])
    small = compact_model(net, batch)
    # So the first two layers have no effect, and shrink to one unit each.
    assert [layer.kernel.shape for layer in small.model.layers] == [(6, 1), (1, 1), (1, 8), (8, 3)]
    assert len(small.plan.dead) == 2
    assert "dead: nothing reads it" in str(small)
    assert f"whole layers are dead ({' '.join(small.plan.dead)})" in str(small)
    assert "never free, the model's output: d4" in str(small)


def test_plan_reports_the_inputs_that_nothing_reads():
    net, batch = make("mlp")
    net.layers[0].kernel[...] = net.layers[0].kernel[...].at[jnp.array([1, 4])].set(0)
    assert compact_model(net, batch).plan.unread_inputs == {"0[1]": (1, 4)}


def test_plan_reports_the_pixels_that_nothing_reads():
    def logistic(kernel, images):
        return images.reshape(len(images), -1) @ kernel

    kernel = jnp.ones((12, 3)).at[jnp.array([0, 7])].set(0)
    plan = compact_model(logistic, jnp.ones((5, 3, 4, 1)), variables=kernel).plan
    assert plan.unread_inputs == {"0[1] x 0[2]": (0, 7)}
