"""Jaccard indices of supports, with units in any order."""

import itertools

import numpy as np
import pytest

from ramda_jax.metrics import overlap


def test_overlap_is_that_of_sets():
    first = {"a": np.array([True, True, False, False]), "b": np.array([[True], [False]])}
    second = {"a": np.array([True, False, True, False]), "b": np.array([[True], [False]])}
    assert overlap(first, second) == (0.5, {"a": 1 / 3, "b": 1.0})
    assert overlap(first, second, of="zero") == (0.5, {"a": 1 / 3, "b": 1.0})
    empty = {"a": np.zeros(3, bool)}
    assert overlap(empty, empty).total == 1.0 and overlap(empty, empty, of="zero").leaves == {"a": 1.0}


def test_units_are_put_into_the_best_of_all_orders():
    rng = np.random.default_rng(0)
    for _ in range(5):
        first, second = ({"in": rng.random((3, 5)) < 0.5, "out": rng.random((5, 2)) < 0.5} for _ in range(2))
        most = max(
            np.sum(first["in"] & second["in"][:, list(order)]) + np.sum(first["out"] & second["out"][list(order)])
            for order in itertools.permutations(range(5))
        )
        size = sum(np.sum(each[path]) for each in (first, second) for path in first)
        assert overlap(first, second, units=[{"in": 1, "out": 0}]).total == pytest.approx(most / (size - most))


def test_a_renumbered_network_is_the_same():
    rng = np.random.default_rng(1)
    first = {"in": rng.random((4, 7)) < 0.5, "out": rng.random((7, 3)) < 0.5}
    order = rng.permutation(7)
    second = {"in": first["in"][:, order], "out": first["out"][order]}
    assert overlap(first, second).total < 1
    assert overlap(first, second, units=[{"in": 1, "out": 0}]).total == 1


def test_overlap_refuses_what_does_not_belong_together():
    support = {"a": np.ones((2, 3), bool), "b": np.ones((3, 1), bool)}
    with pytest.raises(ValueError, match="must be of the same leaves"):
        overlap(support, {"a": support["a"]})
    with pytest.raises(ValueError, match=r'`of` must be "alive" or "zero", got \'dead\''):
        overlap(support, support, of="dead")
    with pytest.raises(ValueError, match="must name axes of the supports, got axis 2 of 'a'"):
        overlap(support, support, units=[{"a": 2}])
    with pytest.raises(ValueError, match="must name axes of the supports, got axis 0 of 'c'"):
        overlap(support, support, units=[{"c": 0}])
    with pytest.raises(ValueError, match="must have one length"):
        overlap(support, support, units=[{"a": 0, "b": 0}])
