"""Units that are zero for every input, because their parameters are: they can be removed if they are multiplied."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from ramda_jax import compaction
from ramda_jax.compaction import compact_model, couple_model, plan_compaction, trace_dims
from ramda_jax.compaction.tracing.known.zeros import Zeros, zero_masks
from tests import tiny

X = jax.random.normal(jax.random.key(0), (2, 3, 6))


def rope(q):
    half = q.shape[-1] // 2
    angles = jnp.arange(3.0)[:, None, None] * jnp.ones(half)
    turned = jnp.concatenate([-q[..., half:], q[..., :half]], -1)
    return q * jnp.cos(jnp.concatenate([angles] * 2, -1)) + turned * jnp.sin(jnp.concatenate([angles] * 2, -1))


#: Functions between a dense layer and the output. Their known zeros are compared with the zeros of a run.
PASSED = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "exact gelu": lambda h: jax.nn.gelu(h, approximate=False),
    "silu": jax.nn.silu,
    "leaky": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "tanh, squared, halved": lambda h: jnp.tanh(h) ** 2 / 2,
    "heads": lambda h: h.reshape(2, 3, 4, 2).transpose(0, 2, 1, 3).sum(3),
    "heads and back": lambda h: jnp.tanh(h.reshape(2, 3, 4, 2)).reshape(2, 3, 8),
    "reshape of three to two": lambda h: h.reshape(2, 3, 4, 2)[:, :, :, None].reshape(2, 12, 2),
    "concatenated": lambda h: jnp.concatenate([h, h[..., ::-1]], -1),
    "concatenated with ones": lambda h: jnp.concatenate([h, jnp.ones((2, 3, 2))], -1),
    "cut": lambda h: h[..., 1::2] * 3,
    "added to itself": lambda h: h + 2 * h,
    "added to a shift": lambda h: h + jnp.roll(h, 1, -1),
    "plus one": lambda h: h + 1,
    "gated": lambda h: h[..., :4] * jax.nn.sigmoid(h[..., 4:]),
    "sigmoid": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,
    "outer": lambda h: h[..., :, None] * h[..., None, :],
    "summed over the batch": lambda h: h.sum(0),
    "normed": lambda h: h / (1 + jnp.abs(h).mean(-1, keepdims=True)),
    "centred": lambda h: h - h.mean(-1, keepdims=True),
    "in half precision": lambda h: h.astype(jnp.bfloat16).astype(jnp.float32),
    "in a cache": lambda h: jax.lax.dynamic_update_slice(jnp.zeros((2, 5, 8)), h, (0, 1, 0)),
    "checkpointed": jax.checkpoint(jnp.tanh),
    "carried by a loop": lambda h: jax.lax.fori_loop(0, 2, lambda _, h: jnp.cos(h), h),
    "scanned over": lambda h: jax.lax.scan(lambda c, x: (c + x, c), h[0], h)[1],
}
#: The same with loops and conditions, through which zeros can be followed further than constants.
LOOPS = {
    "carried and kept": lambda h: jax.lax.fori_loop(0, 2, lambda i, h: jnp.tanh(h) * (1 + i), h),
    "until it is small": lambda h: jax.lax.while_loop(lambda h: jnp.abs(h).max() > 1, lambda h: h / 2, h),
    "swapped by a loop": lambda h: jax.lax.fori_loop(0, 3, lambda _, c: (c[1], c[0]), (h, jnp.ones_like(h)))[0],
    "swapped with zeros": lambda h: jax.lax.fori_loop(0, 3, lambda _, c: (c[1], c[0]), (h, jnp.zeros_like(h)))[0],
    "shifted by each step": lambda h: jax.lax.fori_loop(0, 2, lambda _, h: h + jnp.roll(h, 1, -1), h),
    "a loop in a loop": lambda h: jax.lax.scan(
        lambda c, x: (jax.lax.fori_loop(0, 2, lambda _, c: c * x + jnp.sin(c), c), c.sum(0)), h[0], h
    )[0],
    "on one of two ways": lambda h: jax.lax.cond(h.sum() > 0, jnp.tanh, lambda h: h * 2, h),
    "on one of two ways only": lambda h: jax.lax.cond(h.sum() > 0, jnp.tanh, jnp.cos, h),
    "counted": lambda h: jax.lax.scan(lambda c, x: (c + 1, (c * 0.0, x.sum())), 0, h)[1][0],
}
#: Functions after which no entry is known to be zero.
LOST = {"plus one", "sigmoid", "softmax", "centred", "carried by a loop", "swapped by a loop"}
LOST |= {"shifted by each step", "on one of two ways only"}


@pytest.mark.parametrize("name", PASSED | LOOPS)
def test_what_is_said_to_be_zero_is_zero(name):
    params = tiny.normal_tree({"w": (6, 8), "b": (8,)})
    dead = jnp.array([0, 1, 4, 5])
    params = {"w": params["w"].at[:, dead].set(0), "b": params["b"].at[dead].set(0)}

    def function(params, x):
        return (PASSED | LOOPS)[name](x @ params["w"] + params["b"])

    dims = trace_dims(function, params, X)
    found = Zeros(dims, {path: zero_masks(leaf) for path, leaf in params.items()}).of(dims.outputs[0])
    values = np.asarray(function(params, X))
    assert [len(mask) for mask in found] == list(values.shape)
    for axis, mask in enumerate(found):
        assert not np.take(values, np.flatnonzero(mask), axis).any()
    assert any(mask.any() for mask in found) == (name not in LOST)


def attention(scale=0.3, between=lambda q: q):
    def apply(params, x):
        q, k, v = (jnp.einsum("btd,dnh->btnh", x, params[name]) + params[f"b{name}"] for name in ("q", "k", "v"))
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        weights = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", between(q), between(k)) * factor)
        return jnp.einsum("btnh,nhd->btd", jnp.einsum("bnts,bsnh->btnh", weights, v), params["o"])

    return apply


def attention_params():
    shapes = {"q": (6, 4, 6), "k": (6, 4, 6), "v": (6, 4, 5), "bq": (4, 6), "bk": (4, 6), "bv": (4, 5), "o": (4, 5, 6)}
    return tiny.normal_tree(shapes)


def rows(coupling):
    return [sorted(map(str, parts)) for parts in coupling.parts.values()]


def test_queries_with_keys_and_values_have_groups_of_their_own():
    heads, values = ["o[0]"], ["bv[1]", "v[2]"]
    both = ["bk[1]", "bq[1]", "k[2]", "q[2]"]
    params = attention_params()
    for function, wanted in (
        (attention(), [heads, both, values]),
        (attention(between=rope), [heads, [f"{axis} x2" for axis in both], values]),
        # Queries and keys are not coupled if a scale is read from the shape, or with statistics over the width.
        (attention(scale=None), [heads, values]),
        (attention(between=lambda q: q / jnp.abs(q).mean(-1, keepdims=True)), [heads, values]),
        (attention(between=lambda q: q + 1), [heads, values]),
    ):
        coupling = couple_model(function, X, variables=params)
        assert sorted(rows(coupling)) == sorted(wanted)
        whole = jax.tree.map(jnp.zeros_like, params)
        assert all(map(jnp.array_equal, coupling.unpack(coupling.pack(params), whole).values(), params.values()))
    # Without a model it is unknown whether the code uses their number.
    assert rows(compaction.couple(trace_dims(attention(), params, X), params)) == [heads]


def test_what_is_zeroed_of_queries_keys_and_values_is_removed():
    function, params = attention(), attention_params()
    coupling = couple_model(function, X, variables=params, weight="saving")
    optimizer = coupling.wrap(ramda_jax.ramda(0.05, coupling.regularizer(), strength=7e-3, averaging=1.0))
    gradient = jax.grad(lambda params: jnp.mean((function(params, X) - jnp.sin(3 * X)) ** 2))
    params, _ = tiny.train(optimizer, gradient, params, 300)
    support = ramda_jax.metrics.support(coupling.regularizer(), params)
    alive = {name: int(np.asarray(support[f"coupled/{name}"]).sum()) for name in coupling.parts}
    sizes = {name: len(parts[0].rows) for name, parts in coupling.parts.items()}
    assert all(0 < alive[name] <= sizes[name] for name in alive) and alive != sizes
    small = compact_model(function, X, variables=params)
    kept = {width.name: len(width.kept) for width in small.plan.widths if width.name in alive}
    assert kept == alive and small.refused == {}


def test_an_entry_of_a_hidden_state_that_is_always_zero_goes_though_it_is_read():
    def net(params, x, start):
        def step(hidden, one):
            gate = jax.nn.sigmoid(one @ params["gate"])
            hidden = gate * hidden + (1 - gate) * jnp.tanh(one @ params["in"] + hidden @ params["hidden"] + params["b"])
            return hidden, hidden

        return jax.lax.scan(step, jnp.full((2, params["b"].shape[0]), start), x.swapaxes(0, 1))[1] @ params["out"]

    params = tiny.normal_tree({"gate": (6, 8), "in": (6, 8), "hidden": (8, 8), "b": (8,), "out": (8, 3)})
    params |= {"in": params["in"].at[:, 5:].set(0), "b": params["b"].at[5:].set(0)}
    params |= {"hidden": params["hidden"].at[:, 5:].set(0)}
    small = compact_model(lambda params, x: net(params, x, 0.0), X, variables=params)
    assert small.variables["hidden"].shape == (5, 5) and small.variables["gate"].shape == (6, 5)
    # From another start the units decay and are not zero.
    assert compact_model(lambda params, x: net(params, x, 1.0), X, variables=params).plan.changes_nothing


def test_a_product_that_sums_over_nothing_reads_nothing():
    def net(params, x):
        h = jnp.tanh(x @ params["in"])
        return jnp.einsum("btc,bsc->btsc", h, h) @ params["out"] + jnp.einsum("d,btc->btcd", params["by"], h).sum()

    params = tiny.normal_tree({"in": (6, 8), "out": (8, 3), "by": (2,)})
    dims = trace_dims(net, params, X)
    assert [str(member) for width in dims.widths if not width.reason for member in width.readers] == []
    plan = plan_compaction(dims, params | {"out": params["out"].at[5:].set(0)})
    assert plan.leaves["in"].small_shape == (6, 8)  # the sum at the end reads all units


def test_one_factor_that_is_zero_is_enough_and_one_entry_keeps_it():
    function, params = attention(), attention_params()
    params |= {"k": params["k"].at[..., :2].set(0), "bk": params["bk"].at[:, :2].set(0)}
    dims = trace_dims(function, params, X)
    small = compact_model(function, X, variables=params)
    assert small.variables["q"].shape == small.variables["k"].shape == (6, 4, 4)
    for path, index in (("k", (0, 0, 1)), ("bk", (3, 1))):
        alive = params | {path: params[path].at[index].set(1e-30)}
        plan = plan_compaction(dims, alive)
        assert plan.leaves["k"].small_shape == (6, 4, 5)
    plan = plan_compaction(dims, params | {"bk": params["bk"].at[3, 1].set(1e-30)}, threshold=1e-20)
    assert plan.leaves["k"].small_shape == (6, 4, 4)


def test_a_unit_that_is_always_zero_goes_though_it_is_read():
    def net(params, x, activation):
        return activation(x @ params["in"] + params["b"]) @ params["out"]

    params = tiny.normal_tree({"in": (6, 8), "b": (8,), "out": (8, 3)})
    params |= {"in": params["in"].at[:, 5:].set(0), "b": params["b"].at[5:].set(0)}
    for activation, kept in ((jax.nn.gelu, 5), (jax.nn.sigmoid, 8)):
        small = compact_model(lambda params, x: net(params, x, activation), X[0], variables=params)  # noqa: B023
        assert small.variables["in"].shape == (6, kept)
    # With a bias the units are constants, and stay.
    biased = params | {"b": params["b"].at[5:].set(0.5)}
    assert compact_model(lambda params, x: net(params, x, jax.nn.gelu), X[0], variables=biased).plan.changes_nothing


def test_linens_attention_has_groups_for_its_values():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8, out_features=6)(x, x))

    module = Net()
    variables = module.init(jax.random.key(0), X)
    coupling = couple_model(module, X, variables=variables)
    found = [[part.path.split("/")[-2] for part in parts] for parts in coupling.parts.values()]
    assert ["value", "value"] in found and ["out"] in found
    assert ["key", "key", "query", "query"] not in found  # its scale is read from the shape
    params = variables["params"]
    name = next(name for name, parts in coupling.parts.items() if "value" in parts[0].path)
    packed = coupling.pack(params)
    packed["coupled"][name] = packed["coupled"][name].at[:2].set(0)
    structured = coupling.unpack(packed, params)
    small = compact_model(module, X, variables={"params": structured})
    shapes = {path: leaf.small_shape for path, leaf in small.plan.leaves.items() if "value/kernel" in path}
    assert list(shapes.values()) == [(6, 2, 2)]
