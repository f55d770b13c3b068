"""Units that are the same for every input are folded into biases, and can then be removed."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ramda_jax.compaction import CompactionError, compact_model, fold_constants, trace_dims
from ramda_jax.compaction.tracing.known.constants import Constants
from ramda_jax.compaction.tracing.known.zeros import Zeros, zero_masks
from tests import tiny
from tests.compaction.nets_stacked import Feedforward, Scanned
from tests.compaction.test_zeros import PASSED, X

BATCH, MORE = jax.random.normal(jax.random.key(1), (4, 5)), jax.random.normal(jax.random.key(2), (7, 5))

EYE = jnp.eye(8)
#: The operations for zeros, and further operations that keep a constant known.
THROUGH = PASSED | {
    "maximum": lambda h: h.max(1),
    "pooled": lambda h: nnx.max_pool(h, (2,), (1,), padding="SAME"),
    "cosine": jnp.cos,
    "clipped": lambda h: jnp.clip(h, -1, 1),
    "multiplied by ones": lambda h: h @ EYE,
    "multiplied from the left": lambda h: jnp.einsum("dc,btc->dbt", EYE, h),
    "chosen by the input": lambda h: jnp.where(h.sum(-1, keepdims=True) > 0, h, 0),
    "positions": lambda h: h + jnp.arange(3.0)[:, None],
    "convolved": lambda h: jax.lax.conv_general_dilated(
        h, EYE[None], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    ),
}
#: Operations after which no entry is known to be constant.
LOST = {
    "outer",
    "softmax",
    "centred",
    "normed",
    "chosen by the input",
    "carried by a loop",
    "scanned over",
    "in a cache",
}


@pytest.mark.parametrize("name", THROUGH)
def test_what_is_said_to_be_constant_is_constant(name):
    params = tiny.normal_tree({"w": (6, 8), "b": (8,)})
    dead = jnp.array([0, 1, 4, 5])
    params = {"w": params["w"].at[:, dead].set(0), "b": params["b"]}

    def function(params, x):
        return THROUGH[name](x @ params["w"] + params["b"])

    dims = trace_dims(function, params, X)
    zeros = Zeros(dims, {path: zero_masks(leaf) for path, leaf in params.items()})
    found = Constants(dims, zeros, params).of(dims.outputs[0])
    values, others = np.asarray(function(params, X)), np.asarray(function(params, 3 - X))
    assert [len(mask) for mask in found] == list(values.shape)
    for axis, mask in enumerate(found):
        own, other = (np.take(array, np.flatnonzero(mask), axis) for array in (values, others))
        np.testing.assert_allclose(own, other, rtol=1e-6)
    assert any(mask.any() for mask in found) == (name not in LOST)


class Nnx(nnx.Module):
    """Three dense layers, in which units 3 to 5 and units 1 to 2 are constants."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(m, n, rngs=rngs) for m, n in ((5, 8), (8, 6), (6, 3))])
        for layer, dead in zip(self.layers, ([3, 4, 5], [1, 2]), strict=False):
            layer.kernel[...] = layer.kernel[...].at[:, jnp.array(dead)].set(0)
            layer.bias[...] = jnp.arange(1.0, len(layer.bias[...]) + 1)

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = nnx.sigmoid(layer(x))
        return self.layers[-1](x)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.sigmoid(nn.Dense(8, name="a")(x))
        return nn.Dense(3, name="c")(nn.DenseGeneral((3, 2), name="b")(x).reshape(len(x), -1))


class Equinox(eqx.Module):
    layers: list[eqx.nn.Linear]

    def __init__(self, key):
        self.layers = [eqx.nn.Linear(m, n, key=key) for m, n in ((5, 8), (8, 6), (6, 3))]
        for layer, dead in zip(self.layers, ([3, 4, 5], [1, 2]), strict=False):
            object.__setattr__(layer, "weight", layer.weight.at[jnp.array(dead)].set(0))

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = jnp.cos(layer(x))
        return self.layers[-1](x)


def function(params, x):
    x = jax.nn.sigmoid(x @ params["in"] + params["b"])
    gates = x @ params["gates"] + x[:, ::-1] @ params["others"] + params["c"]
    return jax.nn.softplus(gates) @ params["out"] + params["d"]


def linen_variables():
    params = tiny.normal_tree({"a": {"kernel": (5, 8), "bias": (8,)}, "b": {"kernel": (8, 3, 2), "bias": (3, 2)}})
    params |= tiny.normal_tree({"c": {"kernel": (6, 3), "bias": (3,)}})
    params["a"]["kernel"] = params["a"]["kernel"].at[:, 3:6].set(0)
    params["b"]["kernel"] = params["b"]["kernel"].at[:, 1].set(0)
    return {"params": params}


def params_of_function():
    shapes = {"in": (5, 8), "b": (8,), "gates": (8, 6), "others": (8, 6), "c": (6,), "out": (6, 3), "d": (3,)}
    params = tiny.normal_tree(shapes)
    # Row 3 of one kernel and row 4 of the other read unit 3.
    return params | {
        "in": params["in"].at[:, 3:5].set(0),
        "gates": params["gates"].at[:, 1:3].set(0),
        "others": params["others"].at[:, 1:3].set(0),
    }


MODELS = {
    "nnx": (lambda: (Nnx(nnx.Rngs(0)), {}), {"layers/0/kernel[1]": (3, 4, 5), "layers/1/kernel[1]": (1, 2)}, (5, 4)),
    "linen": (
        lambda: (Linen(), {"variables": linen_variables()}),
        {"params/a/kernel[1]": (3, 4, 5), "params/b/kernel[1]": (1,)},
        (5, 2),
    ),
    "equinox": (
        lambda: (Equinox(jax.random.key(0)), {"call": lambda model, x: jax.vmap(model)(x)}),
        {"layers/0/weight[0]": (3, 4, 5), "layers/1/weight[0]": (1, 2)},
        (5, 4),
    ),
    "function": (
        lambda: (function, {"variables": params_of_function()}),
        {"in[1]": (3, 4), "gates[1]": (1, 2)},
        (6, 4),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_constants_become_parts_of_biases_and_are_removed(name):
    make, wanted, left = MODELS[name]
    model, given = make()
    folded = fold_constants(model, BATCH, **given)
    assert folded.folded == wanted and folded.refused == {} and folded.proof.error < 1e-6
    if "variables" in given:
        given["variables"] = folded.variables
    before = compact_model(make()[0], BATCH, **make()[1])
    small = compact_model(folded.model if name in ("nnx", "equinox") else model, BATCH, **given)
    assert before.plan.changes_nothing
    sizes = dict(zip(wanted, left, strict=True))
    assert {axis: size for axis, size in small.widths().items() if axis in sizes} == sizes
    apply, variables = before.whole
    np.testing.assert_allclose(apply(variables, MORE), small.apply(small.variables, MORE), rtol=1e-5, atol=1e-5)
    # After folding nothing is left to fold.
    assert fold_constants(folded.model if name in ("nnx", "equinox") else model, BATCH, **given).folded == {}


class Convolving(nnx.Module):
    def __init__(self, padding, kernel=(3, 3), strides=1, use_bias=False):
        rngs = nnx.Rngs(0)
        self.first, self.norm = nnx.Conv(3, 8, (3, 3), rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.second = nnx.Conv(8, 6, kernel, strides, padding=padding, use_bias=use_bias, rngs=rngs)
        self.last = nnx.BatchNorm(6, rngs=rngs)
        self.first.kernel[...] = self.first.kernel[...].at[..., 3:6].set(0)
        self.norm.bias[...] = jnp.linspace(0.1, 0.8, 8)

    def __call__(self, x):
        return nnx.relu(self.last(self.second(nnx.relu(self.norm(self.first(x))))))


IMAGES = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))


def test_a_channel_folds_into_the_bias_or_the_mean_behind_it_unless_zeros_are_padded():
    for padding, kernel, use_bias in (("VALID", (3, 3), False), ("SAME", (1, 1), True)):
        model = Convolving(padding, kernel, use_bias=use_bias)
        folded = fold_constants(model, IMAGES)
        assert folded.folded == {"first/kernel[3]": (3, 4, 5)}
        mean = np.asarray(folded.model.last.mean[...])
        assert mean.any() != use_bias
        assert compact_model(folded.model, IMAGES).widths()["first/kernel[3]"] == 5
        # In training batch norm uses the batch's mean instead of the running mean, and the two models are equal too.
        for net in (model.second, folded.model.second):
            net.train()
        hidden = (
            jax.random.normal(jax.random.key(3), (2, 6, 6, 8)).at[..., 3:6].set(nnx.relu(model.norm.bias[...])[3:6])
        )
        for net in (model, folded.model):
            net.last.train()
        whole, own = (net.last(net.second(hidden)) for net in (model, folded.model))
        np.testing.assert_allclose(whole, own, atol=2e-5)
        np.testing.assert_allclose(model.last.mean[...] + mean, folded.model.last.mean[...], atol=1e-5)
    folded = fold_constants(Convolving("SAME"), IMAGES)
    assert folded.folded == {}
    [(axis, reason)] = folded.refused.items()
    assert axis == "first/kernel[3]" and "not the same everywhere, as where a convolution pads" in reason


def between(body, **shapes):
    """(function, params) of a net whose units 3 and 4 are constants, and in which `body` reads the units."""
    params = tiny.normal_tree({"in": (5, 8), "b": (8,), "out": (8, 3), "c": (3,), **shapes})
    params["in"] = params["in"].at[:, 3:5].set(0)
    return lambda params, x: body(params, jax.nn.sigmoid(x @ params["in"] + params["b"])), params


STAYS = {
    "no bias": (lambda p, h: h @ p["out"], "no bias is added to the sum before it is read"),
    "read before": (lambda p, h: jnp.tanh(h @ p["out"]) + p["c"], "tanh comes before a bias"),
    "squared": (lambda p, h: jax.lax.square(h @ p["out"]) + p["c"], "square comes before a bias"),
    "read twice": (lambda p, h: [h @ p["out"] + p["c"], h @ p["more"]], "no bias is added to the sum"),
    "bias used twice": (lambda p, h: (h @ p["out"] + p["c"]) * p["c"], "'c' is added to the sum, and used elsewhere"),
    "tied kernel": (lambda p, h: (h @ p["out"] + p["c"]) @ p["out"].T[:, :4], "its kernel 'out' is used elsewhere too"),
    "computed kernel": (lambda p, h: h @ jnp.tanh(p["out"]) + p["c"], "its kernel is computed from parameters"),
    "multiplied by an input": (
        lambda p, h: (h @ p["out"]) * (h @ p["third"] + p["e"]) + p["c"],
        "mul, which does not scale the sum by parameters, comes before a bias",
    ),
    "other positions": (
        lambda p, h: (h + p["places"]) @ p["out"] + p["c"],
        "what the units add is not the same everywhere",
    ),
    "in a loop": (
        lambda p, h: jax.lax.fori_loop(0, 2, lambda i, y: jnp.sin(y + h @ p["out"] + p["c"]), jnp.zeros((4, 3))),
        "reads it, which is not a product outside of loops",
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_constants_stay_where_no_bias_can_take_them(name):
    body, reason = STAYS[name]
    net, params = between(body, more=(8, 2), places=(4, 8), third=(8, 3), e=(3,))
    folded = fold_constants(net, BATCH, variables=params)
    assert folded.folded == {}
    for path, leaf in params.items():
        np.testing.assert_array_equal(folded.variables[path], leaf)
    assert list(folded.refused) == ["in[1]"] and reason in folded.refused["in[1]"]


def test_a_sum_may_be_scaled_and_added_to_before_its_bias():
    def body(p, h):
        return jnp.sin((p["c"] - (h @ p["out"] * 2 / p["scale"] + jnp.cos(h[:, :3] @ p["more"])).T.T)[None]) @ p["last"]

    net, params = between(body, scale=(3,), more=(3, 3), last=(3, 2))
    params["in"] = params["in"].at[:, 1].set(0)  # unit 1 is a constant that both read
    folded = fold_constants(net, BATCH, variables=params)
    # Unit 1 is not folded, because a cosine reads it without a bias.
    assert folded.folded == {"in[1]": (3, 4)} and "cos comes before a bias" in folded.refused["in[1]"]
    np.testing.assert_array_equal(folded.variables["out"][jnp.array([3, 4])], 0)
    np.testing.assert_allclose(net(params, MORE), net(folded.variables, MORE), rtol=1e-5, atol=1e-5)


def test_stacked_layers_stay_and_say_so():
    model = Scanned(Feedforward, 3, rngs=nnx.Rngs(0))
    up = model.layers.up
    up.kernel[...], up.bias[...] = up.kernel[...].at[..., 2:4].set(0), up.bias[...] + 1
    folded = fold_constants(model, X[..., :3])
    assert folded.folded == {}
    assert "outside of loops" in folded.refused["layers/up/kernel[2]"]


def test_a_model_that_differs_by_more_than_the_tolerance_is_refused():
    model, given = MODELS["nnx"][0]()
    with pytest.raises(CompactionError, match=r"must compute the same as .*: outputs differ by .*; use"):
        fold_constants(model, BATCH, tolerance=0.0, **given)


def test_variables_without_values_are_refused():
    model = nnx.eval_shape(lambda: Nnx(nnx.Rngs(0)))
    with pytest.raises(CompactionError, match=r"must have values, by which units are constants, but 'layers/0/bias'"):
        fold_constants(model, BATCH)


class Scaled(nnx.Module):
    """Residual branches that are multiplied by zeros: the scale of a batch norm, a number, and a vector."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.first, self.second = nnx.Conv(6, 8, (3, 3), rngs=rngs), nnx.Conv(8, 6, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(6, scale_init=nnx.initializers.zeros, rngs=rngs)
        self.up, self.down = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 6, rngs=rngs)
        self.scale = nnx.Param(jnp.zeros(()))
        self.query = nnx.LinearGeneral(6, (4, 2), rngs=rngs)
        self.out = nnx.LinearGeneral((4, 2), 6, axis=(-2, -1), rngs=rngs)
        self.scales = nnx.Param(jnp.zeros(6).at[4].set(0.5))
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        x = nnx.relu(x + self.norm(self.second(nnx.relu(self.first(x)))))
        x = x + self.scale[...] * nnx.tanh(self.down(nnx.gelu(self.up(x))))
        x = x + self.out(jnp.cos(self.query(x))) * self.scales[...]
        return self.head(x.mean(axis=(1, 2)))


def test_branches_that_are_multiplied_by_zeros_are_removed():
    model = Scaled(nnx.Rngs(0))
    folded = fold_constants(model, IMAGES)
    assert folded.unread["second/kernel[3]"] == tuple(range(6)) == folded.unread["down/kernel[1]"]
    assert folded.unread["out/kernel[2]"] == (0, 1, 2, 3, 5)
    # The branch may have a bias after the zeros, so that it is not zero.
    model.norm.bias[...] = jnp.arange(6.0)
    small = compact_model(fold_constants(model, IMAGES).model, IMAGES, allow_empty=True)
    assert small.model.first.kernel.shape == (3, 3, 6, 0) and small.model.up.kernel.shape == (6, 0)
    assert small.model.out.kernel.shape == (4, 2, 6)  # one output of the branch is read
    model.eval()
    images = jax.random.normal(jax.random.key(9), (3, 6, 6, 3))
    np.testing.assert_allclose(model(images), small.model(images), rtol=1e-5, atol=1e-5)


def test_what_is_read_beside_the_zeros_stays():
    def net(p, x):
        h = jnp.tanh(x @ p["in"])
        y = h @ p["out"]
        return {
            "twice": y * p["gain"] + y,
            "inverse": (1 / (h @ p["own"])) * p["gain"],
            "shared": (h @ p["tied"]) * p["gain"] + jnp.cos(x[:, :3] @ p["tied"][:3]),
        }

    params = tiny.normal_tree({"in": (5, 8), "out": (8, 3), "tied": (8, 3), "own": (8, 3)}) | {"gain": jnp.zeros(3)}
    folded = fold_constants(net, BATCH, variables=params)
    assert folded.unread == {}
    np.testing.assert_array_equal(folded.variables["tied"], params["tied"])
