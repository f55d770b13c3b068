"""Zeros that RAMDA has found in nets of nnx and linen, leaf by leaf and in groups that span leaves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ramda_jax
from ramda_jax.compaction import compact_model, couple, trace_dims
from ramda_jax.compaction.adapters.choose import adapter_for
from tests.compaction import nets_linen, nets_nnx
from tests.compaction.patterns import TOLERANCES, relative_difference

STEPS = 8


def nnx_net(net, batch):
    """(net, batch, keywords for `adapter_for`, parameters, a function from parameters to all variables)."""
    params, rest = nnx.split_state(nnx.state(net), nnx.Param, ...)
    return net, batch, {}, params, lambda params: nnx.merge_state(params, rest)


def linen_net(name):
    module, variables, batch = nets_linen.make(name)
    return module, batch, {"variables": variables}, variables["params"], lambda params: variables | {"params": params}


#: Maps names to (net, strength, whether the groups are coupled).
CASES = {
    "linen lenet5": (lambda: linen_net("lenet5"), 0.02, False),
    "nnx resnet, coupled": (
        lambda: nnx_net(nets_nnx.build(functools.partial(nets_nnx.ResNet50, depths=(1, 1))), nets_nnx.images(8, 3)),
        0.01,
        True,
    ),
    "nnx transformer, coupled": (lambda: nnx_net(*nets_nnx.make("transformer")), 0.02, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_compact_model_computes_the_same_where_ramda_has_found_the_zeros(name):
    make, strength, is_coupled = CASES[name]
    model, batch, given, params, with_params = make()
    apply = adapter_for(model, **given).apply
    dims = trace_dims(apply, with_params(params), batch)
    coupling = couple(dims, params) if is_coupled else None
    regularizer = coupling.regularizer() if coupling else ramda_jax.GroupLasso("input")
    optimizer = ramda_jax.ramda(3e-2, regularizer, strength, averaging=1.0)
    optimizer = coupling.wrap(optimizer) if coupling else optimizer
    target = jax.eval_shape(lambda: apply(with_params(params), batch))
    target = jnp.asarray(np.random.default_rng(0).normal(size=target.shape), jnp.float32)

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda params: jnp.mean((apply(with_params(params), batch) - target) ** 2))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(STEPS):
        params, state = step(params, state)

    # Pass shapes, so that the proof runs nothing and only this test compares outputs.
    shape = jax.ShapeDtypeStruct(batch.shape, batch.dtype)
    if given:
        small = compact_model(model, shape, variables=with_params(params), num_random=0)
    else:
        nnx.update(model, params)
        small = compact_model(model, shape, num_random=0)
    if coupling:
        alive = {
            name: tuple(np.flatnonzero(np.asarray(leaf).any(axis=1)).tolist())
            for name, leaf in coupling.pack(params)["coupled"].items()
        }
        found = {width.name: tuple(i for i in width.kept if i not in width.padding) for width in small.plan.widths}
        assert {name: found[name] for name in alive} == alive
        assert sum(map(len, alive.values())) > 0.3 * sum(len(parts[0].rows) for parts in coupling.parts.values())
    else:
        assert 0.1 < float(ramda_jax.metrics.group_sparsity(regularizer, params)) < 1
    assert small.plan.num_params[1] < 0.9 * small.plan.num_params[0]
    outputs = jax.jit(apply)(with_params(params), batch)
    assert relative_difference(outputs, jax.jit(small.apply)(small.variables, batch)) <= TOLERANCES["float32"]
