"""Random programs on stacks of layers: if the order of units is said to be free, it is free."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax.compaction.symmetry.follow import why_not_symmetric
from ramda_jax.compaction.symmetry.moves import move
from ramda_jax.compaction.tracing.trace import trace_function
from tests.tiny import array


def halves(h):
    return h[..., :4], h[..., 4:]


def in_twos(h):
    return h.reshape(*h.shape[:-1], 2, 4)


def convolved(h, kernel, groups=1):
    numbers = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(
        h[None], kernel, (1,), "SAME", dimension_numbers=numbers, feature_group_count=groups
    )[0]


def pooled(h, window):
    return jax.lax.reduce_window(h, 0.0, jax.lax.add, window, (1, 1), "SAME")


#: Functions of a layer's units `h` `[batch, 8]`. Some do not depend on the order of the units.
STEPS = {
    "tanh": lambda h, layer: jnp.tanh(h),
    "scale": lambda h, layer: h * layer["scale"],
    "gate": lambda h, layer: jnp.concatenate([halves(h)[0] * jnp.tanh(halves(h)[1]), halves(h)[1]], -1),
    "swap": lambda h, layer: jnp.concatenate(halves(h)[::-1], -1),
    "twice": lambda h, layer: jnp.concatenate([halves(h)[0]] * 2, -1),
    "reverse": lambda h, layer: h[..., ::-1],
    "split and join": lambda h, layer: jnp.tanh(in_twos(h)).reshape(h.shape),
    "sum of a part": lambda h, layer: (in_twos(h) * in_twos(h).sum(-2, keepdims=True)).reshape(h.shape),
    "turn": lambda h, layer: jnp.swapaxes(in_twos(h), -1, -2).reshape(h.shape),
    "strides": lambda h, layer: jnp.concatenate([h[..., ::2], h[..., 1::2]], -1),
    "over the batch": lambda h, layer: jax.nn.softmax(h, axis=0) + jnp.cumsum(h, 0) + jnp.sort(h, 0),
    "over units": lambda h, layer: jnp.cumsum(h, -1),
    "places": lambda h, layer: h * jnp.arange(8.0),
    "constants": lambda h, layer: jnp.where(h > 0, h * jnp.ones(8), 0.1),
    "matrix": lambda h, layer: jnp.tanh(h @ layer["square"]),
    "its transpose": lambda h, layer: jnp.tanh(h @ layer["square"].T),
    "loop": lambda h, layer: jax.lax.fori_loop(0, 3, lambda _, c: jnp.tanh(c + h), jnp.zeros_like(h)),
    "loop of a vector": lambda h, layer: h + jax.lax.fori_loop(0, 3, lambda _, c: c / 2 + layer["scale"], jnp.zeros(8)),
    "condition": lambda h, layer: jax.lax.cond(jnp.asarray(len(h)) > 1, lambda h: 2 * h, lambda h: h + 1, h),
    "convolution": lambda h, layer: convolved(h, layer["square"][None]),
    "depthwise": lambda h, layer: convolved(h, layer["scale"][None, None], 8),
    "pooling": lambda h, layer: pooled(h, (2, 1)),
    "pooling of ones": lambda h, layer: h * pooled(jnp.ones((2, 8)), (2, 1)),
    "pooling of units": lambda h, layer: pooled(h, (1, 2)),
    "padding": lambda h, layer: jnp.pad(h, ((1, 0), (0, 0)))[1:],
}


#: The steps that treat all units alike.
FREE = {
    *("tanh", "scale", "over the batch", "constants", "matrix", "its transpose", "loop", "loop of a vector"),
    *("condition", "convolution", "depthwise", "padding", "pooling", "pooling of ones"),
}
#: Operations that `vmap` turns into grouped ones.
CONVOLUTIONS_OF_A_STACK = {("vmap", "convolution"), ("vmap", "depthwise")}


def program(steps, kind):
    def layer_output(x, layer):
        h = jnp.tanh(x @ layer["up"])
        for step in steps:
            h = STEPS[step](h, layer)
        return x + h @ layer["down"]

    def run(layers, x):
        if kind == "loop":
            for number in range(3):
                x = layer_output(x, jax.tree.map(lambda leaf, number=number: leaf[number], layers))
            return x
        if kind == "ragged":
            sizes = jnp.stack([(x[:, 0] > 0).sum(), (x[:, 0] <= 0).sum(), 0]).astype(jnp.int32)
            h = jnp.tanh(jax.lax.ragged_dot(x, layers["up"], sizes))
            for step in steps:
                h = STEPS[step](h, jax.tree.map(lambda leaf: leaf[1], layers))
            return x + jax.lax.ragged_dot(h, layers["down"], sizes)
        if kind == "vmap":
            return jax.vmap(lambda layer: layer_output(x, layer))(layers).sum(0)
        if kind == "mixed":
            turned = jax.tree.map(lambda leaf: leaf[::-1], layers)
            return jax.vmap(lambda layer: layer_output(x, layer))(turned).sum(0) + layer_output(
                x, jax.tree.map(lambda a: a[0], layers)
            )
        return jax.lax.scan(lambda x, layer: (layer_output(x, layer), None), x, layers, reverse=kind == "reverse")[0]

    return run


def orders(rng, style):
    """An order of 8 units for each of 3 layers, of a kind that some of the programs allow."""

    def order():
        four = rng.permutation(4)
        return {
            "any": rng.permutation(8),
            "in halves": np.concatenate([four, 4 + rng.permutation(4)]),
            "the same in halves": np.concatenate([four, 4 + four]),
            "in pairs": np.stack([2 * four, 2 * four + 1], -1).ravel(),
        }[style]

    return np.stack([order() for _ in range(3)])


def permuted(layers, moves):
    result = dict(layers)
    for path, state in moves.items():
        for axis, found in state.items():
            table = np.broadcast_to(found.table, (3, 8))
            shape = [n if place in (0, axis) else 1 for place, n in enumerate(layers[path].shape)]
            result[path] = jnp.take_along_axis(result[path], jnp.asarray(table).reshape(shape), axis)
    return result


def check_random_programs(seed, number):
    """The number of programs that were shown to have a free order, after checking that it is free."""
    rng = np.random.default_rng(seed)
    shown = 0
    with jax.enable_x64(), jax.disable_jit():
        for _ in range(number):
            steps = rng.choice(list(STEPS), rng.integers(1, 4)).tolist()
            kind = str(rng.choice(["scan", "reverse", "loop", "vmap", "mixed", "ragged"]))
            shapes = {"up": (3, 5, 8), "down": (3, 8, 5), "scale": (3, 8), "square": (3, 8, 8)}
            layers = {name: array(rng.normal(size=shape)) for name, shape in shapes.items()}
            x = array(rng.normal(size=(2, 5)))
            run = program(steps, kind)
            with jax.disable_jit(False):
                dims = trace_function(run, layers, x)
            for style in ("any", "in halves", "the same in halves", "in pairs"):
                table = orders(rng, style)
                other = table if rng.random() < 0.7 else orders(rng, style)
                axes = {"up": {2: table}, "scale": {1: table}, "down": {1: other}, "square": {1: table, 2: table}}
                moves = {}
                for path, own in axes.items():
                    found = {axis: move(moved, [("axis", 0)]) for axis, moved in own.items()}
                    moves[path] = {axis: moved for axis, moved in found.items() if moved is not None}
                if why_not_symmetric(dims, moves) == "":
                    shown += 1
                    outputs, others = run(layers, x), run(permuted(layers, moves), x)
                    assert float(jnp.abs(outputs - others).max()) <= 1e-9 * float(jnp.abs(outputs).max()), (kind, steps)
    return shown


@pytest.mark.parametrize("kind", ["scan", "vmap"])
@pytest.mark.parametrize("step", STEPS)
def test_every_step_is_followed_or_refused(step, kind):
    """The order of units is free in the steps that treat each unit alike."""
    rng = np.random.default_rng(0)
    shapes = {"up": (3, 5, 8), "down": (3, 8, 5), "scale": (3, 8), "square": (3, 8, 8)}
    layers = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    dims = trace_function(program([step], kind), layers, jnp.ones((2, 5)))
    table = move(orders(rng, "any"), [("axis", 0)])
    moves = {"up": {2: table}, "scale": {1: table}, "down": {1: table}, "square": {1: table, 2: table}}
    reason = why_not_symmetric(dims, moves)
    assert (reason == "") == (step in FREE and (kind, step) not in CONVOLUTIONS_OF_A_STACK), reason


@pytest.mark.parametrize("step", STEPS)
def test_experts_keep_the_order_of_their_units_only_where_rows_stay_in_their_groups(step):
    rng = np.random.default_rng(0)
    shapes = {"up": (3, 5, 8), "down": (3, 8, 5), "scale": (3, 8), "square": (3, 8, 8)}
    layers = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    dims = trace_function(program([step], "ragged"), layers, jnp.ones((2, 5)))
    table = move(orders(rng, "any"), [("axis", 0)])
    moves = {"up": {2: table}, "down": {1: table}}
    assert (why_not_symmetric(dims, moves) == "") == (step in {"tanh", "constants", "pooling of ones"})
    # Different experts have different units, and different rows in their groups.
    assert why_not_symmetric(dims, {"up": {2: table}, "down": {1: move(orders(rng, "any"), [("axis", 0)])}})


def two_ragged(rows):
    """Two ragged products with the same sizes; the rows in between are passed on in order or not."""

    def run(layers, x, sizes, others):
        h = jnp.tanh(jax.lax.ragged_dot(x, layers["up"], sizes))
        if rows == "other sizes":
            return jax.lax.ragged_dot(h, layers["down"], others)
        if rows == "turned":
            h = h[::-1]
        if rows == "rolled":
            h = jnp.concatenate([h[1:], h[:1]])
        if rows == "through a loop":
            h = jax.lax.fori_loop(0, 2, lambda _, h: h[::-1], h)
        return jax.lax.ragged_dot(h, layers["down"], sizes)

    return run


@pytest.mark.parametrize("rows", ["kept", "other sizes", "turned", "rolled", "through a loop"])
def test_rows_that_change_groups_between_two_ragged_products_keep_the_order(rows):
    layers = {"up": jax.ShapeDtypeStruct((3, 5, 8), jnp.float32), "down": jax.ShapeDtypeStruct((3, 8, 5), jnp.float32)}
    sizes = jax.ShapeDtypeStruct((3,), jnp.int32)
    dims = trace_function(two_ragged(rows), layers, jnp.ones((4, 5)), sizes, sizes)
    table = move(orders(np.random.default_rng(0), "any"), [("axis", 0)])
    assert (why_not_symmetric(dims, {"up": {2: table}, "down": {1: table}}) == "") == (rows == "kept")


def test_the_order_of_units_is_free_where_it_is_said_to_be():
    assert check_random_programs(seed=1, number=20) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_the_order_of_units_is_free_where_it_is_said_to_be_in_many_programs(seed):
    assert check_random_programs(seed, number=60) >= 20
