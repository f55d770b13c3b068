import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax.compaction import compact, compact_model, trace_dims
from tests.compaction.nets_linen import every_net, make
from tests.compaction.patterns import TOLERANCES, relative_difference, zero_groups, zero_readers
from tests.tiny import array


@pytest.mark.slow_except("mlp", "transformer")
@every_net
def test_compact_linen_model_computes_the_same_when_random_groups_are_zero(name):
    module, variables, batch = make(name)
    variables["params"] = zero_groups(variables["params"], np.random.default_rng(len(name)), 0.6)
    small = compact_model(module, batch, variables=variables, num_random=1)
    before, after = small.plan.num_params
    assert after < before
    assert small.proof.error <= TOLERANCES["float32"]


@every_net
def test_compact_linen_model_deletes_what_nothing_reads_and_computes_the_same_in_float64(name):
    with jax.enable_x64():
        module, variables, batch = make(name, jnp.float64)
        variables, alive = zero_readers(trace_dims(module.apply, variables, batch), variables, np.random.default_rng(3))
        # Pass shapes, so that the proof runs nothing and only this test compares outputs.
        small = compact_model(module, jax.ShapeDtypeStruct(batch.shape, batch.dtype), variables=variables, num_random=0)
        assert small.refused == small.dims.opaque == {}
        assert {width.name: width.kept for width in small.plan.widths if width.name in alive} == alive
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(small.variables)} == {"float64"}
        outputs = jax.jit(small.model)(small.variables, batch)
        assert relative_difference(jax.jit(module.apply)(variables, batch), outputs) <= TOLERANCES["float64"]


def test_gradients_and_batch_statistics_of_the_compact_model_are_the_kept_slices():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            for width in (6, 8):
                x = nn.Conv(width, (3, 3), use_bias=False)(x)
                x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            return nn.Dense(4)(x.mean(axis=(1, 2)))

    rng = np.random.default_rng(0)
    with jax.enable_x64():
        batch, labels = array(rng.normal(size=(5, 6, 6, 3))), array(rng.normal(size=(5, 4)))
        variables = jax.tree.map(
            lambda leaf: array(rng.uniform(0.1, 1.0, leaf.shape) * rng.choice([-1, 1], leaf.shape)),
            jax.eval_shape(Net().init, jax.random.key(0), batch),
        )
        variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
        variables, _ = zero_readers(trace_dims(Net().apply, variables, batch), variables, rng)
        small = compact_model(Net(), batch, variables=variables)

        @jax.jit
        def train(variables):
            return derivatives(Net().apply, variables)

        def derivatives(apply, variables):
            def loss(params):
                both = {"params": params, "batch_stats": variables["batch_stats"]}
                outputs, updated = apply(both, batch, train=True, mutable=["batch_stats"])
                return jnp.mean((outputs - labels) ** 2), updated["batch_stats"]

            return jax.value_and_grad(loss, has_aux=True)(variables["params"])

        (value, statistics), grads = train(variables)
        (small_value, small_statistics), small_grads = jax.jit(lambda v: derivatives(small.model, v))(small.variables)
        assert float(small_value) == pytest.approx(float(value), rel=1e-12)
        assert relative_difference(compact(small.plan, {"params": grads})["params"], small_grads) <= 1e-12
        kept = compact(small.plan, {"batch_stats": statistics})["batch_stats"]
        assert relative_difference(kept, small_statistics) <= 1e-12
        assert small_grads["Conv_1"]["kernel"].size < grads["Conv_1"]["kernel"].size


def test_linen_modules_run_as_they_are_once_rebuilt_with_the_widths_of_the_plan():
    """The small variables also fit a module that is written by hand with the small widths."""
    module, variables, batch = make("mlp")
    variables, _ = zero_readers(trace_dims(module.apply, variables, batch), variables, np.random.default_rng(0))
    small = compact_model(module, batch, variables=variables)
    widths = [small.variables["params"][f"Dense_{i}"]["kernel"].shape[1] for i in range(3)]

    class Small(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width in widths[:-1]:
                x = nn.relu(nn.Dense(width)(x))
            return nn.Dense(widths[-1])(x)

    outputs = Small().apply(small.variables, batch)
    assert relative_difference(module.apply(variables, batch), outputs) <= TOLERANCES["float32"]
