"""Models of every kind are traced as they are. Arguments that would be traced as something else are refused."""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from ramda_jax.compaction import CompactionError, compact_model, low_rank_model, trace_dims, verify

X = jnp.ones((2, 3))


class Net(nnx.Module):
    def __init__(self):
        self.up, self.down = nnx.Linear(3, 8, rngs=nnx.Rngs(0)), nnx.Linear(8, 2, rngs=nnx.Rngs(1))
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(2))

    def __call__(self, x, activation="relu", twice=False):
        y = self.down(self.drop(getattr(jax.nn, activation)(self.up(x))))
        return y + y if twice else y

    def encode(self, x, times=1):
        for _ in range(times):
            y = jnp.tanh(self.up(x)) @ self.down.kernel
        return y


def free(dims):
    """The readers of the free widths."""
    return [[str(member) for member in width.readers] for width in dims.widths if not width.reason]


def test_an_nnx_model_is_traced_with_its_own_variables():
    model = Net()
    dims = trace_dims(model, X)
    assert free(dims) == [["down/kernel[0]"]]
    assert list(dims.inputs) == ["0"]
    assert free(trace_dims(model, X, call=lambda model, x: model.encode(x))) == [["down/kernel[0]"]]
    assert free(trace_dims(model.encode, X)) == [["down/kernel[0]"]]


def test_an_equinox_model_is_traced_with_its_own_variables():
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    wanted = [["layers/1/weight[1]"]]
    assert free(trace_dims(model, X[0])) == wanted
    assert free(trace_dims(model.__call__, X[0])) == wanted
    assert free(trace_dims(model, X, call=lambda model, x: jax.vmap(model)(x))) == wanted


def test_a_linen_module_is_traced_with_the_variables_given():
    module = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)])
    variables = module.init(jax.random.key(0), X)
    wanted = [["params/layers_2/kernel[0]"]]
    for dims in (
        trace_dims(module, variables, X),
        trace_dims(module, X, variables=variables),
        trace_dims(module.apply, variables, X),
        trace_dims(module.bind, variables, X, call=lambda bind, variables, x: bind(variables)(x)),
    ):
        assert free(dims) == wanted


@pytest.mark.parametrize("transform", [jax.vmap, jax.jit, nnx.jit, jax.checkpoint, functools.partial])
def test_what_hides_a_module_is_refused(transform):
    for model in (Net(), eqx.nn.Linear(3, 2, key=jax.random.key(0))):
        for function in (transform(model), *([] if transform is nnx.jit else [transform(model.__call__)])):
            with pytest.raises(CompactionError, match=r"holds those; give the module itself, and how .* `call=lambda"):
                trace_dims(function, X)


def test_a_models_own_variables_are_no_input_of_it():
    model = Net()
    for own in (nnx.state(model), nnx.state(model, nnx.Param)):
        with pytest.raises(CompactionError, match="number 0 of them is of the model's own variables, such as"):
            trace_dims(model, own, X)
        with pytest.raises(CompactionError, match="leave it out"):
            compact_model(model, own, X)
    with pytest.raises(CompactionError, match="an nnx module, which holds its own"):
        trace_dims(model, X, variables=nnx.state(model))
    with pytest.raises(CompactionError, match="must be traced with its variables, got none with a Dense"):
        trace_dims(nn.Dense(3))
    with pytest.raises(CompactionError, match="got none with a function"):
        trace_dims(lambda variables: variables)


def test_flags_counts_and_names_among_the_inputs_are_static():
    model = Net()
    model.down.kernel[...] = model.down.kernel[...].at[3:].set(0)
    dims = trace_dims(model, X, "tanh", True)
    names = [visit.equation.primitive.name for visit in dims.walk.visits]
    assert "tanh" in names and list(dims.inputs) == ["0"]
    assert free(trace_dims(model.encode, X, 2)) == [["down/kernel[0]"]]
    small = compact_model(model, X, "tanh", True)
    assert small.model.up.out_features == 3
    report = small.report(X, "tanh", True, rounds=1)
    assert report.after.flops < report.before.flops
    apply, variables = small.whole
    assert verify(apply, variables, small.apply, small.variables, X, "tanh", True, plan=small.plan).error <= 1e-5
    assert low_rank_model(model, X, "tanh", True).ranks == {}


def test_static_inputs_may_lie_anywhere_in_the_arguments():
    def function(params, batch):
        x = batch["x"] * (2 if batch["options"][0] else 1)
        return jax.nn.relu(x @ params["in"]) @ params["out"]

    params = {"in": jnp.ones((3, 4)), "out": jnp.ones((4, 2))}
    dims = trace_dims(function, params, {"x": X, "options": (True, "name", 3)})
    assert list(dims.inputs) == ["0/x"]
    assert next(visit.equation.primitive.name for visit in dims.walk.visits) == "mul"
