"""Subproblems to solve: random subproblems of any scale, and subproblems recorded in training on real images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import ramda_jax
from tests.reference import group_norm

# Pairs (shape, group axes). There are few, because each is compiled. All else in a problem is drawn at random.
SMALL_LAYOUTS = [
    ((), ()),
    ((40,), ()),
    ((40,), (0,)),
    ((64, 1), (0,)),
    ((9, 33), (0,)),
    ((33, 9), (1,)),
    ((2, 5, 3), (0, 1)),
    ((3, 3, 5, 4), (2,)),
    ((2, 3, 2, 4, 3), (1, 3)),
]
EMPTY_LAYOUTS = [((0, 5), (0,)), ((5, 0), (0,)), ((0,), ()), ((3, 0, 4), (2,))]
LARGE_LAYOUTS = [((3, 10_000), (0,)), ((400, 25), (1,))]


def random_metric(rng, shape, decades, tail):
    """A metric that spans `decades` below 1. The larger `tail`, the fewer entries are far below 1."""
    return 10.0 ** (-decades * rng.uniform(size=shape) ** tail)


@st.composite
def group_subproblems(draw, layouts):
    """(rhs, metric, weight, group axes) of a subproblem with a group norm; rhs and metric are in NumPy float64.

    rhs is between 1e-30 and 1e30, and some or all groups may be zero. The metric spans up to 12 decades, and may depend
    on rhs. The weight is between 0 and twice the largest norm of a group. The metric's scale keeps the solution within
    the range of float32.
    """
    shape, group_axes = draw(st.sampled_from(layouts))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    exponent = draw(st.floats(-30, 30))
    decades = draw(st.floats(0, 12))
    metric = random_metric(rng, shape, decades, draw(st.floats(0.2, 6)))
    rhs = rng.normal(size=shape)
    if draw(st.booleans()):
        rhs = rhs * metric ** draw(st.floats(-0.5, 1))
    if draw(st.booleans()):
        rhs = rhs * 10.0 ** (-draw(st.floats(0, 6)) * rng.uniform(size=shape))
    rhs = 10.0**exponent * rhs / np.max(np.abs(rhs), initial=1e-300)
    zero_share = draw(st.sampled_from([0, 0, 0, 0.3, 1]))
    is_zero = rng.uniform(size=[size if axis in group_axes else 1 for axis, size in enumerate(shape)]) < zero_share
    rhs = np.where(is_zero, 0, rhs)
    # Keep ||rhs|| / metric between 1e-33 and 1e36.
    low, high = max(-6, exponent + decades - 35), min(8, exponent + 33)
    metric = metric * 10.0 ** (low + draw(st.floats(0, 1)) * max(high - low, 0))
    norms = group_norm.norms(rhs, group_axes).astype(float)
    quantile = np.quantile(norms, draw(st.floats(0, 1))) if norms.size else 1.0
    weight = quantile * draw(st.sampled_from([0, 1e-6, 0.1, 0.7, 0.99, 1, 1.001, 2]))
    return rhs, metric, weight, group_axes


def digits():
    """8x8 images of handwritten digits, of shape (1797, 8, 8, 1) in [0, 1], and their labels."""
    data = load_digits()
    return data.images[..., None].astype(np.float32) / 16, data.target.astype(np.int32)


def mlp(params, images):
    hidden = images.reshape(len(images), -1)
    for name in ("dense_0", "dense_1"):
        hidden = jax.nn.relu(hidden @ params[name]["kernel"] + params[name]["bias"])
    return hidden @ params["dense_2"]["kernel"] + params["dense_2"]["bias"]


def conv_net(params, images):
    hidden = images
    for name in ("conv_0", "conv_1"):
        hidden = jax.lax.conv_general_dilated(
            hidden, params[name]["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        hidden = jax.nn.relu(hidden + params[name]["bias"])
    return hidden.reshape(len(images), -1) @ params["dense"]["kernel"] + params["dense"]["bias"]


NETWORKS = {
    "mlp": (mlp, {"dense_0": (64, 64), "dense_1": (64, 32), "dense_2": (32, 10)}),
    "conv_net": (conv_net, {"conv_0": (3, 3, 1, 16), "conv_1": (3, 3, 16, 24), "dense": (96, 10)}),
}


def init_network(name, seed=0):
    """(the network as a function of params and images, its parameters)."""
    network, shapes = NETWORKS[name]
    rng = np.random.default_rng(seed)
    params = {}
    for layer, shape in shapes.items():
        kernel = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        params[layer] = {"bias": jnp.zeros(shape[-1]), "kernel": jnp.asarray(kernel, jnp.float32)}
    return network, params


@functools.cache
def recording_step(network, learning_rate):
    """A jitted step of RAMDA with averaging 0.1 that also returns its subproblem. One program serves all strengths."""
    builder = ramda_jax.adaptive_dual_averaging(learning_rate)
    average = ramda_jax.iterate_averaging(0.1)

    def proximal(strength):
        return ramda_jax.proximal_point(ramda_jax.GroupLasso(), strength, ramda_jax.SecularNewton())

    def init(params, strength):
        return builder.init(params), proximal(strength).init(params), average.init(params)

    def loss(params, images, labels):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(network(params, images), labels))

    @jax.jit
    def step(params, states, images, labels, strength):
        grads = jax.grad(loss)(params, images, labels)
        model, built = builder.update(grads, states[0], params)
        point, solved = proximal(strength).update(model, states[1], params)
        updates, averaged = average.update(point, states[2], params)
        return optax.apply_updates(params, updates), (built, solved, averaged), model, solved.info

    return init, step


@functools.cache
def recorded_subproblems(name, strength, num_steps=40, learning_rate=1e-2, batch=64):
    """Trains a network on the digits with RAMDA and averaging 0.1.

    Returns:
        A tuple (model, params, info) for each step, in NumPy: the builder's `QuadraticModel`, the parameters before the
            step, and secular Newton's `SolverInfo`.
    """
    network, params = init_network(name)
    images, labels = digits()
    init, step = recording_step(network, learning_rate)
    states = init(params, strength)
    rng = np.random.default_rng(1)
    records = []
    for _ in range(num_steps):
        chosen = rng.choice(len(images), batch, replace=False)
        new_params, states, model, info = step(params, states, images[chosen], labels[chosen], strength)
        records.append(jax.tree.map(np.asarray, (model, params, info)))
        params = new_params
    return records
