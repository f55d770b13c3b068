"""Plain functions, Equinox modules, control flow, and nets drawn at random."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax.compaction import CompactionError, compact_model, trace_dims
from tests.compaction.patterns import relative_difference, zero_readers
from tests.tiny import array


def normal(rng, *shape):
    return array(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])))


def check(function, params, x, seed=0):
    """Checks that exactly the unread indices are deleted, outputs are equal, and a second time changes nothing."""
    params, alive = zero_readers(trace_dims(function, params, x), params, np.random.default_rng(seed))
    small = compact_model(function, x, variables=params, num_random=1)
    assert {width.name: width.kept for width in small.plan.widths if width.name in alive} == alive
    assert small.refused == {}
    assert small.proof.error <= 1e-12
    assert compact_model(function, x, variables=small.variables, num_random=0).plan.changes_nothing
    return small


def loop(params, x):
    def body(carry, kernel):
        return jnp.tanh(carry @ kernel), None

    return jax.lax.scan(body, x @ params["in"], params["stack"])[0] @ params["out"]


def while_loop(params, x):
    def body(carry):
        return carry[0] + 1, jnp.tanh(carry[1] @ params["square"] + params["bias"])

    return jax.lax.while_loop(lambda carry: carry[0] < 3, body, (0, x @ params["in"]))[1] @ params["out"]


def cond(params, x):
    h = x @ params["in"]
    h = jax.lax.cond(x.sum() > 0, lambda h: jnp.sin(h @ params["one"]), lambda h: h @ params["other"], h)
    return h @ params["out"]


@jax.custom_vjp
def swish(x):
    return x * jax.nn.sigmoid(x)


swish.defvjp(lambda x: (swish(x), x), lambda x, g: (g,))


def wrapped(params, x):
    layer = jax.checkpoint(lambda h, kernel: jax.nn.relu(swish(h @ kernel)))
    return jax.jit(lambda h: layer(h, params["out"]))(x @ params["in"])


def joined(params, x):
    padding = len(params["out"]) + 1 - params["in"].shape[1] - params["other"].shape[1]
    h = jnp.concatenate([x @ params["in"], jnp.pad(x @ params["other"], ((0, 0), (0, padding)))], axis=-1)
    return jnp.flip(h, -1)[:, 1:] @ params["out"]


def heads(params, x):
    h = (x @ params["in"]).reshape(len(x), *params["out"].shape[:2])
    return jnp.einsum("bhs,hso->bo", jnp.tanh(h), params["out"])


def grouped(params, x):
    h = (x @ params["in"])[:, None, None]
    groups = h.shape[-1] // params["kernel"].shape[2]
    h = jax.lax.conv_general_dilated(
        h,
        params["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return jnp.tanh(h).reshape(len(x), -1) @ params["out"]


def experts(params, x):
    h = jnp.tanh(x @ params["in"]).reshape(len(x), *params["experts"].shape[:2])
    return jnp.einsum("bes,est->bet", h, params["experts"]).reshape(len(x), -1) @ params["out"]


def embedded(params, x):
    return jnp.tanh(params["table"][(x[:, 0] > 0).astype(jnp.int32)]) @ params["out"]


def sliced_at_an_input(params, x):
    h = jnp.tanh(x @ params["in"]) @ params["middle"]
    start = (x.sum() > 0).astype(jnp.int32)
    return jax.lax.dynamic_slice_in_dim(h, start, len(params["out"]), axis=1) @ params["out"]


def ragged(params, x):
    """A mixture of experts in which the input determines the number of rows for each expert."""
    sizes = jnp.stack([(x[:, 0] > 0).sum(), (x[:, 0] <= 0).sum()]).astype(jnp.int32)
    h = jax.lax.ragged_dot(jnp.tanh(x @ params["in"]), params["experts"], sizes)
    return jnp.tanh(h) @ params["out"]


def messages(params, x):
    """A graph network: messages along the edges, with their sum and their maximum at each receiver."""
    h = jax.nn.relu(x @ params["in"])
    senders, receivers = jnp.array([0, 1, 2, 0, 1]), jnp.array([1, 2, 0, 2, 2])
    along = jax.nn.relu(h[senders] @ params["message"])
    largest = jnp.maximum(jax.ops.segment_max(along, receivers, 3), 0)
    return (jax.ops.segment_sum(along, receivers, 3) + largest) @ params["up"] + h @ params["self"]


def tiled(params, x):
    """Attention in which four query heads share two heads of keys and values, with `tile` as in some decoders."""
    q, k, v = (jnp.einsum("tc,cnh->tnh", x, params[name]) for name in "qkv")
    times = q.shape[1] // k.shape[1]
    k, v = (jnp.tile(array[:, :, None], (1, 1, times, 1)).reshape(len(x), -1, array.shape[-1]) for array in (k, v))
    weights = jax.nn.softmax(jnp.einsum("tnh,snh->nts", q, k))
    return jnp.einsum("tnh,nho->to", jnp.einsum("nts,snh->tnh", weights, v), params["out"])


def shortcut(params, x):
    """A shortcut as in the first ResNets: channels of zeros make the stream wider."""
    h = jnp.tanh(x @ params["in"])
    wide = jnp.tanh(h @ params["up"])
    return jnp.tanh(wide + jnp.pad(h, ((0, 0), (0, wide.shape[1] - h.shape[1])))) @ params["out"]


def cached(params, x):
    """Attention with keys and values in a longer cache, which are written at a position that depends on data."""
    place = (x.sum() > 0).astype(jnp.int32)
    k, v = (jnp.zeros((5, *params[name].shape[1:]), x.dtype) for name in "kv")
    k = jax.lax.dynamic_update_slice(k, jnp.einsum("tc,cnh->tnh", x, params["k"]), (place, 0 * place, 0 * place))
    v = v.at[:3].set(jnp.einsum("tc,cnh->tnh", x, params["v"]))
    weights = jax.nn.softmax(jnp.einsum("tnh,snh->nts", jnp.einsum("tc,cnh->tnh", x, params["q"]), k))
    return jnp.einsum("tnh,nho->to", jnp.einsum("nts,snh->tnh", weights, v), params["out"])


def normalised(params, x):
    """Weight norm, and a classifier with rows of norm 1: both take norms over the widths of parameters."""
    kernel = params["v"] * params["g"] * jax.lax.rsqrt((params["v"] ** 2).sum(0))
    h = jnp.tanh(jnp.tanh(x @ params["in"]) @ kernel)
    classes = params["out"].T / jnp.linalg.norm(params["out"].T, axis=1, keepdims=True)
    return h @ classes.T + jnp.abs(params["out"]).sum()


FUNCTIONS = {
    "norms of kernels": (normalised, {"in": (4, 6), "v": (6, 5), "g": (5,), "out": (5, 2)}),
    "scan over layers": (loop, {"in": (4, 6), "stack": (3, 6, 6), "out": (6, 2)}),
    "while": (while_loop, {"in": (4, 6), "square": (6, 6), "bias": (6,), "out": (6, 2)}),
    "cond": (cond, {"in": (4, 6), "one": (6, 5), "other": (6, 5), "out": (5, 2)}),
    "jit, remat, custom derivatives": (wrapped, {"in": (4, 6), "out": (6, 2)}),
    "concatenate, pad, flip, slice": (joined, {"in": (4, 5), "other": (4, 3), "out": (10, 2)}),
    "grouped convolution": (grouped, {"in": (4, 6), "kernel": (1, 1, 3, 4), "out": (4, 2)}),
    "split heads": (heads, {"in": (4, 6), "out": (2, 3, 2)}),
    "product in a batch": (experts, {"in": (4, 6), "experts": (2, 3, 5), "out": (10, 2)}),
    "indexed by data": (embedded, {"table": (5, 6), "out": (6, 2)}),
    "ragged product": (ragged, {"in": (4, 6), "experts": (2, 6, 5), "out": (5, 2)}),
    "messages on a graph": (messages, {"in": (4, 6), "message": (6, 5), "up": (5, 2), "self": (6, 2)}),
    "tiled heads": (tiled, {"q": (4, 4, 3), "k": (4, 2, 3), "v": (4, 2, 3), "out": (4, 3, 2)}),
    "zero-padded shortcut": (shortcut, {"in": (4, 5), "up": (5, 8), "out": (8, 2)}),
    "cache": (cached, {"q": (4, 4, 3), "k": (4, 4, 3), "v": (4, 4, 3), "out": (4, 3, 2)}),
    "sliced at an input": (sliced_at_an_input, {"in": (4, 6), "middle": (6, 5), "out": (3, 2)}),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compact_function_computes_the_same(name):
    function, shapes = FUNCTIONS[name]
    with jax.enable_x64():
        rng = np.random.default_rng(2)
        params = {key: normal(rng, *shape) for key, shape in shapes.items()}
        x = array(rng.normal(size=(3, 4)))
        shrunk = set()
        for seed in (1, 2):
            small = check(function, params, x, seed)
            assert small.dims.opaque == {}
            assert small.plan.num_params[1] < small.plan.num_params[0]
            shrunk |= {width.name for width in small.plan.widths if len(width.kept) < width.size}
        # Every free width with a reader loses an index with one of the two seeds.
        assert shrunk == {width.name for width in small.dims.widths if not width.reason and width.readers}


def test_what_one_step_of_a_scan_reads_stays():
    rng = np.random.default_rng(0)
    params = {name: normal(rng, *shape) for name, shape in {"in": (4, 6), "stack": (3, 6, 6), "out": (6, 2)}.items()}
    # Only the second step reads unit 0, and nothing reads unit 1.
    params["stack"] = params["stack"].at[:, :2].set(0).at[1, 0].set(1)
    params["out"] = params["out"].at[:2].set(0)
    small = compact_model(loop, jnp.ones((3, 4)), variables=params)
    assert small.plan.leaves["in"].kept == (None, (0, 2, 3, 4, 5))


def drawn_net(rng, kinds, widths):
    """(function, params) of a net for images with layers of these kinds."""
    params, channels, side = [], 2, 6
    layers = []
    for kind, width in zip(kinds, widths, strict=True):
        before = channels
        if kind == "conv":
            params.append({"kernel": normal(rng, 3, 3, channels, width), "bias": normal(rng, width) * 3})
            channels = width
        elif kind == "residual":
            params.append({"a": normal(rng, 1, 1, channels, width), "b": normal(rng, 3, 3, width, channels)})
        elif kind == "dense":
            params.append({"kernel": normal(rng, 3, 3, channels, width)})
            channels += width
        elif kind == "depthwise":
            params.append({"kernel": normal(rng, 3, 3, 1, 2 * channels)})
            channels *= 2
        elif kind == "pool" and side >= 4:
            params.append({})
            side //= 2
        else:
            params.append({"mean": normal(rng, channels), "var": jnp.abs(normal(rng, channels)) + 0.5})
            kind = "norm"
        layers.append((kind, before))
    params.append({"out": normal(rng, side * side * channels, 3)})

    def conv(x, kernel, groups=1):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    def apply(params, x):
        for (kind, _), layer in zip(layers, params, strict=False):
            if kind == "conv":
                x = jnp.tanh(conv(x, layer["kernel"]) + layer["bias"])
            elif kind == "residual":
                x = x + conv(jax.nn.gelu(conv(x, layer["a"])), layer["b"])
            elif kind == "dense":
                x = jnp.concatenate([x, conv(jax.nn.relu(x), layer["kernel"])], -1)
            elif kind == "depthwise":
                x = conv(x, layer["kernel"], x.shape[-1])
            elif kind == "pool":
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            else:
                x = (x - layer["mean"]) / jnp.sqrt(layer["var"])
        return x.reshape(len(x), -1) @ params[-1]["out"]

    return apply, params


KINDS = ("conv", "residual", "dense", "depthwise", "pool", "norm")


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=4),
    widths=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    seed=st.integers(0, 2**16),
)
def test_compact_model_computes_the_same_for_any_net_and_any_zeros(kinds, widths, seed):
    with jax.enable_x64():
        rng = np.random.default_rng(seed)
        apply, params = drawn_net(rng, ["conv", *kinds], [4, *widths[: len(kinds)]])
        check(apply, params, array(rng.normal(size=(2, 6, 6, 2))), seed)


def test_equinox_module_becomes_a_small_equinox_module():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        layers: list
        dropout: object

        def __init__(self, key):
            keys = jax.random.split(key, 3)
            sizes = ((5, 8), (8, 6), (6, 3))
            self.layers = [eqx.nn.Linear(m, n, key=k) for (m, n), k in zip(sizes, keys, strict=True)]
            self.dropout = eqx.nn.Dropout(0.5)

        def __call__(self, x):
            for layer in self.layers[:-1]:
                x = self.dropout(jax.nn.relu(layer(x)))
            return self.layers[-1](x)

    net, batch = Net(jax.random.key(0)), jax.random.normal(jax.random.key(1), (4, 5))
    # Equinox's kernels are (out, in).
    kernels = [net.layers[1].weight.at[:, :5].set(0), net.layers[2].weight.at[:, :2].set(0)]
    net = eqx.tree_at(lambda net: [layer.weight for layer in net.layers[1:]], net, kernels)
    small = compact_model(net, batch, call=lambda model, batch: jax.vmap(model)(batch))
    assert [layer.weight.shape for layer in small.model.layers] == [(3, 5), (4, 3), (3, 4)]
    whole, little = (jax.vmap(eqx.nn.inference_mode(module))(batch) for module in (net, small.model))
    assert relative_difference(whole, little) <= 1e-5


def test_compact_model_wants_the_variables_of_a_function_and_a_model_it_knows():
    with pytest.raises(CompactionError, match="a function needs `variables=`"):
        compact_model(lambda variables, x: x, jnp.ones(3))
    with pytest.raises(CompactionError, match="must be an nnx, linen or Equinox module or a function"):
        compact_model(3, jnp.ones(3), variables={})


def test_overrides_freeze_and_join_axes():
    params = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 4)).at[2:].set(0), "c": jnp.ones((4, 2)).at[1:].set(0)}

    def function(params, x):
        return jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"]) @ params["c"]

    def shapes(overrides):
        small = compact_model(function, jnp.ones((2, 3)), variables=params, overrides=overrides)
        return [small.variables[name].shape for name in "abc"]

    assert shapes(None) == [(3, 2), (2, 1), (1, 2)]
    assert shapes({"b": (None, "frozen")}) == [(3, 2), (2, 4), (4, 2)]
    assert shapes({"a": (None, "shared"), "b": ("shared", "shared")}) == [(3, 2), (2, 2), (2, 2)]
    for wrong, message in (
        ({"d": ("frozen",)}, "must name leaves, got 'd'"),
        ({"a": ("frozen",)}, "for each of the 2 axes of 'a'"),
        ({"a": ("x", "x")}, "axes of one length"),
    ):
        with pytest.raises(CompactionError, match=message):
            shapes(wrong)


@pytest.mark.parametrize(("round_to", "width"), [(1, 100), (8, 104), (16, 112), (128, 128), (512, 300)])
def test_round_to_keeps_a_multiple_or_all(round_to, width):
    rng = np.random.default_rng(0)
    params = {"a": normal(rng, 4, 300), "b": normal(rng, 300, 2).at[rng.permutation(300)[:200]].set(0)}
    x = array(rng.normal(size=(3, 4)))
    small = compact_model(lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], x, variables=params, round_to=round_to)
    assert small.variables["a"].shape == (4, width)
    [inner] = [width for width in small.plan.widths if not width.reason]
    assert len(inner.padding) == width - 100
