"""Many small leaves as one array: the same numbers, and a single kernel for leaves of equal shapes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from ramda_jax.xla import many_leaves
from ramda_jax.xla.many_leaves import MANY, SMALL, map_entries, unstack
from tests.tiny import array


def leaves(count, seed=0):
    """Leaves of several shapes and dtypes in turn: small ones, also a scalar and an empty leaf, and a large one."""
    rng = np.random.default_rng(seed)
    kinds = [
        ((3, 4), "f4"),
        ((), "f4"),
        ((2, 3, 5), "f4"),
        ((0, 3), "f4"),
        ((3, 4), "f2"),
        ((SMALL,), "f4"),
        ((4, 3), "f4"),
    ]
    return [array(rng.random(shape), dtype) for _, (shape, dtype) in zip(range(count), 100 * kinds, strict=False)]


@pytest.mark.parametrize("count", [MANY // 2, 6 * MANY])
def test_entries_of_many_leaves_are_mapped_as_one_by_one(count):
    tree = {"a": leaves(count), "b": (jnp.full((3, 4), jnp.nan), jnp.zeros(2))}
    found = jax.jit(lambda tree, scalar: map_entries(jnp.sqrt, tree, scalar))(tree, jnp.asarray(3.0))
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(found), strict=True):
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        np.testing.assert_array_equal(y, jax.jit(jnp.sqrt)(x))


@pytest.mark.parametrize("scalar", [0.0, -2.5, 1e30, np.inf, -np.inf, np.nan, 7, -7])
def test_no_scalar_moves_a_leaf_to_another_place(scalar):
    rows = jnp.arange(20.0).reshape(5, 4)
    found = jax.jit(lambda x, scalar: unstack((x, x[:, 0]), 5, scalar))(rows, jnp.asarray(scalar))
    for row, (whole, first) in zip(rows, found, strict=True):
        np.testing.assert_array_equal(whole, row)
        assert first == row[0]
    tree = [jnp.full((3,), float(number)) for number in range(2 * MANY)]
    mapped = jax.jit(lambda tree, scalar: map_entries(jnp.negative, tree, scalar))(tree, jnp.asarray(scalar))
    np.testing.assert_array_equal(jnp.stack(mapped), -jnp.stack(tree))


@pytest.mark.slow
def test_a_nan_in_one_leaf_stays_there():
    params = {f"{number:02}": jnp.full((4, 3), 1.0 + number) for number in range(2 * MANY)}
    gradients = jax.tree.map(jnp.ones_like, params) | {"05": jnp.full((4, 3), jnp.nan)}
    optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), 0.1)
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    assert [name for name, update in updates.items() if np.isnan(update).any()] == ["05"]


@pytest.mark.slow
def test_an_ensemble_under_vmap_is_its_members():
    rng = np.random.default_rng(0)
    shapes = [(4, 3) if number % 2 else (5,) for number in range(2 * MANY)]
    params, gradients = ([array(rng.normal(size=(3, *shape)), jnp.float32) for shape in shapes] for _ in range(2))
    optimizer = ramda_jax.ramda(jnp.asarray(0.1), ramda_jax.GroupLasso(), 0.2)

    def step(params, gradients):
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    together = jax.jit(jax.vmap(step))(params, gradients)
    for member in range(3):
        alone = jax.jit(step)([leaf[member] for leaf in params], [leaf[member] for leaf in gradients])
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(found[member], expected, rtol=1e-5, atol=1e-7)


def number_of_kernels(count):
    """The number of different fusions in a compiled step of RAMDA for `count` leaves of two shapes."""
    params = {f"{number:03}": jnp.ones((4, 3) if number % 2 else (5,)) for number in range(count)}
    optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(), 0.1)
    text = jax.jit(optimizer.update).lower(params, optimizer.init(params), params).compile().as_text()
    assert text is not None
    fusions = [part for part in text.split("\n\n") if part.lstrip().startswith("%fused")]
    return len(set(map(without_names, fusions)))


def without_names(computation):
    """A computation of a compiled program, with each name replaced by the number of its first appearance."""
    names = {}

    def number(name):
        return names.setdefault(name[0], f"v{len(names)}")

    return re.sub(r"%?\b[a-z_-]+[\w.-]*\.\d+\b", number, re.sub(r", metadata=\{[^}]*\}", "", computation))


@pytest.mark.slow
def test_more_leaves_of_the_same_shapes_are_no_more_kernels(monkeypatch):
    few, many = number_of_kernels(2 * MANY), number_of_kernels(6 * MANY)
    assert many <= few + 4  # Without stacking there are two more for each pair of leaves.
    # Check that `number_of_kernels` can see a difference: slices at constant offsets need more kernels.
    monkeypatch.setattr(many_leaves, "_indices", lambda length, scalar: list(range(length)))
    assert number_of_kernels(6 * MANY) > many + 2 * MANY
