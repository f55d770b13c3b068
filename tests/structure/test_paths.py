"""Names of leaves: the same whatever tree holds them."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx

from ramda_jax.structure import named_leaves, path_name
from ramda_jax.structure.paths import hidden_names


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Linear:
    """A layer as Equinox has them: a dataclass that is a pytree."""

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
        # An attribute `value` at the end is dropped, wherever it is; a key of that name is a layer's or a leaf's own.
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
    assert hidden_names(tree) == (["a", "e/0"], ["c/d"])
    assert hidden_names({"b": 1.0}) == ([], [])
