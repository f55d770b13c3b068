"""Supports and their history."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import GroupLasso, Null
from ramda_jax.metrics import StructureHistory, changed_groups, support


def test_support_holds_one_boolean_for_each_group_of_regularized_leaves():
    params = {
        "dense": {"kernel": jnp.array([[0.0, 0.0], [0.0, 1.0]]), "bias": jnp.ones(2)},
        "other": {"kernel": jnp.ones((2, 2))},
        "plain": {"kernel": jnp.ones((2, 2))},
    }
    spec = {"dense/kernel": GroupLasso(), "other": None, "plain": Null()}
    found = support(spec, params)
    assert list(found) == ["dense/kernel"]
    np.testing.assert_array_equal(found["dense/kernel"], [[False], [True]])
    assert found["dense/kernel"].dtype == bool
    jitted = jax.jit(lambda p: support(spec, p))(params)
    np.testing.assert_array_equal(jitted["dense/kernel"], found["dense/kernel"])


def test_changed_groups_counts_both_directions_over_all_leaves():
    before = {"a": np.array([True, False, True]), "b": np.array([[True], [True]])}
    after = {"a": np.array([False, True, True]), "b": np.array([[True], [False]])}
    assert int(changed_groups(before, after)) == 3
    assert int(changed_groups(before, before)) == 0
    assert int(changed_groups({}, {})) == 0
    assert changed_groups(before, after).dtype == jnp.int32


def test_changed_groups_refuses_supports_of_other_leaves():
    with pytest.raises(ValueError, match=r"must be of the same leaves, got \['a'\] and \['b'\]; use one regularizer"):
        changed_groups({"a": np.array([True])}, {"b": np.array([True])})


def naive_history(steps, supports):
    """The step of each group's last change, and the number of changes at each step, by comparing adjacent supports."""
    changed_at = np.full(supports.shape[1:], steps[0])
    changes = [0]
    for k in range(1, len(steps)):
        differs = supports[k] != supports[k - 1]
        changed_at[differs] = steps[k]
        changes.append(int(differs.sum()))
    return changed_at, changes


@pytest.mark.parametrize("seed", range(4))
def test_history_is_that_of_a_naive_loop(seed):
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.integers(1, 5, size=12)).tolist()
    supports = rng.uniform(size=(12, 9)) < 0.5
    for k in range(1, 12):  # most groups stay
        supports[k] = np.where(rng.uniform(size=9) < 0.12, supports[k], supports[k - 1])
    changed_at, changes = naive_history(steps, supports)
    history = StructureHistory()
    for step, alive in zip(steps, supports, strict=True):
        split = {"a": jnp.asarray(alive[:4].reshape(4, 1)), "b": jnp.asarray(alive[4:])}
        assert history.add(step, split) == changes[len(history.steps) - 1]
    assert history.steps == steps
    assert history.changes == changes
    assert history.last_change == changed_at.max()
    for duration in (0, 1, 3, 10, 100):
        assert history.stable_share(duration) == np.mean(changed_at <= steps[-1] - duration)
        assert history.has_settled(duration) == (steps[-1] - changed_at.max() >= duration)


def test_history_has_settled_only_after_the_whole_time():
    history = StructureHistory()
    alive = {"kernel": np.array([True, True])}
    pruned = {"kernel": np.array([True, False])}
    assert history.add(10, alive) == 0
    assert history.last_change == 10
    assert not history.has_settled(1)
    assert history.add(20, pruned) == 1
    assert history.last_change == 20
    assert history.stable_share(0) == 1.0
    assert history.stable_share(1) == 0.5
    assert history.add(25, pruned) == 0
    assert history.last_change == 20
    assert history.has_settled(5)
    assert not history.has_settled(6)
    assert history.add(26, alive) == 1  # a revived group counts too
    assert not history.has_settled(1)


def test_history_keeps_its_own_copy():
    history = StructureHistory()
    alive = {"kernel": np.array([True, True])}
    history.add(0, alive)
    alive = {"kernel": np.array([False, True])}
    assert history.add(1, alive) == 1


def test_history_of_nothing_regularized_is_settled():
    history = StructureHistory()
    history.add(0, {})
    history.add(7, {})
    assert history.last_change == 0
    assert history.stable_share(3) == 1.0
    assert history.has_settled(7)


def test_history_refuses_steps_that_do_not_grow_and_other_leaves():
    history = StructureHistory()
    history.add(5, {"a": np.array([True])})
    for step in (5, 4):
        with pytest.raises(ValueError, match=rf"`step` must grow, got {step} after 5; add supports in order"):
            history.add(step, {"a": np.array([True])})
    with pytest.raises(ValueError, match="must be of the same leaves"):
        history.add(6, {"b": np.array([True])})
    # Refused supports leave the history unchanged.
    assert history.steps == [5]
    assert history.add(6, {"a": np.array([False])}) == 1


def test_empty_history_says_so():
    history = StructureHistory()
    assert not history.has_settled(0)
    for read in (lambda: history.last_change, lambda: history.stable_share(1)):
        with pytest.raises(
            ValueError, match=r"The history must have a support, got none yet; call `add\(step, support\)` first"
        ):
            read()
