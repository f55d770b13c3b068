"""A compact model on disk is complete or absent, and files that are read are not trusted."""

import json
import os
import random
import shutil
import threading
import tracemalloc
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from ramda_jax.compaction import CompactionError, LeafPlan, Plan, WidthPlan, load_compact, save_compact
from tests.compaction.hostile import ARRAYS, NEXT, PLAN, forge, outcome
from tests.kills import Disk, Killed, changes_of

OLD, NEW = 1, 2


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Skips waiting for the disk, because `Disk` simulates the loss of data that was not synced."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def model(number):
    """(plan, variables), in two sizes of which neither fits the other."""
    size = 3 + number
    leaves = {
        "dense/kernel": LeafPlan((8, size), (tuple(range(number + 1)), None)),
        "dense/bias": LeafPlan((size,), (None,)),
    }
    kept = tuple(range(number + 1))
    plan = Plan(leaves, (WidthPlan("d0", 8, ("dense/kernel[0]",), kept, (0,), ""),), {"x[1]": (0, 3)}, 1, 0.5)
    variables = {
        "dense": {
            "kernel": np.full((number + 1, size), number, np.float32),
            "bias": np.arange(size, dtype=np.float32) + number,
        }
    }
    return plan, variables


#: A plan in the old format, in which a width was called an id.
STORED = (
    '{"format": 1, "leaves": {"kernel": {"shape": [3, 2], "kept": [[0, 2], null]}}, "ids": [{"name": "d0", "size": 3, '
    '"members": ["kernel[0]"], "kept": [0, 2], "padding": [2], "reason": ""}], "unread_inputs": {"x[1]": [1]}, '
    '"round_to": 2, "threshold": 0.0}'
)


def test_a_plan_of_format_1_is_read_and_written_as_it_was():
    plan = Plan.from_json(STORED)
    assert plan.widths == (WidthPlan("d0", 3, ("kernel[0]",), (0, 2), (2,), ""),)
    assert plan.to_json() == STORED


def is_model(number, folder):
    plan, variables = model(number)
    found_plan, found = load_compact(folder, like=variables)
    return found_plan == plan and all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(variables)))


def which(folder):
    for number in (OLD, NEW):
        try:
            if is_model(number, folder):
                return number
        except CompactionError as error:
            if "`like` must" not in str(error):
                raise
    raise AssertionError("neither model")


@pytest.mark.parametrize("full", [False, True], ids=["killed", "disk full"])
@pytest.mark.parametrize("over_old", [True, False], ids=["over an old one", "the first"])
def test_save_leaves_the_old_or_the_new_model_wherever_it_fails(tmp_path, over_old, full):
    # Changes of the parent folder do not count, because saving may create the folder itself.
    count = changes_of(tmp_path / "count", lambda: save_compact(tmp_path / "count", *model(NEW)))
    assert count >= 9
    seen = set()
    for fail_at in range(count + 2):
        folder = tmp_path / f"fails-{fail_at}" / "model"
        if over_old:
            save_compact(folder, *model(OLD))
        with Disk(folder, fail_at, full).watched() as disk:
            try:
                save_compact(folder, *model(NEW))
            except CompactionError as error:
                assert full and "No space left" in str(error) and "make room" in str(error)
            except Killed:
                assert not full
        try:
            found = which(folder)
        except CompactionError as error:
            assert not over_old and "cannot be read" in str(error)
            found = None
        seen.add(found)
        # The remains do not disturb a later save, even if that save fails too.
        with Disk(folder, 5).watched():
            try:
                save_compact(folder, *model(NEW))
            except Killed:
                assert (found is None) or which(folder) == found
        save_compact(folder, *model(OLD))
        assert which(folder) == OLD
        assert sorted(os.listdir(folder)) == [PLAN, ARRAYS]
        if disk.count <= fail_at:
            assert found == NEW
    assert seen == {OLD if over_old else None, NEW}


def test_a_killed_save_over_a_killed_save_keeps_the_last_whole_model(tmp_path):
    count = changes_of(tmp_path / "count", lambda: save_compact(tmp_path / "count", *model(NEW)))
    for first in range(count):
        for second in range(count + 1):
            folder = tmp_path / f"{first}-{second}"
            save_compact(folder, *model(OLD))
            for fail_at, number in ((first, NEW), (second, OLD)):
                with Disk(folder, fail_at).watched():
                    try:
                        save_compact(folder, *model(number))
                    except Killed:
                        pass
                which(folder)


def test_who_loads_while_others_save_finds_one_whole_model(tmp_path):
    save_compact(tmp_path, *model(OLD))
    over = threading.Event()
    failures = []

    def save_again(number):
        try:
            while not over.is_set():
                save_compact(tmp_path, *model(number))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=save_again, args=(number,)) for number in (OLD, NEW)]
    for thread in threads:
        thread.start()
    try:
        seen = {len(load_compact(tmp_path)[1]["dense/bias"]) for _ in range(100)}
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failures and seen <= {4, 5}
    assert which(tmp_path) in (OLD, NEW)


DTYPES = (
    "bool int8 uint8 int16 uint16 int32 uint32 float16 bfloat16 float32 complex64 int4 uint4 float8_e4m3fn float8_e5m2 "
    "float8_e4m3fnuz float8_e5m2fnuz float8_e4m3b11fnuz float8_e4m3 float8_e3m4 float8_e8m0fnu"
).split()


def save_leaf(folder, leaf, path="leaf"):
    shape = jnp.shape(leaf)
    save_compact(folder, Plan({path: LeafPlan(shape, (None,) * len(shape))}, (), {}), {path: leaf})
    return load_compact(folder)[1][path]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_every_dtype_of_jax_comes_back_bit_by_bit(tmp_path, dtype, shape):
    leaf = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape).astype(jnp.dtype(dtype))
    found = save_leaf(tmp_path, leaf)
    assert isinstance(found, jax.Array)
    assert (found.dtype, found.shape) == (leaf.dtype, leaf.shape)
    assert np.asarray(found).tobytes() == leaf.tobytes()


def test_arrays_in_any_layout_and_byte_order_come_back(tmp_path):
    leaf = np.arange(6, dtype=np.float32).reshape(2, 3)
    for array in (leaf.T, leaf[:, ::2], leaf.astype(">f4")):
        assert np.array_equal(save_leaf(tmp_path, array), array)


def test_numbers_of_64_bits_are_never_rounded_in_silence(tmp_path):
    leaf = np.array([1 + 2.0**-40])
    with pytest.raises(CompactionError, match=r"'leaf' was saved as float64.*enable_x64"):
        save_leaf(tmp_path, leaf)
    with jax.enable_x64(True):
        assert np.array_equal(load_compact(tmp_path)[1]["leaf"], leaf)


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("count", [None, 3])
def test_keys_of_every_kind_come_back_as_keys(tmp_path, kind, count):
    key = jax.random.key(7, impl=kind)
    key = key if count is None else jax.random.wrap_key_data(jnp.tile(jax.random.key_data(key), (count, 1)), impl=kind)
    found = save_leaf(tmp_path, key)
    assert (found.dtype, found.shape) == (key.dtype, key.shape)
    assert np.array_equal(jax.random.key_data(found), jax.random.key_data(key))
    with pytest.raises(CompactionError, match="`like` must have PRNG keys where they were saved"):
        load_compact(tmp_path, like={"leaf": jnp.zeros(key.shape)})


@pytest.mark.parametrize("leaf", [np.array("text"), np.array([None]), np.zeros(2, "M8[s]"), np.longdouble(1)])
def test_what_is_no_number_of_jax_is_refused_by_name(tmp_path, leaf):
    if leaf.dtype == np.float64:  # on platforms where long double is double
        pytest.skip("this platform has no wider float")
    with pytest.raises(CompactionError, match="'leaf' is of"):
        save_leaf(tmp_path / "new", leaf)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "path",
    ["a/b", "../../up", "nul\0", "new\nline", "x" * 100_000, "é漢🙂", "__metadata", " ", '"', "C:\\x", "plan"],
)
def test_strange_paths_come_back(tmp_path, path):
    assert save_leaf(tmp_path / "one", np.float32(3), path) == 3
    assert os.listdir(tmp_path) == ["one"] and sorted(os.listdir(tmp_path / "one")) == [PLAN, ARRAYS]


def test_a_bare_array_comes_back(tmp_path):
    save_compact(tmp_path, Plan({"": LeafPlan((), ())}, (), {}), np.float32(3))
    assert float(load_compact(tmp_path)[1][""]) == 3


def test_paths_that_differ_in_case_alone_are_two(tmp_path):
    plan = Plan({"a": LeafPlan((), ()), "A": LeafPlan((), ())}, (), {})
    save_compact(tmp_path, plan, {"a": np.float32(1), "A": np.float32(2)})
    assert {path: float(leaf) for path, leaf in load_compact(tmp_path)[1].items()} == {"a": 1, "A": 2}


@pytest.mark.parametrize(("path", "message"), [("__metadata__", "a word of safetensors"), ("a\ud800", "half a char")])
def test_paths_that_no_file_can_hold_are_refused(tmp_path, path, message):
    with pytest.raises(CompactionError, match=message):
        save_leaf(tmp_path / "new", np.float32(0), path)
    assert not (tmp_path / "new").exists()


def test_variables_that_lack_a_leaf_or_a_plan_that_is_none_are_refused(tmp_path):
    plan, variables = model(OLD)
    del variables["dense"]["bias"]
    with pytest.raises(CompactionError, match=r"lack \['dense/bias'\]"):
        save_compact(tmp_path, plan, variables)
    for kept in ((2, 1), (0, 0), (0, 9), (np.int64(1),)):
        with pytest.raises(CompactionError, match="The plan must be one that can be read again"):
            save_compact(tmp_path, Plan({"a": LeafPlan((4,), (kept,))}, (), {}), {"a": np.zeros(len(kept))})
    assert not os.listdir(tmp_path)


def test_links_are_replaced_and_not_written_through(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (ARRAYS, PLAN, NEXT):
        (tmp_path / name).write_text("precious")
    (folder / ARRAYS).symlink_to(tmp_path / ARRAYS)
    os.link(tmp_path / PLAN, folder / PLAN)
    (folder / NEXT).symlink_to(tmp_path / NEXT)
    save_compact(folder, *model(OLD))
    assert which(folder) == OLD
    assert {(tmp_path / name).read_text() for name in (ARRAYS, PLAN, NEXT)} == {"precious"}
    assert not (folder / ARRAYS).is_symlink()
    # A link to a model can be read.
    (tmp_path / "link").symlink_to(folder)
    assert which(tmp_path / "link") == OLD


def test_folders_that_cannot_be_written_are_said(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "taken" / ARRAYS).mkdir(parents=True)
    for name in ("file", "file/below", "dangling", "taken", "nul\0", "x" * 300):
        with pytest.raises(CompactionError, match="must go to a folder that can be written"):
            save_compact(tmp_path / name, *model(OLD))
    assert (tmp_path / "file").read_text() == "precious"
    assert set(os.listdir(tmp_path / "taken")) <= {ARRAYS, NEXT}


def test_like_of_other_shapes_is_refused(tmp_path):
    plan, variables = model(OLD)
    save_compact(tmp_path, plan, variables)
    whole = {"dense": {"kernel": jnp.zeros((8, 4)), "bias": jnp.zeros(4)}}
    assert jax.tree.map(jnp.shape, load_compact(tmp_path, like=whole)[1]) == jax.tree.map(jnp.shape, variables)
    whole["dense"]["kernel"] = jnp.zeros((7, 4))
    with pytest.raises(CompactionError, match=r"'dense/kernel' has \(7, 4\), not \(8, 4\) or \(2, 4\)"):
        load_compact(tmp_path, like=whole)
    for strange in (object(), "text", 3):
        whole["dense"]["kernel"] = strange
        with pytest.raises(CompactionError, match=r"'dense/kernel' has \(\), not"):
            load_compact(tmp_path, like=whole)


# Hostile folders.


def saved(folder):
    save_compact(folder, *model(OLD))
    return SimpleNamespace(
        folder=folder, plan=json.loads((folder / PLAN).read_text()), arrays=(folder / ARRAYS).read_bytes()
    )


GOOD = {"dense/kernel": np.full((2, 4), 1, np.float32), "dense/bias": np.arange(4, dtype=np.float32)}


def refused(folder, like=None):
    """The error's message, after checking that it states a rule and a remedy."""
    with pytest.raises(CompactionError) as caught:
        load_compact(folder, like=like)
    text = str(caught.value)
    assert "must" in text or "No plan" in text
    assert any(word in text for word in ("give", "save", "write", "make", "load")), text
    assert len(text) < 1500
    return text


def test_a_forged_folder_that_is_right_is_read(tmp_path):
    forge(tmp_path, saved(tmp_path).plan, GOOD)
    assert np.array_equal(load_compact(tmp_path)[1]["dense/kernel"], GOOD["dense/kernel"])


WRONG_PLANS = {
    "not an object": lambda p: p["leaves"].update(a=3),
    "no shape": lambda p: p["leaves"]["dense/bias"].pop("shape"),
    "more than a leaf has": lambda p: p["leaves"]["dense/bias"].update(more=1),
    "a negative size": lambda p: p["leaves"]["dense/bias"].update(shape=[-4]),
    "a size that is true": lambda p: p["leaves"]["dense/bias"].update(shape=[True]),
    "a size that is not an integer": lambda p: p["leaves"]["dense/bias"].update(shape=[4.0]),
    "a size that is text": lambda p: p["leaves"]["dense/bias"].update(shape="4"),
    "a huge size": lambda p: p["leaves"]["dense/bias"].update(shape=[2**62]),
    "a size of no type": lambda p: p["leaves"]["dense/bias"].update(shape=[10**30]),
    "a huge product": lambda p: p["leaves"]["dense/bias"].update(shape=[2**40, 2**40], kept=[None, None]),
    "a huge empty array": lambda p: p["leaves"]["dense/bias"].update(shape=[2**62, 0, 2**62], kept=[None] * 3),
    "many axes": lambda p: p["leaves"]["dense/bias"].update(shape=[1] * 1000, kept=[None] * 1000),
    "kept of another length": lambda p: p["leaves"]["dense/bias"].update(kept=[]),
    "another small shape": lambda p: p["leaves"]["dense/kernel"].update(kept=[[0], None]),
    "indices twice": lambda p: p["leaves"]["dense/kernel"].update(kept=[[1, 1], None]),
    "indices out of order": lambda p: p["leaves"]["dense/kernel"].update(kept=[[1, 0], None]),
    "an index too large": lambda p: p["leaves"]["dense/kernel"].update(kept=[[0, 8], None]),
    "a negative index": lambda p: p["leaves"]["dense/kernel"].update(kept=[[-1, 0], None]),
    "an index that is not an integer": lambda p: p["leaves"]["dense/kernel"].update(kept=[[0, 1.5], None]),
    "an index that is true": lambda p: p["leaves"]["dense/kernel"].update(kept=[[0, True], None]),
    "indices that are text": lambda p: p["leaves"]["dense/kernel"].update(kept=["01", None]),
    "a width out of range": lambda p: p["ids"][0].update(kept=[0, 9]),
    "a width out of order": lambda p: p["ids"][0].update(kept=[1, 0]),
    "padding that is not kept": lambda p: p["ids"][0].update(padding=[7]),
    "a width twice": lambda p: p["ids"].append(dict(p["ids"][0])),
    "a width without size": lambda p: p["ids"][0].pop("size"),
    "a width of nothing": lambda p: p["ids"].append(None),
    "a member that is not an axis": lambda p: p["ids"][0].update(members=["dense/kernel[5]"]),
    "a member of no leaf": lambda p: p["ids"][0].update(members=["other[0]"]),
    "a member that is not a text": lambda p: p["ids"][0].update(members=[["dense/kernel", 0]]),
    "a reason that is not a text": lambda p: p["ids"][0].update(reason=None),
    "inputs out of order": lambda p: p.update(unread_inputs={"x[1]": [3, 0]}),
    "inputs that are not lists": lambda p: p.update(unread_inputs={"x[1]": 3}),
    "round_to of 0": lambda p: p.update(round_to=0),
    "a negative threshold": lambda p: p.update(threshold=-1.0),
    "a threshold beyond all floats": lambda p: p.update(threshold=10**400),
    "a threshold that is text": lambda p: p.update(threshold="0"),
    "another format": lambda p: p.update(format=2),
    "a format that is true": lambda p: p.update(format=True),
    "no format": lambda p: p.pop("format"),
    "an entry more": lambda p: p.update(more=1),
    "leaves that are a list": lambda p: p.update(leaves=[]),
    "no leaf at all": lambda p: p.update(leaves={}, ids=[]),
    "a leaf more": lambda p: p["leaves"].update(a={"shape": [], "kept": []}),
    "no kinds": lambda p: p["arrays"].update(kinds=None),
    "a kind of no dtype": lambda p: p["arrays"]["kinds"].update({"dense/bias": "object"}),
    "a kind of a function": lambda p: p["arrays"]["kinds"].update({"dense/bias": "abs"}),
    "a kind of records": lambda p: p["arrays"]["kinds"].update({"dense/bias": "i4,f4"}),
    "a kind of no key": lambda p: p["arrays"]["kinds"].update({"dense/bias": "key nothing"}),
    "a kind of a key": lambda p: p["arrays"]["kinds"].update({"dense/bias": "key rbg"}),
    "another kind of the same size": lambda p: p["arrays"]["kinds"].update({"dense/bias": "int32"}),
    "a kind that is a list": lambda p: p["arrays"]["kinds"].update({"dense/bias": [[["float32"]]]}),
    "a kind of another size": lambda p: p["arrays"]["kinds"].update({"dense/bias": "float16"}),
    "a kind more": lambda p: p["arrays"]["kinds"].update(a="float32"),
}


@pytest.mark.parametrize("change", WRONG_PLANS.values(), ids=WRONG_PLANS)
@pytest.mark.parametrize("forged", [True, False], ids=["forged", "edited"])
def test_a_wrong_plan_is_refused_even_where_its_digest_fits(tmp_path, change, forged):
    plan = saved(tmp_path).plan
    change(plan)
    if forged:
        forge(tmp_path, plan, GOOD)
    else:
        (tmp_path / PLAN).write_text(json.dumps(plan))
    refused(tmp_path)


def test_a_plan_edited_into_another_valid_one_is_refused(tmp_path):
    plan = saved(tmp_path).plan
    plan["leaves"]["dense/kernel"]["kept"] = [[0, 5], None]
    plan["ids"][0]["kept"] = [0, 5]
    (tmp_path / PLAN).write_text(json.dumps(plan))
    assert "must hold the same leaves" in refused(tmp_path)


WRONG_ARRAYS = {
    "no leaf": {"metadata": np.zeros(1)},
    "a leaf less": {"dense/bias": GOOD["dense/bias"]},
    "a leaf more": GOOD | {"a": np.zeros(3)},
    "another shape": GOOD | {"dense/bias": np.zeros((2, 2), np.float32)},
    "another length": GOOD | {"dense/bias": np.zeros(5, np.float32)},
    "another dtype": GOOD | {"dense/bias": np.zeros(4, np.int32)},
    "empty": b"",
    "zeros": bytes(1000),
    "a header without end": b"\xff" * 1000,
    "deep": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "text": b"no arrays" * 100,
    "zip": b"PK\x03\x04" + bytes(100),
    "pickle": b"\x80\x04\x95" + bytes(100),
}


@pytest.mark.parametrize("arrays", WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
@pytest.mark.parametrize("forged", [True, False], ids=["forged", "edited"])
def test_wrong_arrays_are_refused_even_where_their_digest_fits(tmp_path, arrays, forged):
    plan = saved(tmp_path).plan
    if forged:
        forge(tmp_path, plan, arrays)
    else:
        (tmp_path / ARRAYS).write_bytes(arrays if isinstance(arrays, bytes) else save(arrays))
    refused(tmp_path)


TEXTS = {
    "empty": b"",
    "binary": bytes(range(256)),
    "deep": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 100_000,
    "nearly too deep": b'{"arrays": {"bytes": 9, "sha256": "", "kinds": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "NaN": b'{"format": NaN}',
    "huge integer": b'{"format": ' + b"9" * 10_000 + b"}",
    "huge exponent": b'{"format": 1e99999}',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "list": b"[]",
    "null": b"null",
    "one key twice": b'{"format": 1, "format": 1}',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("name", [PLAN, ARRAYS])
def test_text_that_is_no_plan_is_refused(tmp_path, text, name):
    saved(tmp_path)
    (tmp_path / name).write_bytes(text)
    refused(tmp_path)
    with pytest.raises(CompactionError, match=r"No plan: .*; give what|must have format"):
        Plan.from_json(text)


@pytest.mark.parametrize("name", [PLAN, ARRAYS])
def test_files_that_are_missing_or_no_files_are_refused(tmp_path, name):
    folder = tmp_path / "model"
    saved(folder)
    path = folder / name
    for missing in (tmp_path / "nowhere", path, tmp_path / "nul\0", tmp_path / ("x" * 300)):
        refused(missing)
    path.unlink()
    refused(folder)
    path.mkdir()
    refused(folder)
    path.rmdir()
    os.mkfifo(path)  # opening it would wait for a writer
    refused(folder)
    for target in (path, tmp_path / "nowhere", "/dev/zero", tmp_path):
        path.unlink()
        path.symlink_to(target)
        refused(folder)
    path.unlink()
    with path.open("wb") as file:  # a sparse file of a terabyte
        file.truncate(2**40)
    refused(folder)


def test_files_of_two_models_are_refused(tmp_path):
    for number in (OLD, NEW):
        save_compact(tmp_path / str(number), *model(number))
    os.replace(tmp_path / str(OLD) / PLAN, tmp_path / str(NEW) / PLAN)
    assert "must hold the same leaves" in refused(tmp_path / str(NEW))


@pytest.mark.parametrize("name", [PLAN, ARRAYS])
def test_every_truncation_and_many_damages_are_refused(tmp_path, name):
    saved(tmp_path)
    whole = (tmp_path / name).read_bytes()
    numbers = random.Random(0)
    damaged = [whole[:length] for length in range(0, len(whole), 7)] + [whole + b"\0", whole + whole]
    for _ in range(200):
        place, bit = numbers.randrange(len(whole)), 1 << numbers.randrange(8)
        damaged.append(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
    for content in damaged:
        (tmp_path / name).write_bytes(content)
        refused(tmp_path)


def test_loading_allocates_nothing_that_is_not_there(tmp_path):
    plan = saved(tmp_path).plan
    plan["leaves"]["dense/bias"] = {"shape": [2**40], "kept": [None]}
    forge(tmp_path, plan, GOOD)
    tracemalloc.start()
    try:
        refused(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_random_hostile_folders_are_refused_or_read_as_their_plan_says(tmp_path, count):
    save_compact(tmp_path / "good", *model(OLD))
    outcomes = []
    for seed in range(count):
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        outcomes.append(outcome(seed, tmp_path / "bad"))
        shutil.rmtree(tmp_path / "bad")
    print({outcome: outcomes.count(outcome) for outcome in set(outcomes)})
    # A few changes, such as to a reason or to a link, leave a valid model.
    assert 0 < outcomes.count("loaded") < 0.2 * count
