"""Folders that claim to hold a compact model, made from a good folder by random changes of its files."""

import copy
import json
import os
import random
import shutil

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from ramda_jax import files
from ramda_jax.compaction import CompactionError, load_compact

ARRAYS, PLAN, NEXT = "variables.safetensors", "plan.json", "plan.next.json"

#: Values that replace a good value.
VALUES = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        1.5,
        -0.0,
        1e308,
        2**31,
        2**62,
        2**63,
        10**30,
        "",
        "0",
        "dense/bias",
        "\ud800",
    ),
    *(
        [],
        [0],
        [1, 0],
        [0, 0],
        [None],
        [[0]],
        [True],
        {},
        {"shape": [], "kept": []},
        {"a": {"b": []}},
        "float32",
        "rbg",
    ),
    *("key rbg", "key ", "object", "M8[s]", "abs", "int4", "x" * 5000),
)
TEXTS = (
    *(b"", b"\0", bytes(range(256)), b"[" * 200_000, b'{"a":' * 50_000, b'{"format": NaN}', b"null", b"[]", b'"'),
    *(b"{", b'{"format": ' + b"9" * 5000 + b"}", b"PK\x03\x04" + bytes(64), b"\x80\x04\x95" + bytes(64), b"\xff" * 64),
)


def forge(folder, plan, arrays):
    """Writes a folder with matching digests, as an attacker who knows the format can."""
    kinds = plan["arrays"].get("kinds") if isinstance(plan.get("arrays"), dict) else {}
    plan = {key: value for key, value in plan.items() if key != "arrays"} | {"arrays": {"kinds": kinds}}
    blob = arrays
    if not isinstance(arrays, bytes):
        blob = save(arrays, metadata={"plan_sha256": files.sha256(json.dumps(plan).encode())})
    plan["arrays"] |= {"bytes": len(blob), "sha256": files.sha256(blob)}
    (folder / PLAN).write_text(json.dumps(plan))
    (folder / ARRAYS).write_bytes(blob)


def change_json(numbers, tree):
    """Makes a random change at a random place of a tree of dicts and lists."""
    places = []

    def visit(node):
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            visit(node[key])

    visit(tree)
    node, key = numbers.choice(places)
    match numbers.randrange(4):
        case 0 if isinstance(node, dict):
            node[numbers.choice(("a", "", "__metadata__", "dense/kernel", "0"))] = node.pop(key)
        case 1:
            del node[key]
        case 2 if isinstance(node[key], int):
            node[key] += numbers.choice((-1, 1, 8, 2**40))
        case _:
            node[key] = copy.deepcopy(numbers.choice(VALUES))  # a later change must not alter VALUES


def change_bytes(numbers, blob):
    """The bytes after a loss, a change, an insertion, a doubling, or a replacement of all of them."""
    place = numbers.randrange(len(blob) + 1)
    match numbers.randrange(5):
        case 0:
            return blob[:place]
        case 1:
            return blob[:place] + bytes([numbers.randrange(256)]) + blob[place + 1 :]
        case 2:
            return blob[:place] + numbers.randbytes(numbers.randrange(1, 20)) + blob[place:]
        case 3:
            return blob + blob
        case _:
            return numbers.choice(TEXTS)


def change_arrays(numbers, arrays):
    """The arrays with another leaf, shape or dtype."""
    arrays = dict(arrays)
    path = numbers.choice(list(arrays))
    match numbers.randrange(4):
        case 0:
            del arrays[path]
        case 1:
            arrays["other"] = np.zeros(numbers.randrange(5), np.float32)
        case 2:
            arrays[path] = np.zeros([numbers.randrange(4) for _ in range(numbers.randrange(4))], arrays[path].dtype)
        case _:
            arrays[path] = arrays[path].astype(numbers.choice(["f2", "f8", "i1", "i4", "u8", "?"]))
    return arrays


def change_folder(numbers, folder):
    """Removes or renames a file, or replaces it by a link, a pipe or another file."""
    path = folder / numbers.choice((ARRAYS, PLAN))
    match numbers.randrange(7):
        case 0:
            path.unlink()
        case 1:
            os.replace(path, folder / NEXT)
        case 2:
            shutil.copy(path, folder / NEXT)
        case 3:
            os.replace(path, folder / "elsewhere")
            path.symlink_to(folder / "elsewhere")
        case 4:
            path.unlink()
            path.symlink_to(numbers.choice((path, "/dev/zero", folder, folder / "nowhere")))
        case 5:
            path.unlink()
            os.mkfifo(path)
        case _:
            shutil.copy(folder / ARRAYS, folder / PLAN)


def outcome(seed, folder):
    """Replaces the good model in a folder by the hostile one with this seed, and loads it.

    Returns:
        "loaded" if the arrays agree with the plan, or "refused" if a `CompactionError` states a rule and a remedy.
            Anything else raises.
    """
    numbers = random.Random(seed)
    plan, arrays = json.loads((folder / PLAN).read_text()), (folder / ARRAYS).read_bytes()
    leaves = {path: np.asarray(leaf) for path, leaf in load_compact(folder)[1].items()}
    for _ in range(numbers.choice((1, 1, 1, 2, 5))):
        match numbers.randrange(5):
            case 0 | 1:
                change_json(numbers, plan)
                forge(folder, plan, leaves)
                plan = json.loads((folder / PLAN).read_text())
            case 2:
                leaves = change_arrays(numbers, leaves) or leaves
                forge(folder, plan, leaves)
            case 3:
                forge(folder, plan, change_bytes(numbers, arrays))
            case _:
                name = numbers.choice((ARRAYS, PLAN))
                (folder / name).write_bytes(change_bytes(numbers, (folder / name).read_bytes()))
    if numbers.randrange(5) == 0:
        change_folder(numbers, folder)
    try:
        found_plan, found = load_compact(folder)
    except CompactionError as error:
        text = str(error)
        assert ("must" in text or "No plan" in text) and len(text) < 1500, text
        assert any(word in text for word in ("give", "save", "write", "make", "load")), text
        return "refused"
    assert found.keys() == found_plan.leaves.keys()
    assert all(jnp.shape(leaf) == found_plan.leaves[path].small_shape for path, leaf in found.items())
    return "loaded"
