"""Tests for eight devices. test_sharding.py runs them in a process with eight devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import ramda_jax
from ramda_jax import metrics
from tests.factories import FACTORIES, factory_id
from tests.scale.problem import REGULARIZERS, batches, loss, make_params

# The other two methods are chains of the same parts as ProxAdamW.
every_factory = pytest.mark.parametrize(
    "factory", [f for f in FACTORIES if f.name in ("ramda", "rmda", "prox_adamw")], ids=factory_id
)
STRENGTHS = {"ramda": 0.008, "rmda": 0.08, "prox_sgd": 0.05, "prox_adamw": 0.01, "prox_ssi": 0.002}
STEPS = 6


@functools.cache
def make_optimizer(factory, regularizer=ramda_jax.GroupLasso(), **settings):  # noqa: B008
    if factory.averages:
        settings |= {"averaging": ramda_jax.sqrt_growth(0.5, 3), "restarts": (3,)}
    return factory(regularizer, STRENGTHS[factory.name], **settings)


def make_step(optimizer, reduce=lambda grads: grads, loss=loss, local=lambda params: params):
    def step(params, state, batch):
        grads = reduce(jax.grad(loss)(local(params), batch))
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def train(step, params, state, place=lambda batch: batch):
    for batch in batches(STEPS):
        # Simulated devices share a few threads, so queued steps could block each other.
        params, state = jax.block_until_ready(step(params, state, place(batch)))
    return params, state


def assert_same_trajectory(actual, expected, dtype):
    """Checks (params, state) pairs: equal parameters and radii up to rounding, and the same nonzero groups."""
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    actual, expected = jax.device_get((actual, expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual[0], expected[0])
    ours, theirs = (optax.tree.get(state, "radii") for _, state in (actual, expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a != 0, b != 0), ours, theirs)
    alive = np.concatenate([radii.ravel() != 0 for radii in theirs.values()])
    assert alive.any() and not alive.all(), alive.mean()


def mesh_of(*shape, explicit=False):
    names = ("x", "y")[: len(shape)]
    kind = AxisType.Explicit if explicit else AxisType.Auto
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))


@functools.cache
def on_one_device(optimizer, dtype):
    params = make_params(dtype)
    return jax.device_get(train(jax.jit(make_step(optimizer)), params, optimizer.init(params)))


# Data parallel: the batch is sharded, and every device has all parameters and the whole state.


def jit_with_shardings(optimizer, params):
    mesh = mesh_of(8)
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("x"))
    step = jax.jit(make_step(optimizer), in_shardings=(everywhere, everywhere, split), out_shardings=everywhere)
    params = jax.device_put(params, everywhere)
    return train(step, params, optimizer.init(params), lambda batch: jax.device_put(batch, split))


def shard_map_with_psum(optimizer, params):
    def local(params):
        # Mark the parameters as varying, so that each device has its own gradients until the sum.
        return jax.lax.pcast(params, "x", to="varying")

    step = make_step(optimizer, lambda grads: jax.tree.map(lambda g: jax.lax.psum(g / 8, "x"), grads), local=local)
    return train(
        jax.jit(jax.shard_map(step, mesh=mesh_of(8), in_specs=(P(), P(), P("x")), out_specs=P())),
        params,
        optimizer.init(params),
    )


def pmap(optimizer, params):
    step = make_step(optimizer, lambda grads: jax.lax.pmean(grads, "x"))

    def replicate(tree):
        return jax.tree.map(lambda x: jnp.stack([x] * 8), tree)

    def split(batch):
        return jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), batch)

    result = train(jax.pmap(step, axis_name="x"), replicate(params), replicate(optimizer.init(params)), split)
    jax.tree.map(lambda x: np.testing.assert_array_equal(x, np.broadcast_to(x[:1], x.shape)), jax.device_get(result))
    return jax.tree.map(lambda x: x[0], result)


@every_factory
@pytest.mark.parametrize("way", [jit_with_shardings, shard_map_with_psum, pmap], ids=lambda way: way.__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_data_parallel_is_the_trajectory_of_one_device(factory, way, dtype):
    if way is not jit_with_shardings and (factory.name, dtype) != ("ramda", "float64"):
        pytest.skip("every way with RAMDA, every factory in one way")
    if dtype == "float32" and factory.name != "ramda":
        pytest.skip("float64 says more")
    with jax.enable_x64(dtype == "float64"):
        optimizer = make_optimizer(factory)
        assert_same_trajectory(way(optimizer, make_params(dtype)), on_one_device(optimizer, dtype), dtype)


# Fully sharded: every parameter, and each part of the state with its shape, is split over eight devices.

LAYOUTS = {
    "group axis": {"conv": P(None, None, ("x", "y")), "first": P(("x", "y")), "second": P(("x", "y"))},
    "inside the groups": {
        "conv": P(None, None, None, ("x", "y")),
        "first": P(None, ("x", "y")),
        "second": P(None, "y"),
    },
    "both": {"conv": P(None, None, "y", "x"), "first": P("x", "y"), "second": P("y", "x")},
    "offsets": {"conv": P("x", None, "y"), "first": P("y", "x"), "second": P("x", "y")},
    "offsets and outputs": {"conv": P(None, "x", None, "y"), "first": P("y", "x"), "second": P("x", "y")},
}


def shardings(mesh, layout):
    specs = LAYOUTS[layout]
    return {
        name: {key: NamedSharding(mesh, specs[name] if key == "kernel" else P("y")) for key in layer}
        for name, layer in make_params("float32").items()
    }


def state_shardings(optimizer, params, mesh):
    """Shardings for a state: parts with the parameters' shapes are sharded like them, other parts are replicated."""
    return optax.tree.map_params(
        optimizer,
        lambda _, p: p.sharding,
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda _: NamedSharding(mesh, P()),
    )


def assert_state_is_sharded_as(optimizer, state, params):
    """Checks that each part of the state with the parameters' shapes has their shardings."""

    def check(leaf, p):
        assert leaf.sharding.is_equivalent_to(p.sharding, p.ndim), (leaf.sharding, p.sharding)
        return leaf

    optax.tree.map_params(optimizer, check, state, params)


def check_fully_sharded(optimizer, layout, dtype):
    mesh = mesh_of(2, 4)
    placed = shardings(mesh, layout)
    params = jax.device_put(make_params(dtype), placed)
    state = optimizer.init(params)
    assert_state_is_sharded_as(optimizer, state, params)
    # `init` shards the radii like the groups. Here they are replicated, like the output, so that they can be donated.
    placed_state = state_shardings(optimizer, params, mesh)
    state = jax.device_put(state, placed_state)
    step = jax.jit(
        make_step(optimizer),
        out_shardings=(placed, placed_state),
        donate_argnums=(0, 1),
    )
    split = NamedSharding(mesh, P(("x", "y")))
    sharded = train(step, params, state, lambda batch: jax.device_put(batch, split))
    assert_state_is_sharded_as(optimizer, sharded[1], sharded[0])
    assert_same_trajectory(sharded, on_one_device(optimizer, dtype), dtype)
    return sharded


@every_factory
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fully_sharded_is_the_trajectory_of_one_device(factory, layout):
    if factory.name != "ramda" and layout != "both":
        pytest.skip("every layout with RAMDA, every factory in one layout")
    dtype = "float32" if layout in ("both", "group axis") else "float64"
    with jax.enable_x64(dtype == "float64"):
        check_fully_sharded(make_optimizer(factory), layout, dtype)


def test_fully_sharded_kept_iterate_is_that_of_one_device(x64):
    _, state = check_fully_sharded(make_optimizer(FACTORIES[0], iterate_dtype="float64"), "both", "float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(state[-1].iterate)} == {jnp.dtype("float64")}


def test_state_of_a_jitted_init_can_be_given_shardings_by_map_params():
    mesh = mesh_of(2, 4)
    params = jax.device_put(make_params("float32"), shardings(mesh, "both"))
    optimizer = make_optimizer(FACTORIES[0])
    state = jax.jit(optimizer.init, out_shardings=state_shardings(optimizer, params, mesh))(params)
    assert_state_is_sharded_as(optimizer, state, params)


# Meshes with explicit axes, where shardings are part of the types.


def pull(params, batch):
    """A loss without a matrix product, whose sharding would have to be named with explicit axes."""
    x, y = (jnp.mean(part) for part in batch)
    return sum(
        jnp.sum((p - (jnp.arange(p.shape[-1]) % 3 == 0) * (1 + x) + y) ** 2) / 2 for p in jax.tree.leaves(params)
    )


def types_of(tree):
    """The leaves' types as text, such as `float32[16@x,24]`."""
    return jax.tree.map(lambda leaf: str(jax.typeof(leaf)), tree)


def check_explicit(factory, regularizer, spec, tolerance=1e-5):
    mesh = mesh_of(8, explicit=True)
    optimizer = make_optimizer(factory, regularizer)
    params = {"a": {"kernel": jax.random.normal(jax.random.key(0), (16, 24))}, "b": {"kernel": jnp.ones((16, 24))}}
    expected = train(jax.jit(make_step(optimizer, loss=pull)), params, optimizer.init(params))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, NamedSharding(mesh, spec))
        state = optimizer.init(sharded)
        types = types_of((sharded, state))
        assert types_of(jax.eval_shape(optimizer.init, sharded)) == types[1]
        result = train(jax.jit(make_step(optimizer, loss=pull)), sharded, state)
        assert types_of(result) == types
        structured = jax.jit(ramda_jax.eval_params)(result[1], result[0])
        assert types_of(structured) == types[0]
    expected_structured = jax.jit(ramda_jax.eval_params)(expected[1], expected[0])
    actual, structured, expected = jax.device_get((result[0], structured, expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected[0])
    np.testing.assert_array_equal(structured["a"]["kernel"] == 0, expected_structured["a"]["kernel"] == 0)


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("spec", [P("x"), P(None, "x")], ids=["rows", "columns"])
def test_explicit_sharding_keeps_the_types_for_every_regularizer(name, spec):
    if spec == P(None, "x") and "Group" not in name and name != "NuclearNorm":
        pytest.skip("has no axes to tell apart")
    if name == "NuclearNorm":
        # Its iterations carry the rounding of the sums further, so that float32 says little.
        with jax.enable_x64(True):
            check_explicit(FACTORIES[0], REGULARIZERS[name], spec, tolerance=1e-10)
        return
    check_explicit(FACTORIES[0], REGULARIZERS[name], spec)


@pytest.mark.parametrize("factory", FACTORIES[1:], ids=factory_id)
def test_explicit_sharding_keeps_the_types_for_every_factory(factory):
    check_explicit(factory, REGULARIZERS["GroupLasso"], P("x"))


# The nuclear norm: leaves are gathered for the SVD, on either kind of mesh.


def test_nuclear_norm_of_sharded_leaves_is_that_of_one_device():
    check_explicit(FACTORIES[1], REGULARIZERS["NuclearNorm"], P("x"))  # RMDA has a closed form
    mesh = mesh_of(8)
    regularizer = REGULARIZERS["NuclearNorm"]
    optimizer = FACTORIES[1](regularizer, 0.1)
    params = make_params("float32")
    expected = train(jax.jit(make_step(optimizer)), params, optimizer.init(params))
    sharded = jax.device_put(params, NamedSharding(mesh, P()))
    for name in ("first", "second"):
        sharded[name]["kernel"] = jax.device_put(params[name]["kernel"], NamedSharding(mesh, P("x")))
    actual = train(jax.jit(make_step(optimizer)), sharded, optimizer.init(sharded))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *jax.device_get((actual[0], expected[0]))
    )


@pytest.mark.parametrize("explicit", [False, True], ids=["auto", "explicit"])
@pytest.mark.parametrize("name", ["GroupLasso", "NuclearNorm"])
def test_certificate_of_a_sharded_leaf_is_that_of_one_device(name, explicit):
    def few_rows(params, batch):
        pulled = (jnp.arange(16) % 3 == 0).astype(jnp.float32)[:, None]
        return jnp.sum((params["kernel"] - pulled - jnp.mean(batch[1])) ** 2) / 2

    optimizer = FACTORIES[0](REGULARIZERS[name], 0.3)
    mesh = mesh_of(8, explicit=explicit)
    params = {"kernel": jnp.zeros((16, 24))}
    step = jax.jit(make_step(optimizer, loss=few_rows))
    expected = train(step, params, optimizer.init(params))
    wanted = jax.jit(metrics.certificate)(expected[1], expected[0], expected[1])
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, NamedSharding(mesh, P("x")))
        params, state = train(step, sharded, optimizer.init(sharded))
        found = jax.jit(metrics.certificate)(state, params, state)
    found, wanted = jax.device_get((found, wanted))
    assert np.any(wanted.zero["kernel"]) and not np.all(wanted.zero["kernel"])
    np.testing.assert_array_equal(found.zero["kernel"], wanted.zero["kernel"])
    for name in ("margin", "worst_margin", "noise", "movement"):
        np.testing.assert_allclose(
            getattr(found, name)["kernel"], getattr(wanted, name)["kernel"], rtol=1e-3, atol=1e-3
        )


# Checkpoints move between shardings.


def test_checkpoint_is_restored_onto_another_sharding(tmp_path):
    optimizer = make_optimizer(FACTORIES[0])
    mesh = mesh_of(2, 4)
    step = jax.jit(make_step(optimizer))
    params = jax.device_put(make_params("float32"), shardings(mesh, "both"))
    params, state = step(params, optimizer.init(params), next(batches(1)))
    placed = jax.device_put(params, shardings(mesh, "offsets"))
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        (params, state),
        jax.tree.broadcast((shardings(mesh, "offsets"), state_shardings(optimizer, placed, mesh)), (params, state)),
    )
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", (params, state))
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "checkpoint", target)
    chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get((params, state)))
    assert_state_is_sharded_as(optimizer, restored[1], placed)
    assert_same_trajectory(train(step, *restored), train(step, params, state), "float32")
