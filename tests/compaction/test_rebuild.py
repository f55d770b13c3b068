"""Rebuilding a small model from its code, its plan and its variables, in another process and for other modules."""

import json
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
from flax import nnx

from ramda_jax.compaction import (
    CompactionError,
    compact,
    compact_model,
    load_compact,
    plan_compaction,
    rebuild,
    trace_dims,
)
from ramda_jax.structure.paths import named_leaves
from tests.compaction.nets_nnx import MLP, VECTORS, build
from tests.compaction.nets_stacked import SEQUENCES
from tests.compaction.patterns import relative_difference, zero_readers
from tests.compaction.rebuilt_elsewhere import MODELS, Both, Encoder, how_called, output

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(0)


def compacted(name):
    """The compaction of a model with random values, in which nothing reads random indices."""
    kind, batch = MODELS[name]
    call, variables, given = how_called(name), None, {}
    if name.startswith("nnx"):
        # The nets with branches start with zero kernels, which empty other kernels.
        model = kind(rngs=nnx.Rngs(0)) if "branches" in name else build(kind)
        graph, variables = nnx.split(model)
    elif name.startswith("linen"):
        model, variables = kind, jax.jit(kind.init)(KEY, batch)
        given = {"variables": variables}
    else:
        model = eqx.filter_jit(kind)(KEY)
        variables, static = eqx.partition(model, eqx.is_array)
    dims = trace_dims(model, batch, call=call, **given)
    values, _ = zero_readers(dims, variables, np.random.default_rng(5))
    if name.startswith("nnx"):
        model = nnx.merge(graph, values)
    elif name.startswith("linen"):
        given = {"variables": values}
    else:
        model = eqx.combine(values, static)
    shapes = jax.ShapeDtypeStruct(batch.shape, batch.dtype)
    return compact_model(model, shapes, call=call, num_random=0, allow_empty=True, **given)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Maps names of models to their outputs in this process and in another process."""
    folder = tmp_path_factory.mktemp("models")
    here = {}
    for name in MODELS:
        small = compacted(name)
        before, after = small.plan.num_params
        assert after < 0.9 * before
        small.save(folder / name)
        here[name] = np.asarray(output(name, small.model, small.variables))
    command = [sys.executable, "-m", "tests.compaction.rebuilt_elsewhere", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    return {name: (outputs, np.load(folder / f"{name}.npy")) for name, outputs in here.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_stored_model_is_the_same_in_another_process(name, elsewhere):
    here, there = elsewhere[name]
    np.testing.assert_array_equal(here, there)


class Named(eqx.Module):
    """A model with a leaf under the attribute `value`, whose name is empty, beside another leaf."""

    value: jax.Array
    key: jax.Array

    def __call__(self, x):
        return jnp.tanh(x @ self.key) @ self.value


def test_a_leaf_without_a_name_is_found_under_the_empty_key(tmp_path):
    model = Named(jnp.ones((8, 3)).at[5:].set(0), jnp.ones((6, 8)))
    small = compact_model(model, VECTORS, num_random=0)
    small.save(tmp_path / "small")
    plan, by_path = load_compact(tmp_path / "small")
    again = rebuild(model, plan, by_path, VECTORS)
    np.testing.assert_array_equal(again(VECTORS), small.model(VECTORS))
    assert compact(plan, {"": model.value})[""].shape == (5, 3)
    # The same for a model that is a single array.
    tied = compact_model(
        lambda w, x: jnp.tanh(x @ w) @ w.T, VECTORS, variables=model.key.at[:, 2:].set(0), num_random=0
    )
    tied.save(tmp_path / "tied")
    plan, by_path = load_compact(tmp_path / "tied")
    assert by_path[""].shape == (6, 2) and compact(plan, {"": model.key})[""].shape == (6, 2)
    # A leaf whose key is empty is a different case.
    keyed = compact_model(
        lambda p, x: jnp.tanh(x @ p[""]) @ p[""].T, VECTORS, variables={"": model.key.at[:, 2:].set(0)}
    )
    assert compact(keyed.plan, {"": model.key})[""].shape == (6, 2)


def mlp_small():
    net = build(MLP)
    for layer in net.layers[1:]:
        layer.kernel[...] = layer.kernel[...].at[:5].set(0)
    return net, compact_model(net, VECTORS, num_random=0)


def test_a_whole_checkpoint_is_refused_and_made_small_it_is_taken():
    net, small = mlp_small()
    whole = nnx.state(net)
    with pytest.raises(
        CompactionError,
        match=r"'layers/0/bias' has that of the whole model, \(10,\), not \(5,\); make them small by `compact\(plan",
    ):
        rebuild(build(MLP), small.plan, whole)
    again = rebuild(build(MLP), small.plan, compact(small.plan, whole), VECTORS)
    assert relative_difference(small.model(VECTORS), again(VECTORS)) == 0


def test_orbax_refuses_a_whole_checkpoint_for_small_shapes_unless_it_is_told_to_cut(tmp_path):
    """The documents state this about Orbax's modes."""
    net, small = mlp_small()
    leaves = [dict(named_leaves(tree)) for tree in (nnx.state(net), small.variables)]
    path = "layers/1/kernel"
    whole, part = ({path: tree[path]} for tree in leaves)
    args = orbax.checkpoint.args
    with orbax.checkpoint.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "whole", whole)

        def restored(item=part, **settings):
            given = orbax.checkpoint.checkpoint_utils.construct_restore_args(item)
            if settings.pop("cut", False):
                array = part[path]
                given = {
                    path: orbax.checkpoint.ArrayRestoreArgs(
                        sharding=array.sharding, global_shape=array.shape, strict=False
                    )
                }
            return checkpointer.restore(tmp_path / "whole", args=args.PyTreeRestore(item, given, **settings))

        for settings in ({}, {"partial_restore": True}):
            with pytest.raises(ValueError, match="not compatible with the stored shape"):
                restored(**settings)
        # Orbax keeps the first rows and columns, not the ones in the plan.
        cut = restored(cut=True)[path]
    np.testing.assert_array_equal(cut, whole[path][: cut.shape[0], : cut.shape[1]])
    assert cut.shape == part[path].shape and not np.array_equal(cut, part[path])


def test_variables_and_models_that_do_not_fit_are_refused_by_name():
    _, small = mlp_small()
    leaves = dict(named_leaves(small.variables))
    cases = [
        (build(MLP), {"other": jnp.ones(3)}, r"none of \['other'\] is a leaf of it"),
        (build(MLP), leaves | {"layers/1/kernel": jnp.ones((2, 7))}, r"has \(2, 7\), not \(5, 7\); give those saved"),
        (build(MLP), {name: leaf for name, leaf in leaves.items() if "/1/" not in name}, "lack 'layers/1/bias'"),
        (small.model, leaves, r"must be a fresh one of the sizes before, but 'layers/0/bias' has shape \(5,\), not"),
        (nnx.Linear(3, 4, rngs=nnx.Rngs(0)), leaves, "must have all leaves of the plan, but lacks"),
    ]
    for model, variables, message in cases:
        with pytest.raises(CompactionError, match=message):
            rebuild(model, small.plan, variables)
    with pytest.raises(CompactionError, match="The plan must be a `Plan`"):
        rebuild(build(MLP), small.plan.to_json(), leaves)


class Doubled(MLP):
    def __call__(self, x):
        return 2 * super().__call__(x)


class Scaled(MLP):
    """A model that uses a width in its code."""

    def __call__(self, x):
        return self.layers[-1](nnx.relu(self.layers[0](x))[:, :1] * jnp.ones(8) / self.layers[2].out_features)


def test_code_that_is_not_that_of_the_plan_is_found_with_a_batch():
    _, small = mlp_small()
    assert isinstance(rebuild(build(Doubled), small.plan, small.variables, VECTORS), Doubled)  # its own plan fits
    with pytest.raises(CompactionError, match="must be the one that the plan was made for, but is not: "):
        rebuild(build(Scaled), small.plan, small.variables, VECTORS)


def test_linen_variables_go_into_another_module_of_the_same_parameters():
    variables = jax.jit(Both().init)(KEY, SEQUENCES)
    encoder = variables["params"]["encoder"]
    encoder["down"]["kernel"] = encoder["down"]["kernel"].at[:5].set(0)
    small = compact_model(Both(), SEQUENCES, variables=variables, num_random=0)
    assert small.widths() == {"params/encoder/down/kernel[1]": 6, "params/encoder/up/kernel[1]": 3}
    inner = {"params": small.variables["params"]["encoder"]}
    run = rebuild(Encoder(), small.plan, inner, SEQUENCES)
    assert relative_difference(Encoder().apply({"params": encoder}, SEQUENCES), run(inner, SEQUENCES)) <= 1e-6
    # The variables may also be a dict by path, as `load_compact` returns it.
    by_path = {f"params/{name}": leaf for name, leaf in named_leaves(inner["params"])}
    assert callable(rebuild(Encoder(), small.plan, by_path))


class Decoder(nn.Module):
    decode: bool = False

    @nn.compact
    def __call__(self, x):
        attention = nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=8, decode=self.decode)
        mask = None if self.decode else nn.make_causal_mask(x[..., 0])
        return nn.Dense(3)(attention(nn.Dense(6)(x), mask=mask))


def test_linen_variables_decode_step_by_step_with_a_cache_of_the_small_size():
    variables = jax.jit(Decoder().init)(KEY, SEQUENCES)
    attention = variables["params"]["MultiHeadDotProductAttention_0"]
    attention["out"]["kernel"] = attention["out"]["kernel"].at[jnp.array([0, 2])].set(0)
    small = compact_model(Decoder(), SEQUENCES, variables=variables, num_random=0)
    run = rebuild(Decoder(decode=True), small.plan, small.variables)
    _, state = run(small.variables, jnp.zeros_like(SEQUENCES), mutable=["cache"])
    assert state["cache"]["MultiHeadDotProductAttention_0"]["cached_key"].shape == (2, 4, 2, 2)
    steps = []
    for number in range(SEQUENCES.shape[1]):
        outputs, state = run(small.variables | state, SEQUENCES[:, number : number + 1], mutable=["cache"])
        steps.append(outputs)
    whole = Decoder().apply(variables, SEQUENCES)
    assert relative_difference(whole, jnp.concatenate(steps, axis=1)) <= 1e-5


def test_widths_are_what_a_configuration_needs():
    _, small = mlp_small()
    widths = json.loads(json.dumps(small.widths()))
    assert widths == {"layers/0/kernel[1]": 5, "layers/1/kernel[1]": 7, "layers/2/kernel[1]": 3}


class Normed(nnx.Module):
    def __init__(self, rngs):
        self.up, self.down = nnx.Linear(5, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.down(nnx.relu(self.norm(self.dropout(self.up(x)))))


def test_a_model_made_again_is_in_evaluation_mode(tmp_path):
    """A fresh model is in training mode: batch norm would use the batch's statistics, and dropout would be active."""
    net, x = Normed(nnx.Rngs(0)), jax.random.normal(KEY, (6, 5))
    net.norm.mean.set_value(jax.random.normal(KEY, (8,)))
    net.down.kernel.set_value(net.down.kernel.get_value().at[2:5].set(0))
    small = compact_model(net, x)
    small.save(tmp_path)
    fresh = nnx.eval_shape(lambda: Normed(nnx.Rngs(1)))
    again = rebuild(fresh, *load_compact(tmp_path), x)
    net.eval()
    assert relative_difference(net(x), again(x)) <= 1e-6
    # `compact_model` returns a model in the mode of the whole model.
    assert not small.model.norm.use_running_average
    assert not small.model.dropout.deterministic


def test_an_equinox_model_made_again_is_in_evaluation_mode():
    def make():
        layers = [eqx.nn.Linear(5, 8, key=KEY), eqx.nn.Dropout(0.5), eqx.nn.Linear(8, 3, key=KEY)]
        return eqx.nn.Sequential(layers)

    net, x = make(), jnp.ones(5)
    net = eqx.tree_at(lambda net: net.layers[2].weight, net, net.layers[2].weight.at[:, 2:5].set(0))
    small = compact_model(net, x)
    again = rebuild(eqx.filter_eval_shape(make), small.plan, small.variables, x)
    assert relative_difference(eqx.nn.inference_mode(net)(x), again(x)) <= 1e-6


def test_planning_without_the_statistics_says_what_to_give():
    net, x = Normed(nnx.Rngs(0)), jnp.ones((2, 5))
    params = nnx.state(net, nnx.Param)
    dims = trace_dims(net, x)
    with pytest.raises(CompactionError, match=r"has shape None.*; give all variables.*merge_state"):
        plan_compaction(dims, params)
    plan_compaction(dims, nnx.merge_state(nnx.state(net), params))
