"""Parts that only training uses must run after compaction, and their shared widths shrink too."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ramda_jax.compaction import CompactionError, compact_model, trace_dims
from tests.compaction.patterns import relative_difference

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)


class Net(nnx.Module):
    """A net with dropout, batch normalisation, and an auxiliary head of two layers that only training uses."""

    def __init__(self, rngs, between=lambda h: h):
        self.a, self.b = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 5, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.aux, self.aux_out = nnx.Linear(8, 7, rngs=rngs), nnx.Linear(7, 3, rngs=rngs)
        self.between = between

    def __call__(self, x):
        h = self.dropout(nnx.relu(self.norm(self.a(x))))
        if self.dropout.deterministic:
            return self.b(h)
        return self.b(h), self.aux_out(nnx.relu(self.aux(self.between(h))))


def make(**settings):
    net = Net(nnx.Rngs(0), **settings)
    net.b.kernel[...] = net.b.kernel[...].at[5:].set(0)
    # Zeros in a leaf that only training reads never lead to deletions.
    net.aux_out.kernel[...] = net.aux_out.kernel[...].at[3:].set(0)
    net.train()
    return net


def test_what_only_training_uses_follows_and_trains():
    net = make()
    small = compact_model(net, X, num_random=0)
    model = small.model
    assert not model.dropout.deterministic  # the mode of the whole model
    assert model.a.kernel.shape == (6, 5) and small.refused == {}
    assert model.aux.kernel.shape == (5, 7) and model.aux_out.kernel.shape == (7, 3)
    net.eval()
    model.eval()
    assert relative_difference(net(X), model(X)) <= 1e-5
    model.train()
    logits, aux = model(X)
    assert logits.shape == (4, 5) and aux.shape == (4, 3)

    def loss(model):
        return sum(jnp.sum(y**2) for y in model(X))

    grads = nnx.grad(loss)(model)
    assert float(jnp.abs(grads["aux"]["kernel"][...]).max()) > 0


def test_a_model_whose_training_would_fail_keeps_what_makes_it():
    with pytest.raises(CompactionError, match=r"training of the small model cannot be traced: .*test_both_modes.py"):
        compact_model(make(between=lambda h: h * jnp.arange(8.0)), X)


def test_a_training_that_needs_other_arguments_is_not_looked_at():
    def between(h):
        raise ValueError("no targets")

    assert compact_model(make(between=between), X, num_random=0).model.a.kernel.shape == (6, 5)


class Linen(nn.Module):
    """A module with a head that only other calls use."""

    def setup(self):
        self.a, self.b, self.head = nn.Dense(8), nn.Dense(5), nn.Dense(3)

    def encode(self, x):
        return nn.tanh(self.a(x))

    def __call__(self, x, train=False):
        h = self.encode(x)
        return (self.b(h), self.head(h)) if train else self.b(h)

    def fixed(self, x):
        return self.encode(x).reshape(4, 8)


def test_other_calls_of_a_model_must_run_after():
    module = Linen()
    variables = jax.jit(lambda key, x: module.init(key, x, True))(jax.random.key(0), X)
    kernel = variables["params"]["b"]["kernel"].at[5:].set(0)
    params = variables["params"] | {"b": variables["params"]["b"] | {"kernel": kernel}}
    variables = {"params": params}

    def train(module, variables, x):
        return module.apply(variables, x, train=True)

    def encode(module, variables, x):
        return module.apply(variables, x, method="encode")

    def fixed(module, variables, x):
        return module.apply(variables, x, method="fixed")

    # Without `also` compaction does not know the other call, so the head is not cut and would not fit.
    alone = compact_model(module, X, variables=variables, num_random=0)
    assert alone.variables["params"]["head"]["kernel"].shape == (8, 3)
    small = compact_model(module, X, variables=variables, also=[train, encode], num_random=0)
    assert small.variables["params"]["head"]["kernel"].shape == (5, 3)
    with pytest.raises(CompactionError, match="`also` number 0 of the small model cannot be traced"):
        compact_model(module, X, variables=variables, also=[fixed])
    with pytest.raises(CompactionError, match="`also` number 1 must be a way to call the model with these arguments"):
        compact_model(module, X, variables=variables, also=[train, lambda module, variables, x: variables["other"]])


def test_dropout_of_an_equinox_module_needs_a_key_and_is_not_looked_at():
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.Sequential(
        [eqx.nn.Linear(6, 8, key=jax.random.key(0)), eqx.nn.Dropout(0.5), eqx.nn.Linear(8, 2, key=jax.random.key(1))]
    )
    net = eqx.tree_at(lambda net: net.layers[2].weight, net, net.layers[2].weight.at[:, 5:].set(0))
    small = compact_model(net, X, call=lambda model, x: jax.vmap(model)(x), num_random=0)
    assert small.model.layers[0].weight.shape == (5, 6)
    keys = jax.random.split(jax.random.key(2), 4)

    def with_keys(model, x):
        return jax.vmap(lambda row, key: model(row, key=key))(x, keys)

    assert compact_model(net, X, call=with_keys, num_random=0).model.layers[0].weight.shape == (5, 6)


def test_the_trace_is_the_one_that_compaction_goes_by():
    """Its members include leaves that only training uses, which groups that span layers need."""
    net = make()
    dims = trace_dims(net, X)
    [width] = [width for width in dims.widths if not width.reason]
    assert "aux/kernel[0]" in set(map(str, width.members)) - set(map(str, width.readers))
    small = compact_model(net, X, num_random=0)
    assert [width.name for width in small.plan.widths] == [width.name for width in dims.widths]
