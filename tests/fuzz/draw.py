"""Arguments that a caller may pass: good values, nearly good ones, and anything else, drawn by a `random.Random`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ramda_jax
from tests.factories import FACTORIES

NUMBERS = (
    0.1, 0.5, 1.0, 0.0, 2, 1, 0, -1, -3, 0.999, 1e-30, 1e30, 1e308, -0.1, float("nan"), float("inf"), -0.0,
    None, True, "1", b"1", 1j, np.float32(0.1), np.float16("inf"), np.int64(2), np.asarray(0.1), np.ones(2),
    np.asarray("a"), [0.1], (), {}, object(), optax.constant_schedule(0.1), 10**400, -(10**400),
)  # fmt: skip
#: Numbers and patterns. Some patterns fit some trees, and some fit none.
STRENGTHS = (
    0.1, 0.1, 0.1, {"": 0.1}, {"kernel": 0.1, "": 0.2}, {"a": optax.constant_schedule(0.1), "": 0.0},
    {"": ramda_jax.Target(0.5, hold=3)}, {"kernel": ramda_jax.Target(0.5, hold=3), "": 0.1},
)  # fmt: skip
BAD_STRENGTHS = (
    {"(": 0.1},
    {3: 0.1},
    {None: 0.1},
    {"a": {"": 0.1}},
    {"a": None},
    {"": ramda_jax.Target(0.5)},
    {"": -1},
)
COUNTS = (
    1,
    2,
    3,
    5,
    0,
    -1,
    2**31,
    2**63,
    10**30,
    True,
    None,
    1.0,
    2.5,
    "3",
    np.int64(4),
    np.float32(2),
    (),
    float("nan"),
)
DTYPES = ("float32", "float16", "bfloat16", "int32", "uint8", "bool", "complex64")
NAMES = ("kernel", "bias", "a", "b", "query", "out", "embedding", "0", "value", "x.y", "scale", "a/b", "")
OTHERS = (None, "text", 3, 1.5, True, object(), optax.MaskedNode(), b"x", (), {}, np.asarray("a"), len)
PATTERNS = ("kernel", ".*", "^a", "a/kernel", "(", "[", "", "bias|kernel", "nowhere", "a", "value", "*", "0", 1, None)
AXES = (
    "input", "output", "heads", "kernel", "rows", "", None, 1.5, True, np.int64(1), "0", 0, 1, -1, 3, -7,
    (), (0,), (0, 1), (1, -1), (0, 0), [0], [2, 1], (7,), (0.5,), ("input",), ((0,),),
)  # fmt: skip
WEIGHTS = ("sqrt_size", "sqrt_layer_size", "size", 1.0, 0.0)
#: Maps each regularizer to its arguments.
CLASSES = {
    ramda_jax.L1: ("factor",),
    ramda_jax.GroupLasso: ("groups", "group_weight"),
    ramda_jax.SparseGroupLasso: ("groups", "group_weight", "l1_ratio"),
    ramda_jax.MCP: ("omega",),
    ramda_jax.GroupMCP: ("groups", "group_weight", "omega", "gamma"),
    ramda_jax.SparseGroupMCP: ("groups", "group_weight", "omega", "gamma", "l1_ratio"),
    ramda_jax.NuclearNorm: ("split", "factor", "gram"),
    ramda_jax.Box: ("lower", "upper"),
    ramda_jax.Binary: ("levels",),
    ramda_jax.Quantized: ("levels",),
    ramda_jax.Null: (),
    ramda_jax.Projection: ("function", "is_convex"),
}
GOOD_REGULARIZERS = (
    ramda_jax.L1(), ramda_jax.GroupLasso(), ramda_jax.GroupLasso((0,)), ramda_jax.GroupLasso((-1,)),
    ramda_jax.SparseGroupLasso(l1_ratio=0.5), ramda_jax.MCP(omega=2.0), ramda_jax.GroupMCP(omega=2.0),
    ramda_jax.NuclearNorm(), ramda_jax.Box(-1.0, 1.0), ramda_jax.Binary(), ramda_jax.Null(), None,
    ramda_jax.Projection(optax.projections.projection_non_negative),
)  # fmt: skip
GOOD_SOLVERS = (
    None, ramda_jax.ClosedForm(), ramda_jax.SecularNewton(), ramda_jax.ProximalGradient(), ramda_jax.NewtonRaphson(),
    ramda_jax.DouglasRachford(),
)  # fmt: skip
SOLVERS = {
    ramda_jax.ClosedForm: (),
    ramda_jax.SecularNewton: ("max_steps",),
    ramda_jax.ProximalGradient: ("max_steps", "rtol", "tolerance", "accelerate", "stepsize"),
    ramda_jax.DouglasRachford: ("max_steps", "rtol"),
    ramda_jax.NewtonRaphson: ("max_steps", "rtol", "atol"),
}


class Draw:
    """Draws arguments with a `random.Random`."""

    def __init__(self, numbers):
        self.numbers = numbers

    def one(self, values):
        return self.numbers.choice(tuple(values))

    def happens(self, probability):
        return self.numbers.random() < probability

    def shape(self):
        return tuple(self.one((0, 1, 2, 2, 3)) for _ in range(self.one((0, 1, 2, 2, 2, 3, 4))))

    def array(self, dtypes=DTYPES[:3]):
        """An array, as its shape and dtype."""
        return jax.ShapeDtypeStruct(self.shape(), jnp.dtype(self.one(dtypes)))

    def tree(self, leaf, depth=2):
        """A tree of leaves that `leaf()` makes."""
        kind = self.numbers.randrange(6) if depth else 0
        if kind == 0:
            return leaf()
        inner = [self.tree(leaf, depth - 1) for _ in range(self.numbers.choice((0, 1, 1, 2, 2, 3)))]
        if kind == 1:
            return inner if self.happens(0.5) else tuple(inner)
        names = self.numbers.sample(NAMES, len(inner))
        return dict(zip(names, inner, strict=True))

    def params(self):
        """A tree of real arrays."""
        return self.tree(self.array)

    def any_leaf(self):
        return self.one(OTHERS) if self.happens(0.3) else self.array(DTYPES if self.happens(0.3) else DTYPES[:3])

    def any_params(self):
        return self.tree(self.any_leaf)

    def changed(self, tree):
        """The tree with one change: to a key, a shape, a dtype, a leaf, or the whole tree."""
        flat, treedef = jax.tree.flatten(tree, is_leaf=lambda node: node is None)
        kind = self.numbers.randrange(8)
        if kind == 0 or not flat:
            return self.one((None, {}, (), [tree], {"a": tree}, (tree, tree), self.any_leaf(), self.any_params()))
        place = self.numbers.randrange(len(flat))
        leaf = flat[place]
        if kind <= 2 and isinstance(tree, dict) and tree:
            tree, name = dict(tree), self.one(tree)
            value = tree.pop(name)
            if kind == 1:
                tree[self.one(NAMES)] = value
            elif self.happens(0.5):
                tree[name] = self.changed(value)
            return tree
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype") and kind < 7:
            shape = tuple(leaf.shape)
            if kind in (3, 4) and shape:
                axis = self.numbers.randrange(len(shape))
                shape = (*shape[:axis], self.one((1, shape[axis] + 1, 0)), *shape[axis + 1 :])
            elif kind == 5:
                shape = self.one((shape[1:], (1, *shape), (), (*shape, 2)))
            dtype = leaf.dtype if kind < 6 else jnp.dtype(self.one(DTYPES))
            flat[place] = jax.ShapeDtypeStruct(shape, dtype)
        else:
            flat[place] = self.any_leaf()
        return treedef.unflatten(flat)

    def perhaps_changed(self, tree, probability=0.5):
        return self.changed(tree) if self.happens(probability) else tree

    def regularizer(self):
        """A regularizer with any settings; raises what its class raises."""
        cls = self.one(CLASSES)
        pools = {"groups": AXES, "group_weight": WEIGHTS + NUMBERS, "split": COUNTS, "gram": (True, False, 1, None)}
        pools |= {"levels": ((-1.0, 1.0), (0.0,), (), (1.0, "a"), None, 3, (float("nan"),), [1, 2], (1, 1))}
        pools |= {"function": (optax.projections.projection_non_negative, None, 3, "l1")}
        pools |= {"is_convex": (True, False, None, 1)}
        names = [name for name in CLASSES[cls] if self.happens(0.6) or name in ("function", "levels", "omega")]
        return cls(**{name: self.one(pools.get(name, NUMBERS)) for name in names})

    def solver(self):
        cls = self.one(SOLVERS)
        pools = {
            "max_steps": COUNTS,
            "stepsize": ("block", "leaf", "row", None, 1),
            "accelerate": (True, False, 1, None),
        }
        return cls(**{name: self.one(pools.get(name, NUMBERS)) for name in SOLVERS[cls] if self.happens(0.5)})

    def spec(self):
        """A value for the argument `regularizer`: a regularizer, patterns, or a tree."""

        def value():
            return self.one(OTHERS) if self.happens(0.15) else self.one(GOOD_REGULARIZERS)

        kind = self.numbers.randrange(5)
        if kind <= 1:
            return self.one(GOOD_REGULARIZERS)
        if kind == 2:
            return {self.one(PATTERNS): value() for _ in range(self.numbers.choice((0, 1, 1, 2, 3)))}
        if kind == 3:
            return self.tree(value)
        return self.one((ramda_jax.GroupLasso, ramda_jax.GroupLasso().prox, {1: ramda_jax.L1()}, {"a": 3}, 3, "l1"))

    def solver_spec(self):
        kind = self.numbers.randrange(4)
        if kind <= 1:
            return self.one(GOOD_SOLVERS)
        if kind == 2:
            return {
                self.one(PATTERNS): self.one((*GOOD_SOLVERS, *OTHERS[:4])) for _ in range(self.numbers.randrange(3))
            }
        return self.one((ramda_jax.SecularNewton, "newton", 3, ramda_jax.L1(), [None], {"a": 3}))

    def restarts(self):
        return self.one(((), (2,), (1, 3), (3, 1), (0,), (-1,), (1.5,), (2**31,), None, 3, "ab", [2], {1}, (True,)))

    def method(self, regularizer=None, strength=0.1, **settings):
        """A method with good settings."""
        return self.one(FACTORIES)(regularizer, strength, **settings)

    def taken(self, attempts=8):
        """(regularizer, parameters, method, state's shapes) that fit together; None if none was found."""
        for _ in range(attempts):
            params, regularizer = self.params(), self.one(GOOD_REGULARIZERS)
            try:
                optimizer = self.method(regularizer, self.one(STRENGTHS))
                return regularizer, params, optimizer, shapes_of(optimizer.init, params)
            except ValueError:
                continue
        return None


def is_array(leaf):
    return isinstance(leaf, (jax.ShapeDtypeStruct, np.ndarray, jax.Array)) and leaf.dtype.kind not in "USO"


def shapes_of(function, *trees, **settings):
    """The shapes of what the function returns. Arrays in the trees are traced, other leaves are passed unchanged."""
    flat, treedef = jax.tree.flatten(trees)
    places = [number for number, leaf in enumerate(flat) if is_array(leaf)]

    def call(arrays):
        whole = list(flat)
        for place, array in zip(places, arrays, strict=True):
            whole[place] = array
        return function(*treedef.unflatten(whole), **settings)

    return jax.eval_shape(call, [flat[place] for place in places])
