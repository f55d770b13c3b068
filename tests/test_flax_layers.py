"""The default rule finds the kernels of Flax's layers, and `docs/layers.md` says what a group of each is."""

import dataclasses
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import ramda_jax
from ramda_jax import GroupLasso
from ramda_jax.structure import assign
from tests import tiny

RNGS = nnx.Rngs(0)
VECTORS, IMAGES = jnp.ones((2, 6)), jnp.ones((1, 8, 8, 4))


def linen_params(layer, *inputs):
    return jax.eval_shape(lambda: layer.init(jax.random.key(0), *inputs)["params"])


def carry(cell):
    return cell.initialize_carry(jax.random.key(0), VECTORS.shape)


def nnx_params(layer):
    return nnx.as_pure(nnx.state(layer, nnx.Param))


LAYERS = {
    "nnx.Linear": lambda: nnx_params(nnx.Linear(6, 5, rngs=RNGS)),
    "nnx.LinearGeneral": lambda: nnx_params(nnx.LinearGeneral(6, (5, 2), rngs=RNGS)),
    "nnx.Einsum": lambda: nnx_params(nnx.Einsum("ab,bc->ac", (6, 5), rngs=RNGS)),
    "nnx.Conv": lambda: nnx_params(nnx.Conv(4, 8, (3, 3), rngs=RNGS)),
    "nnx.ConvTranspose": lambda: nnx_params(nnx.ConvTranspose(4, 8, (3, 3), rngs=RNGS)),
    "nnx.MultiHeadAttention": lambda: nnx_params(nnx.MultiHeadAttention(2, 6, 8, decode=False, rngs=RNGS)),
    "nnx.LSTMCell": lambda: nnx_params(nnx.LSTMCell(6, 5, rngs=RNGS)),
    "nnx.OptimizedLSTMCell": lambda: nnx_params(nnx.OptimizedLSTMCell(6, 5, rngs=RNGS)),
    "nnx.GRUCell": lambda: nnx_params(nnx.GRUCell(6, 5, rngs=RNGS)),
    "linen.Dense": lambda: linen_params(linen.Dense(5), VECTORS),
    "linen.DenseGeneral": lambda: linen_params(linen.DenseGeneral((5, 2)), VECTORS),
    "linen.Einsum": lambda: linen_params(linen.Einsum((6, 5), "ab,bc->ac"), VECTORS),
    "linen.Conv": lambda: linen_params(linen.Conv(8, (3, 3)), IMAGES),
    "linen.ConvTranspose": lambda: linen_params(linen.ConvTranspose(8, (3, 3)), IMAGES),
    "linen.MultiHeadDotProductAttention": lambda: linen_params(
        linen.MultiHeadDotProductAttention(2, qkv_features=8), VECTORS[None], VECTORS[None]
    ),
    "linen.LSTMCell": lambda: linen_params(linen.LSTMCell(5), carry(linen.LSTMCell(5)), VECTORS),
    "linen.OptimizedLSTMCell": lambda: linen_params(
        linen.OptimizedLSTMCell(5), carry(linen.OptimizedLSTMCell(5)), VECTORS
    ),
    "linen.GRUCell": lambda: linen_params(linen.GRUCell(5), carry(linen.GRUCell(5)), VECTORS),
}
FUSED = {
    "nnx.OptimizedLSTMCell": "an input feature, across the 4 gates",
    "nnx.GRUCell": "an input feature, across the 3 gates",
}


def meaning(name, path, axes, ndim):
    """A text that says what a group is, from its axes."""
    if "Cell" in name:
        return FUSED.get(name, "an input feature of one gate")
    if axes == (0, 1) and ndim == 3:
        return "an entry of a head"
    if ndim == 4:
        return "an input channel"
    return "an entry of the first output axis" if axes == (1,) else "an input feature"


def table(name):
    """The rows of `docs/layers.md` for a layer, one per regularized leaf."""
    rows = []
    for path, leaf, resolved in assign(GroupLasso(), LAYERS[name]()):
        if resolved is not None:
            groups = resolved.radii_shape(leaf.shape)
            number = 1
            for size in groups:
                number *= size
            text = meaning(name, path, resolved.groups, leaf.ndim)
            cells = [f"`{cell}`" for cell in (name, path, tuple(leaf.shape), resolved.groups)]
            rows.append("| " + " | ".join([*cells, text, str(number), str(resolved.sizes(leaf.shape))]) + " |")
    return rows


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.contract("nnx")
def test_the_table_of_layers_is_what_assign_and_describe_say(name):
    text = (Path(__file__).parents[1] / "docs" / "layers.md").read_text()
    rows = table(name)
    documented = [line for line in text.splitlines() if line.startswith(f"| `{name}` ")]
    assert rows and documented == rows
    described = ramda_jax.describe(GroupLasso(), LAYERS[name]())
    for row in rows:
        cells = [cell.strip(" `") for cell in row.strip("|").split("|")]
        line = next(line for line in described.splitlines() if line.startswith(cells[1] + " "))
        assert (
            line.split("GroupLasso")[1].replace(" ", "").startswith((cells[3] + cells[5] + cells[6]).replace(" ", ""))
        )
    # All kernels are regularized, and no other leaf is.
    leaves = [path for path, *_ in assign(None, LAYERS[name]())]
    assert [row.split("`")[3] for row in rows] == [path for path in leaves if path.endswith("kernel")]


METHODS = {
    "rmda": ramda_jax.rmda(0.3, GroupLasso(), 0.05, averaging=1.0),
    "ramda": ramda_jax.ramda(0.1, GroupLasso(), 0.05, averaging=1.0),
    "prox_adamw": ramda_jax.prox_adamw(0.03, GroupLasso(), 0.05),
}


def train_nnx(wrt=nnx.Param, method="rmda"):
    model = nnx.Sequential(nnx.Linear(6, 5, rngs=nnx.Rngs(0)), nnx.BatchNorm(5, rngs=nnx.Rngs(0)))
    optimizer = nnx.Optimizer(model, METHODS[method], wrt=wrt)
    x = jax.random.normal(jax.random.key(0), (64, 6))
    y = jnp.tile(x[:, :1], (1, 5))

    @nnx.jit(donate_argnums=(0, 1))
    def step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.mean((model(x) - y) ** 2), argnums=nnx.DiffState(0, wrt))(model)
        optimizer.update(model, grads)

    for _ in range(60):
        step(model, optimizer)
    params = nnx.state(model, wrt)
    structured = ramda_jax.eval_params(optimizer.opt_state, params)
    chex.assert_trees_all_equal(*(jax.tree.map(lambda leaf: leaf != 0, tree) for tree in (structured, params)))
    assert ramda_jax.solver_info(optimizer.opt_state).converged
    return model


@pytest.mark.contract("nnx")
@pytest.mark.parametrize("method", METHODS)
def test_nnx_optimizer_trains_to_structure_and_leaves_the_norm_unregularized(method):
    start = nnx.BatchNorm(5, rngs=nnx.Rngs(0))
    model = train_nnx(method=method)
    alive = tiny.alive(model.layers[0].kernel[...])
    assert alive[0] and not all(alive)
    assert (model.layers[1].scale[...] != 0).all() and (model.layers[1].scale[...] != start.scale[...]).any()


@pytest.mark.contract("nnx")
def test_nnx_filters_jit_and_donation():
    start = nnx.BatchNorm(5, rngs=nnx.Rngs(0))
    only_kernel = train_nnx(wrt=nnx.All(nnx.Param, nnx.PathContains("kernel")))
    assert (only_kernel.layers[1].scale[...] == start.scale[...]).all()


@pytest.mark.contract("nnx")
def test_nnx_keeps_a_float32_iterate_of_bfloat16_parameters():
    model = nnx.Linear(6, 5, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    settings = {"averaging": ramda_jax.sqrt_growth(0.1), "iterate_dtype": jnp.float32}
    optimizer = nnx.Optimizer(model, ramda_jax.rmda(0.3, GroupLasso(), 0.05, **settings), wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(0), (64, 6))

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.mean((model(x) - x[:, :1]) ** 2))(model)
        optimizer.update(model, grads)

    def distance():
        iterate = nnx.as_pure(optimizer.opt_state)[-1].iterate["kernel"]
        assert iterate.dtype == jnp.float32 and model.kernel[...].dtype == jnp.bfloat16
        return jnp.max(jnp.abs(iterate - model.kernel[...].astype(jnp.float32)))

    step(model, optimizer)
    assert 0 < distance() < 0.01  # the parameters are the rounded iterate
    for _ in range(100):
        step(model, optimizer)
    alive = (model.kernel[...] != 0).any(axis=1)
    assert alive[0] and not alive.all()
    assert distance() < 0.01


@pytest.mark.contract("linen, boxes, callable modules")
@pytest.mark.parametrize("method", ["rmda", "ramda"])
def test_linen_train_state_with_boxed_parameters_trains_to_structure(method):
    init = linen.with_partitioning(linen.initializers.lecun_normal(), (None, "out"))
    net = linen.Dense(2, kernel_init=init)
    x = jax.random.normal(jax.random.key(0), (64, 6))
    boxed = net.init(jax.random.key(1), x)["params"]
    state = TrainState.create(apply_fn=net.apply, params=boxed, tx=METHODS[method])

    @jax.jit
    def step(state):
        def loss(params):
            return jnp.mean((net.apply({"params": params}, x) - x[:, :1]) ** 2)

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    for _ in range(60):
        state = step(state)
    assert isinstance(state.params["kernel"], linen.Partitioned)
    alive = (state.params["kernel"].value != 0).any(axis=1)
    assert alive[0] and not alive.all()


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Module:
    """A callable tree of parameters, as in Equinox: `weight` is (out, in)."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return x @ self.weight.T + self.bias


@pytest.mark.contract("linen, boxes, callable modules")
def test_a_callable_module_is_a_tree_of_parameters():
    x = jax.random.normal(jax.random.key(0), (64, 6))
    module = Module(jax.random.normal(jax.random.key(1), (2, 6)), jnp.zeros(2))
    optimizer = ramda_jax.rmda(0.5, {"weight": GroupLasso(1)}, 0.1, averaging=1.0)
    state = optimizer.init(module)

    @jax.jit
    def step(module, state):
        grads = jax.grad(lambda module: jnp.mean((module(x) - x[:, :1]) ** 2))(module)
        updates, state = optimizer.update(grads, state, module)
        return optax.apply_updates(module, updates), state

    for _ in range(40):
        module, state = step(module, state)
    alive = (module.weight != 0).any(axis=0)
    assert alive[0] and not alive.all()
    assert isinstance(ramda_jax.eval_params(state, module), Module)


@pytest.mark.contract("nnx")
def test_tree_mode_trains_to_structure():
    """The model and the optimizer are plain trees under `jax.jit` and `jax.grad`; gradients have the model's type."""
    model = nnx.Linear(6, 5, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ramda_jax.rmda(0.3, GroupLasso(), 0.05, averaging=1.0), wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(0), (64, 6))

    @jax.jit
    def step(model, optimizer):
        grads = jax.grad(lambda model: jnp.mean((model(x) - x[:, :1]) ** 2))(model)
        optimizer.update(model, grads)
        return model, optimizer

    for _ in range(60):
        model, optimizer = step(model, optimizer)
    alive = (model.kernel[...] != 0).any(axis=1)
    assert alive[0] and not alive.all()
