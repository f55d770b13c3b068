"""Groups from the trace lie along the axes along which leaves are read, in any layout and with any names.

The tests check their purpose: `plan_compaction` deletes a unit if its groups are zero, and every group of every leaf
can be removed.
"""

import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ramda_jax
from ramda_jax import GroupLasso, describe
from ramda_jax.compaction import CompactionError, compact_model, groups, plan_compaction, trace_dims
from ramda_jax.structure import assign, named_leaves
from tests.compaction.nets_nnx import NETS
from tests.compaction.nets_nnx import make as make_nnx
from tests.tiny import array


def tree(**shapes):
    rng = np.random.default_rng(0)
    return {name: array(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def attention(q, k, v, o):
    """Attention with einsums and its own scale; the kernels may have any order of axes."""

    def apply(params, x):
        query, key, value = (jnp.einsum(f"btd,{spec}->btnh", x, params[name]) for name, spec in (q, k, v))
        weights = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", query, key) * 0.3)
        return jnp.einsum(f"btnh,{o[1]}->btd", jnp.einsum("bnts,bsnh->btnh", weights, value), params[o[0]])

    return apply


def grouped_queries(params, x):
    """Attention with two query heads for each head of keys and values."""
    q, k, v = (jnp.einsum("btd,dnh->btnh", x, params[name]) for name in ("q", "k", "v"))
    q = q.reshape(*q.shape[:2], k.shape[2], -1, k.shape[3])
    weights = jax.nn.softmax(jnp.einsum("btkgh,bskh->bkgts", q, k) * 0.3)
    out = jnp.einsum("bkgts,bskh->btkgh", weights, v)
    return jnp.einsum("btnh,nhd->btd", out.reshape(*x.shape[:2], -1, v.shape[3]), params["o"])


def gemma(params, x):
    q = jnp.einsum("btd,ndh->btnh", x, params["q_einsum/w"])
    k, v = jnp.einsum("bsd,ckdh->cbskh", x, params["kv_einsum/w"])
    weights = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, k) * 0.3)
    return jnp.einsum("btnh,nhd->btd", jnp.einsum("bnts,bsnh->btnh", weights, v), params["attn_vec_einsum/w"])


def residual(product):
    """A stream that a square matrix both reads and writes, so that both axes of the matrix belong to one width."""

    def apply(params, x):
        h = product(x, params["in"])
        for _ in range(2):
            h = h + jnp.tanh(product(h, params["square"]))
        return product(h, params["out"])

    return apply


def cast(x, w):
    return (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32)


def lora(params, x):
    h = jnp.tanh(x @ params["in"])
    return h @ (params["w"] + params["a"] @ params["b"])


def grouped_conv(params, x):
    """Grouped convolutions; the number of groups follows from the kernel."""
    for name in ("in", "conv", "out"):
        layout, count = ("NHC", "HIO", "NHC"), x.shape[2] // params[name].shape[1]
        x = jax.lax.conv_general_dilated(
            x, params[name], (1,), "SAME", dimension_numbers=layout, feature_group_count=count
        )
        x = jnp.tanh(x)
    return x


def scanned(params, x):
    def layer(h, kernels):
        return h + jnp.tanh(h @ kernels["up"]) @ kernels["down"], None

    return jax.lax.scan(layer, x, {"up": params["up"], "down": params["down"]})[0] @ params["out"]


def ensemble(params, x):
    member = lambda up, down: jnp.tanh(x @ up) @ down  # noqa: E731
    return jax.vmap(member)(params["up"], params["down"])


def tokens(params, ids):
    h = params["table"][ids] + params["positions"][: ids.shape[1]]
    h = jnp.concatenate([jnp.broadcast_to(params["cls"], (ids.shape[0], 1, h.shape[-1])), h], axis=1)
    bias = params["relative"][jnp.arange(ids.shape[1] + 1)]
    return jnp.tanh((h + bias) @ params["up"]) @ params["down"] + params["latents"] @ params["project"]


def tied(params, ids):
    h = params["table"][ids]
    return (h + jnp.tanh(h @ params["up"]) @ params["down"]) @ params["table"].T


TBD, TD = jnp.ones((2, 3, 6)), jnp.ones((4, 6))
IDS = jnp.zeros((2, 3), jnp.int32)
#: Maps names to (function, parameters, input, {leaf: axis of its groups}).
CASES = {
    "llama's names": (
        attention(("q_proj", "dnh"), ("k_proj", "dnh"), ("v_proj", "dnh"), ("o_proj", "nhd")),
        tree(q_proj=(6, 4, 5), k_proj=(6, 4, 5), v_proj=(6, 4, 5), o_proj=(4, 5, 6)), TBD, {"o_proj": 0},
    ),
    "heads in the middle": (
        attention(("a", "ndh"), ("b", "nhd"), ("c", "ndh"), ("e", "dnh")),
        tree(a=(4, 6, 5), b=(4, 5, 6), c=(4, 6, 5), e=(6, 4, 5)), TBD, {"e": 1},
    ),
    "grouped queries": (
        grouped_queries, tree(q=(6, 4, 5), k=(6, 2, 5), v=(6, 2, 5), o=(4, 5, 6)), TBD, {"o": 0},
    ),
    "gemma": (
        gemma, tree(**{"q_einsum/w": (4, 6, 5), "kv_einsum/w": (2, 4, 6, 5), "attn_vec_einsum/w": (4, 5, 6)}), TBD,
        {"attn_vec_einsum/w": 0},
    ),
    "flax's layout": (residual(jnp.matmul), tree(**{"in": (6, 8), "square": (8, 8), "out": (8, 3)}), TD,
                      {"square": 0, "out": 0}),
    "pytorch's layout": (residual(lambda x, w: x @ w.T), tree(**{"in": (8, 6), "square": (8, 8), "out": (3, 8)}), TD,
                         {"square": 1, "out": 1}),
    "flax's, cast": (residual(cast), tree(**{"in": (6, 8), "square": (8, 8), "out": (8, 3)}), TD,
                     {"square": 0, "out": 0}),
    "pytorch's, cast": (residual(lambda x, w: cast(x, w.T)), tree(**{"in": (8, 6), "square": (8, 8), "out": (3, 8)}),
                        TD, {"square": 1, "out": 1}),
    "scaled and reshaped": (
        residual(lambda x, w: x @ (2.0 * w.reshape(w.shape[0], -1))),
        tree(**{"in": (6, 2, 4), "square": (8, 2, 4), "out": (8, 3, 1)}), TD, {"square": 0, "out": 0},
    ),
    "an adapter of low rank": (lora, tree(**{"in": (6, 8), "w": (8, 3), "a": (8, 2), "b": (2, 3)}), TD,
                               {"w": 0, "a": 0, "b": 0}),
    "depthwise": (grouped_conv, tree(**{"in": (1, 6, 8), "conv": (3, 1, 8), "out": (1, 8, 2)}), TBD,
                  {"conv": 2, "out": 1}),
    "depthwise, two outputs each": (
        grouped_conv, tree(**{"in": (1, 6, 4), "conv": (3, 1, 8), "out": (1, 8, 2)}), TBD, {"conv": 2, "out": 1},
    ),
    "grouped": (grouped_conv, tree(**{"in": (1, 6, 8), "conv": (3, 4, 6), "out": (1, 6, 2)}), TBD,
                {"conv": 1, "out": 1}),
    "a stack by scan": (scanned, tree(up=(3, 6, 8), down=(3, 8, 6), out=(6, 2)), TD, {"down": 1}),
    "an ensemble by vmap": (ensemble, tree(up=(3, 6, 8), down=(3, 8, 2)), TD, {"down": 1}),
    "tables and tokens": (
        tokens,
        tree(table=(9, 8), positions=(5, 8), cls=(1, 1, 8), relative=(4, 8), up=(8, 7), down=(7, 3), latents=(4, 5),
             project=(5, 3)), IDS, {"up": 0, "down": 0, "project": 0},
    ),
    # The table reads the stream too, so no index of the stream can be removed.
    "a tied table": (tied, tree(table=(9, 8), up=(8, 7), down=(7, 8)), IDS, {"down": 0}),
}  # fmt: skip


def axes_by_path(found, params):
    return {path: resolved.groups for path, _, resolved in assign(found, params) if resolved is not None}


def zero_half(found, params):
    """The parameters with the first half of each leaf's groups set to zero."""
    result = dict(params)
    for path, leaf, resolved in assign(found, params):
        if resolved is not None:
            [axis] = resolved.groups
            values = np.array(leaf)
            np.moveaxis(values, axis, 0)[: leaf.shape[axis] // 2] = 0
            result[path] = array(values)
    return result


@pytest.mark.parametrize("name", CASES)
def test_groups_lie_along_the_axes_that_are_read(name):
    function, params, x, wanted = CASES[name]
    dims = trace_dims(function, params, x)
    found = groups(dims)
    assert axes_by_path(found, params) == {path: (axis,) for path, axis in wanted.items()}
    # Zero groups can be removed: some units of every leaf.
    structured = zero_half(found, params)
    counts = dims.count_units(assign(found, structured))
    plan = plan_compaction(dims, structured)
    for path, count in counts.items():
        assert 0 < count.units <= count.removable and count.zero > 0
        size, small = ((shape[wanted[path]]) for shape in (plan.leaves[path].shape, plan.leaves[path].small_shape))
        assert (size > small) == (count.ready > 0)
    assert any(count.ready for count in counts.values())
    small = compact_model(function, x, variables=structured, tolerance=0.1 if "cast" in name else None)
    assert small.plan.num_params[1] < small.plan.num_params[0]


@pytest.mark.parametrize("name", [name for name in NETS if name not in ("vgg19", "resnet50")])
def test_groups_of_a_net_are_all_removable_and_no_others_are(name):
    net, batch = make_nnx(name)
    dims, params = trace_dims(net, batch), nnx.state(net, nnx.Param)
    found = groups(dims)
    counts = dims.count_units(assign(found, params))
    for path, leaf, resolved in assign(found, params):
        assert (resolved is None) == (path not in counts)
        if resolved is not None:
            assert counts[path].removable == np.prod(resolved.radii_shape(leaf.shape))
    # In leaves without groups no entry could be removed, even if each entry were a group. Tables are an exception.
    rest = {f"^{path}$": GroupLasso(tuple(range(leaf.ndim))) for path, leaf in named_leaves(params)}
    rest |= {f"^{path}$": None for path in dims.units.tables}
    left = dims.count_units(
        assign({**found, **{key: given for key, given in rest.items() if key not in found}}, params)
    )
    assert {path for path, count in left.items() if count.removable} == set(counts)


def test_linens_parameters_have_the_collections_name_or_not():
    module = nn.Sequential([nn.Conv(4, (3,)), nn.BatchNorm(use_running_average=True), nn.relu, nn.Dense(2)])
    variables = module.init(jax.random.key(0), TBD)
    found = groups(trace_dims(module, variables, TBD))
    assert axes_by_path(found, variables["params"]) == {"layers_3/kernel": (0,)}
    assert axes_by_path(found, {"params": variables["params"]}) == {"params/layers_3/kernel": (0,)}
    ramda_jax.ramda(1e-2, found, strength=1e-3).init(variables["params"])


def test_equinox_weights_are_out_by_in():
    model = eqx.nn.MLP(3, 2, 4, 2, key=jax.random.key(0))
    params = eqx.filter(model, eqx.is_inexact_array)
    found = groups(trace_dims(model, jnp.ones(3)))
    assert axes_by_path(found, params) == {"layers/1/weight": (1,), "layers/2/weight": (1,)}


def test_any_regularizer_with_groups_is_put_on_the_axes():
    function, params, x, _ = CASES["pytorch's layout"]
    dims = trace_dims(function, params, x)
    for regularizer in (ramda_jax.GroupMCP(omega=3.0), 2.0 * GroupLasso(group_weight=1.0), ramda_jax.TopGroups(0.5)):
        found = groups(dims, regularizer)
        assert {type(part) for part in found.values()} == {type(regularizer)}
        assert axes_by_path(found, params) == {"square": (1,), "out": (1,)}
    chosen = groups(dims, {"square": None, "": GroupLasso(group_weight=1.0)})
    assert axes_by_path(chosen, params) == {"out": (1,)}
    for wrong in (ramda_jax.L1(), {"": ramda_jax.NuclearNorm()}):
        with pytest.raises(TypeError, match="must be one with groups, got"):
            groups(dims, wrong)


def test_nothing_to_remove_has_a_reason():
    def normed(params, x):
        h = x @ params["a"]
        return (h / jnp.sqrt(jnp.mean(h**2, -1, keepdims=True))) @ params["b"]

    params = tree(a=(6, 8), b=(8, 3))
    with pytest.raises(CompactionError, match=r"Some group must be removable, but .* of 8 stays: reduce_sum runs over"):
        groups(trace_dims(normed, params, TD))
    with pytest.raises(CompactionError, match="is read by what has no groups"):
        groups(trace_dims(lambda p, x: x @ p["a"] @ jnp.ones((8, 3)), tree(a=(6, 8)), TD))


def test_describe_with_a_trace_says_how_many_groups_can_ever_be_removed():
    net, batch = make_nnx("lenet5")
    dims, params = trace_dims(net, batch), nnx.state(net, nnx.Param)
    rows = [re.split(" {2,}", line) for line in describe(GroupLasso(), params, trace=dims).splitlines()]
    lines = {leaf: cells for leaf, *cells in rows}
    assert lines["leaf"][3:6] == ["groups", "removable", "units"]
    # After the flatten 4 rows belong to a channel. The first layer reads the images, so none of its groups can be
    # removed.
    assert lines["dense1/kernel"][3:6] == ["32", "32", "8"]
    assert lines["conv1/kernel"][3:6] == ["6", "0", "0"]
    assert lines["dense2/kernel"][3:6] == ["12", "12", "12"]
    assert lines["total"][-2:] == ["64", "58"]
    # With groups of outputs no group can be removed.
    lines = describe(GroupLasso("output"), params, trace=dims).splitlines()
    assert lines[-1].split()[-1] == "0"


def test_describe_and_the_report_tell_zero_rows_from_channels():
    net, batch = make_nnx("lenet5")
    kernel = net.dense1.kernel[...].reshape(4, 8, 12)
    net.dense1.kernel[...] = kernel.at[:, :3].set(0).at[0].set(0).reshape(32, 12)
    params = nnx.state(net, nnx.Param)
    text = describe(GroupLasso(), params, trace=trace_dims(net, batch))
    assert text.splitlines()[-1] == "dense1/kernel: 17 zero groups, 3 of 8 units removable"
    report = compact_model(net, batch).report(batch, regularizer=GroupLasso(), params=params, rounds=0)
    assert report.groups == (("dense1/kernel", 17, 32, 3, 8),)
    assert str(report).splitlines()[-1].split() == ["dense1/kernel", "17", "of", "32", "3", "of", "8"]
    shapes = jax.eval_shape(lambda: params)
    assert "zero groups" not in describe(GroupLasso(), shapes, trace=trace_dims(net, batch))


def test_what_another_leaf_reads_without_groups_cannot_be_removed():
    def function(params, x):
        h = jnp.tanh(x @ params["in"])
        return h @ params["a"] + h @ params["b"]

    params = tree(**{"in": (6, 8), "a": (8, 3), "b": (8, 3)})
    dims = trace_dims(function, params, TD)
    assert {
        path: count.removable for path, count in dims.count_units(assign({"^a$": GroupLasso()}, params)).items()
    } == {"a": 0}
    both = dims.count_units(assign({"^(a|b)$": GroupLasso()}, params))
    assert {path: count.removable for path, count in both.items()} == {"a": 8, "b": 8}
