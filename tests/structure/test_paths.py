"""Names of leaves: the same in every kind of tree."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx

from ramda_jax.structure import named_leaves, path_name
from ramda_jax.structure.paths import hidden_paths


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Linear:
    """A layer as in Equinox: a dataclass that is a pytree."""

    weight: jax.Array
    bias: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Box:
    value: jax.Array


def names(tree):
    return [name for name, _ in named_leaves(tree)]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (jnp.ones(2), [""]),
        ({"a": {"kernel": 1.0, "bias": 2.0}, "b": 3.0}, ["a/bias", "a/kernel", "b"]),
        ([1.0, (2.0, 3.0)], ["0", "1/0", "1/1"]),
        ({"layers": [Linear(1.0, 2.0), Linear(3.0)]}, ["layers/0/weight", "layers/0/bias", "layers/1/weight"]),
        ({"a": None, "b": 1.0, "c": optax.MaskedNode()}, ["b"]),
        # A last attribute `value` is dropped. A key `value` is kept, because it names a layer or a leaf.
        ({"kernel": Box(1.0)}, ["kernel"]),
        (Box(1.0), [""]),
        ({"attention": {"value": {"kernel": 1.0}}}, ["attention/value/kernel"]),
        ({"value": 1.0}, ["value"]),
        ({3: 1.0}, ["3"]),
        ({}, []),
    ],
)
def test_names_are_joined_keys(tree, expected):
    assert names(tree) == expected


def test_path_name_is_the_name_of_a_key_path():
    ((path, _),) = jax.tree_util.tree_flatten_with_path({"a": [Box(1.0)]})[0]
    assert path_name(path) == "a/0"


class Network(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)])
        self.norm = nnx.BatchNorm(2, rngs=rngs)


def test_nnx_names_are_the_same_before_and_after_as_pure():
    state = nnx.state(Network(nnx.Rngs(0)), nnx.Param)
    expected = ["layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel", "norm/bias", "norm/scale"]
    assert names(state) == expected
    assert names(nnx.as_pure(state)) == expected
    assert names(nnx.to_pure_dict(state)) == expected


def test_linen_names_are_the_same_with_and_without_boxes():
    boxed = linen.Dense(4, kernel_init=linen.with_partitioning(linen.initializers.ones, ("in", "out")))
    params = boxed.init(jax.random.key(0), jnp.ones((1, 3)))["params"]
    assert isinstance(params["kernel"], linen.Partitioned)
    assert names(params) == names(linen.meta.unbox(params)) == ["bias", "kernel"]


def test_hidden_names_are_those_of_none_and_masked_nodes():
    tree = {"a": None, "b": 1.0, "c": {"d": optax.MaskedNode()}, "e": [None, 2.0]}
    assert [list(map(path_name, paths)) for paths in hidden_paths(tree)] == [["a", "e/0"], ["c/d"]]
    assert hidden_paths({"b": 1.0}) == ([], [])


@jax.tree_util.register_pytree_with_keys_class
class Pairs:
    """A node with keys of any type in any order, like a dictionary with keys of different types."""

    def __init__(self, *pairs):
        self.pairs = pairs

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.DictKey(key), value) for key, value in self.pairs], tuple(key for key, _ in self.pairs)

    @classmethod
    def tree_unflatten(cls, keys, values):
        return cls(*zip(keys, values, strict=True))


TWINS = [
    ({"a": {"b": 1.0}, "a/b": 2.0}, r"\['a'\]\['b'\] and \['a/b'\] are both named 'a/b'; rename a key"),
    ({"x": [1.0], "x/0": 2.0}, r"\['x'\]\[0\] and \['x/0'\] are both named 'x/0'"),
    ({"a": {"b/c": 1.0}, "a/b": {"c": 2.0}}, r"\['a'\]\['b/c'\] and \['a/b'\]\['c'\]"),
    ({"a": {"": {"b": 1.0}}, "a/": {"b": 2.0}}, r"\['a'\]\[''\]\['b'\] and \['a/'\]\['b'\]"),
    ({"": {"a": 1.0}, "/a": 2.0}, r"\[''\]\['a'\] and \['/a'\]"),
    (Pairs((0, 1.0), ("0", 2.0)), r"\[0\] and \['0'\] are both named '0'"),
    (Pairs((True, 1.0), ("True", 2.0)), r"\[True\] and \['True'\]"),
    (Pairs(("w", Box(1.0)), ("w", 2.0)), r"\['w'\].value and \['w'\] are both named 'w'"),
    (Pairs(("w", Linear(1.0)), ("w/weight", 2.0)), r"\['w'\].weight and \['w/weight'\]"),
    ({"": 1.0, "''": 2.0}, r"\[''\] and \[\"''\"\]"),
]


@pytest.mark.parametrize(("tree", "message"), TWINS)
def test_two_leaves_of_one_name_raise_and_both_paths_are_named(tree, message):
    with pytest.raises(ValueError, match=f"paths of leaves must be different, but {message}"):
        named_leaves(tree)


def test_a_leaf_under_the_empty_key_is_no_bare_array():
    assert names({"": 1.0}) == ["''"]
    assert names({"": 1.0, "a": {"": 2.0}}) == ["''", "a/"]
