"""Models that are not called as `model(x)`: the errors of all functions name the argument `call`."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import ramda_jax
from ramda_jax import compaction
from ramda_jax.compaction import CompactionError, compact_model, rebuild, trace_dims

X = jnp.ones((2, 5))


class Nnx(nnx.Module):
    def __init__(self):
        self.up, self.down = nnx.Linear(5, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 3, rngs=nnx.Rngs(1))

    def encode(self, x, scale=1.0):
        return scale * self.down(nnx.relu(self.up(x)))


class NnxOfTwo(Nnx):
    def __call__(self, x, scale):
        return self.encode(x, scale)


class Linen(nn.Module):
    def setup(self):
        self.up, self.down = nn.Dense(4), nn.Dense(3)

    def encode(self, x):
        return self.down(nn.relu(self.up(x)))


class LinenOfTwo(Linen):
    def __call__(self, x, scale):
        return scale * self.encode(x)


class Equinox(eqx.Module):
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self):
        keys = jax.random.split(jax.random.key(0))
        self.up, self.down = eqx.nn.Linear(5, 4, key=keys[0]), eqx.nn.Linear(4, 3, key=keys[1])

    def encode(self, x):
        return self.down(jax.nn.relu(self.up(x)))


class EquinoxOfOne(Equinox):
    def __call__(self, x):
        return self.encode(x)


VARIABLES = Linen().init(jax.random.key(0), X, method="encode")
_MODEL = r"The model must run as `model\(\*inputs\)`, but with the inputs \(float32\[2, 5\]\) it raised "
#: Maps names to (model, keywords, message, the message's text about the cause, call).
MODELS = {
    "nnx without": (Nnx(), {}, _MODEL, "TypeError: 'Nnx' object is not callable", lambda model, x: model.encode(x)),
    "nnx of two": (NnxOfTwo(), {}, _MODEL, "missing 1 required positional argument", lambda model, x: model(x, 2.0)),
    "linen without": (
        Linen(), {"variables": VARIABLES}, r"must run as `module.apply\(variables, \*inputs\)`, but with the inputs",
        'AttributeError: "Linen" object has no attribute', lambda module, v, x: module.apply(v, x, method="encode"),
    ),
    "linen of two": (
        LinenOfTwo(), {"variables": VARIABLES}, r"must run as `module.apply\(variables, \*inputs\)`, but with",
        "missing 1 required positional argument", lambda module, v, x: module.apply(v, x, 2.0),
    ),
    "equinox without": (
        Equinox(), {}, _MODEL, "'Equinox' object is not callable", lambda model, x: jax.vmap(model.encode)(x),
    ),
    "equinox of one": (
        EquinoxOfOne(), {}, _MODEL, "TypeError: dot_general requires", lambda model, x: jax.vmap(model)(x),
    ),
    "function": (
        lambda p, x, scale: scale * jnp.tanh(x @ p["up"]) @ p["down"],
        {"variables": {"up": jnp.ones((5, 4)), "down": jnp.ones((4, 3))}},
        r"must run as `function\(variables, \*inputs\)`, but with the inputs \(float32\[2, 5\]\) it raised",
        "missing 1 required positional argument: 'scale'",
        lambda function, p, x: function(p, x, 2.0),
    ),
}  # fmt: skip
DOORS = ("trace_dims", "couple_model", "compact_model", "low_rank_model", "fold_constants")


@pytest.mark.parametrize("name", MODELS)
def test_every_door_says_how_to_say_how_a_model_is_called(name):
    model, given, message, cause, call = MODELS[name]
    for door in DOORS:
        with pytest.raises(CompactionError, match=message) as caught:
            getattr(compaction, door)(model, X, **given)
        assert cause in str(caught.value) and "call=lambda" in str(caught.value)
        assert str(caught.value.__cause__) and type(caught.value.__cause__).__name__ in str(caught.value)
        # An error in a given `call` is reported as such.
        with pytest.raises(
            CompactionError, match=r"`call` must run with the model and the inputs, but .*change `call`"
        ):
            getattr(compaction, door)(model, X, call=lambda *args: args[0].nothing, **given)
    small = compact_model(model, X, call=call, num_random=1, **given)
    variables = small.variables
    with pytest.raises(CompactionError, match=message):
        rebuild(model, small.plan, variables, X)
    assert rebuild(model, small.plan, variables, X, call=call) is not None


def test_a_method_is_told_from_a_module():
    with pytest.raises(
        CompactionError, match=r"The method must run with the inputs, but .*\[2, 5\], 1, 'a', dict of f"
    ):
        trace_dims(Nnx().encode, X, 1, "a", {"b": X})


def test_what_is_wrong_with_the_arguments_themselves_keeps_its_error():
    with pytest.raises(TypeError, match="'up'"):
        trace_dims(lambda p, x: x, {"up": "a"}, X)


def test_a_model_in_place_of_a_trace_is_refused():
    model, params = Nnx(), nnx.state(Nnx(), nnx.Param)
    regularizer = ramda_jax.GroupLasso()
    for use in (
        lambda: compaction.costs(model),
        lambda: compaction.groups(model, regularizer),
        lambda: compaction.share_removed(model, "parameters", regularizer),
        lambda: compaction.plan_compaction(model, params),
        lambda: compaction.couple(model, params),
    ):
        with pytest.raises(TypeError, match=r"`dims` must be the result of `trace_dims`, got Nnx; give `trace_dims"):
            use()
    with pytest.raises(TypeError, match=r"`trace` must be the result of `compaction.trace_dims`, got Nnx; give"):
        ramda_jax.describe(regularizer, params, trace=model)
