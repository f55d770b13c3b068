"""`StructureHistory`: the input that it refuses, the records that it keeps, and its files."""

import re
import sys

import numpy as np
import pytest

from ramda_jax.metrics import StructureHistory, changed_groups


def fed(steps=(1, 2, 3), **settings):
    history = StructureHistory(**settings)
    rng = np.random.default_rng(0)
    for step in steps:
        history.add(step, {"a": rng.random((4, 1)) < 0.5, "b/c": rng.random(3) < 0.5})
    return history


def test_last_changes_are_those_of_each_leaf():
    history = StructureHistory()
    for step, (kernel, bias) in enumerate([(1, 1), (0, 1), (0, 0), (0, 0)]):
        history.add(step, {"kernel": np.array([True, bool(kernel)]), "bias": np.array([bool(bias)])})
    assert history.last_changes == {"kernel": 1, "bias": 2} and history.last_change == 2


def snapshot(history):
    reads = (history.last_change, *(history.stable_share(d) for d in (0, 1, 2)))
    return list(history.steps), list(history.changes), reads


@pytest.mark.parametrize(
    ("step", "support", "error", "message"),
    [
        (9, {"a": np.ones(4, bool), "b/c": np.ones(3, bool)}, ValueError, r"\(4, 1\) and \(4,\) at 'a'"),
        (9, {"a": np.ones((1, 1), bool), "b/c": np.ones(3, bool)}, ValueError, r"\(4, 1\) and \(1, 1\) at 'a'"),
        (9, {"a": np.ones((4, 1), bool), "b/c": np.ones((), bool)}, ValueError, r"\(3,\) and \(\) at 'b/c'"),
        (9, {"a": np.ones((4, 1), bool)}, ValueError, "of the same leaves"),
        (9, {"a": np.ones((4, 1)), "b/c": np.ones(3, bool)}, TypeError, "boolean arrays by path, got float64 at 'a'"),
        (9, {0: np.ones((4, 1), bool), "b/c": np.ones(3, bool)}, TypeError, "by path, got bool at 0"),
        (3, {"a": np.ones((4, 1), bool), "b/c": np.ones(3, bool)}, ValueError, "must grow, got 3 after 3"),
        (9.5, {"a": np.ones((4, 1), bool), "b/c": np.ones(3, bool)}, TypeError, "must be a whole number, got 9.5"),
        (np.nan, {"a": np.ones((4, 1), bool), "b/c": np.ones(3, bool)}, TypeError, "must be a whole number, got nan"),
        (2**63, {"a": np.ones((4, 1), bool), "b/c": np.ones(3, bool)}, ValueError, "of 64 bits"),
    ],
)
def test_history_refuses_before_anything_changes(step, support, error, message):
    history = fed()
    before = snapshot(history)
    with pytest.raises(error, match=message):
        history.add(step, support)
    assert snapshot(history) == before
    # The next support is compared with the last accepted support.
    same = {"a": history._support["a"].copy(), "b/c": history._support["b/c"].copy()}
    assert history.add(4, same) == 0


def test_history_copies_arrays_that_are_written_to_later():
    history = StructureHistory()
    alive = {"kernel": np.array([True, True])}
    history.add(0, alive)
    alive["kernel"][0] = False
    assert history.add(1, alive) == 1
    alive["kernel"][0] = True
    assert history.add(2, alive) == 1


def test_history_keeps_few_records_of_many_steps_and_loses_no_change():
    steps = range(10, 5010)
    whole, few = fed(steps), fed(steps, max_records=100)
    assert len(few.steps) == len(few.changes) <= 100
    assert (few.steps[0], few.steps[-1], few.changes[0]) == (10, 5009, 0)
    assert sum(few.changes) == sum(whole.changes)
    # Each entry of `changes` counts the changes since the entry before it.
    total = dict(zip(whole.steps, np.cumsum(whole.changes), strict=True))
    assert np.cumsum(few.changes).tolist() == [total[step] for step in few.steps]
    assert few.steps == sorted(few.steps)
    assert (few.last_change, few.stable_share(3)) == (whole.last_change, whole.stable_share(3))


def test_history_is_of_bounded_size():
    alive = {"kernel": np.zeros(1000, bool)}
    history = StructureHistory(max_records=50)
    for step in range(1000):
        history.add(step, alive)
    assert history._support is not None
    arrays = [*history._changed_at.values(), *history._support.values()]
    assert sum(array.nbytes for array in arrays) == 9 * 1000
    assert sys.getsizeof(history.steps) + sys.getsizeof(history.changes) < 3000
    with pytest.raises(ValueError, match="`max_records` must be at least 3"):
        StructureHistory(max_records=2)


@pytest.mark.parametrize("duration", [-1, np.nan])
def test_history_refuses_durations_that_are_none(duration):
    for read in (fed().has_settled, fed().stable_share):
        with pytest.raises(ValueError, match="`duration` must be a number of steps of at least 0"):
            read(duration)


@pytest.mark.parametrize("steps", [(), (1, 2, 3), range(30)])
def test_history_goes_on_from_a_file_as_if_uninterrupted(tmp_path, steps):
    history, file = fed(steps, max_records=20), tmp_path / "history"
    history.save(file)
    history.save(file)  # overwrites the file
    assert [file.name for file in tmp_path.iterdir()] == ["history"]
    again = StructureHistory.load(file)
    for watched in (history, again):
        watched.add(100, {"a": np.ones((4, 1), bool), "b/c": np.zeros(3, bool)})
        watched.add(105, {"a": np.ones((4, 1), bool), "b/c": np.ones(3, bool)})
    assert snapshot(again) == snapshot(history)
    assert again._max_records == 20


def test_history_refuses_a_damaged_file(tmp_path):
    fed().save(tmp_path / "history")
    whole = (tmp_path / "history").read_bytes()
    refusal = r"must be what `StructureHistory.save` has written"
    for content in (b"", b"no archive", whole[: len(whole) // 2], whole[:-1]):
        (tmp_path / "history").write_bytes(content)
        with pytest.raises(ValueError, match=refusal):
            StructureHistory.load(tmp_path / "history")
    # Damage anywhere is refused, unless the bytes hold nothing of the history (a date, for example).
    num_refused = 0
    for place in range(0, len(whole), 3):
        (tmp_path / "history").write_bytes(whole[:place] + b"xx" + whole[place + 2 :])
        try:
            assert snapshot(StructureHistory.load(tmp_path / "history")) == snapshot(fed())
        except ValueError as error:
            assert re.search(refusal, str(error))
            num_refused += 1
    assert num_refused > len(whole) / 6
    with pytest.raises(FileNotFoundError):
        StructureHistory.load(tmp_path / "nothing")


def test_changed_groups_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"same shapes, got \(2,\) and \(1,\) at 'a'; use one regularizer"):
        changed_groups({"a": np.ones(2, bool)}, {"a": np.ones(1, bool)})
