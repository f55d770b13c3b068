"""Plans from JSON of any origin: every number is checked before it is used."""

import json
import math
import sys
from typing import Any

from ramda_jax.compaction.errors import CompactionError

#: An upper bound of sizes and of their products: NumPy counts in 64 bits.
_LARGEST = 2**63
_REMEDY = "give what `Plan.to_json` has written."


def parse_json(text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object in `text`.

    Raises:
        CompactionError: any other text: incomplete, not UTF-8, too deeply nested, with a key twice, or with numbers
            that JSON does not have.
    """

    def unique(pairs):
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("an object has one key twice")
        return fields

    def refuse(name):
        raise ValueError(f"{name} is not a JSON number")

    try:
        fields = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise CompactionError(f"No plan: {what} is not JSON ({short(error)}); {_REMEDY}") from error
    if not isinstance(fields, dict):
        raise CompactionError(f"No plan: {what} must be a JSON object, got {short(fields)}; {_REMEDY}")
    return fields


def check_plan(fields: dict[str, Any], formats: tuple[int, int]) -> None:
    """Raises CompactionError unless the fields are those of a plan that `compact` and `expand` can follow."""
    found = fields.get("format")
    if "format" in fields and not (type(found) is int and found in formats):
        raise CompactionError(
            f"The plan must have format {formats[0]} or {formats[1]}, got {short(found)}; make a new one by "
            "`plan_compaction`."
        )
    is_second = found == formats[1]
    own = {"sizes"} if is_second else set()
    _keys("the plan", fields, {"format", "leaves", "ids", "unread_inputs", "round_to", "threshold", *own})
    for path, leaf in _is("leaves", fields["leaves"], dict).items():
        _check_leaf(f"leaves[{path!r:.80}]", leaf, is_second)
    names = set()
    for number, width in enumerate(_is("ids", fields["ids"], list)):
        where = f"ids[{number}]"
        _check_width(where, width, fields["leaves"])
        if width["name"] in names:
            _fail(f"{where}.name", "a name that no other width has", width["name"])
        names.add(width["name"])
    for name, indices in _is("unread_inputs", fields["unread_inputs"], dict).items():
        _indices(f"unread_inputs[{name!r:.80}]", indices, _LARGEST)
    _count("round_to", fields["round_to"], 1)
    for number, size in enumerate(_is("sizes", fields.get("sizes", []), list)):
        where = f"sizes[{number}]"
        if len(_is(where, size, list)) != 3:
            _fail(where, "a module, an attribute and a number", size)
        _is(where, size[0], str)
        _is(where, size[1], str)
        _count(where, size[2], 0)
    threshold = fields["threshold"]
    if type(threshold) not in (int, float) or not 0 <= threshold <= sys.float_info.max:
        _fail("threshold", "a finite number of at least 0", threshold)


def _check_leaf(where, leaf, has_orders):
    _keys(where, leaf, {"shape", "kept", *(["orders"] if has_orders else [])})
    shape, kept = _is(f"{where}.shape", leaf["shape"], list), _is(f"{where}.kept", leaf["kept"], list)
    for size in shape:
        _count(f"{where}.shape", size, 0)
    # Sizes of 0 are left out, because NumPy refuses a product of the others that is too large in any case.
    if math.prod(size for size in shape if size) >= _LARGEST or len(shape) > 64:
        _fail(f"{where}.shape", "at most 64 sizes whose product is below 2^63", shape)
    if len(kept) != len(shape):
        _fail(f"{where}.kept", f"an entry for each of the {len(shape)} axes", kept)
    for axis, (size, indices) in enumerate(zip(shape, kept, strict=True)):
        if indices is not None:
            _indices(f"{where}.kept[{axis}]", indices, size)

    reordered = []
    for number, order in enumerate(_is(f"{where}.orders", leaf.get("orders", []), list)):
        _check_order(f"{where}.orders[{number}]", order, shape)
        reordered.append(order["axis"])
        reordered += order["by"]
    axes = [order["axis"] for order in leaf.get("orders", [])]
    if len(set(axes)) < len(axes) or any(reordered.count(axis) > 1 for axis in axes):
        _fail(f"{where}.orders", "orders of different axes, by axes that stay in theirs", axes)


def _check_order(where, order, shape):
    _keys(where, order, {"axis", "by", "indices"})
    by = _is(f"{where}.by", order["by"], list)
    _indices(f"{where}.by", by, len(shape))
    axis = order["axis"]
    if type(axis) is not int or not 0 <= axis < len(shape) or axis in by:
        _fail(f"{where}.axis", "an axis that is not one of `by`", axis)
    _check_rows(f"{where}.indices", order["indices"], [shape[number] for number in by], shape[axis])


def _check_rows(where, rows, lengths, size):
    _is(where, rows, list)
    if lengths:
        if len(rows) != lengths[0]:
            _fail(where, f"{lengths[0]} entries", len(rows))
        for row in rows:
            _check_rows(where, row, lengths[1:], size)
    elif any(type(index) is not int for index in rows) or sorted(rows) != list(range(size)):
        _fail(where, f"the numbers from 0 to {size - 1} in some order", rows)


def _check_width(where, width, leaves):
    _keys(where, width, {"name", "size", "members", "kept", "padding", "reason"})
    for key in ("name", "reason"):
        _is(f"{where}.{key}", width[key], str)
    _count(f"{where}.size", width["size"], 0)
    _indices(f"{where}.kept", width["kept"], width["size"])
    _indices(f"{where}.padding", width["padding"], width["size"])
    if not set(width["padding"]) <= set(width["kept"]):
        _fail(f"{where}.padding", "some of those kept", width["padding"])
    for member in _is(f"{where}.members", width["members"], list):
        path, _, axis = _is(f"{where}.members", member, str).removesuffix("]").rpartition("[")
        # It must be an axis of a leaf of the plan. Not by `int()`, which accepts spaces and non-ASCII digits too.
        sizes = leaves[path]["shape"] if path in leaves else ()
        if axis not in map(str, range(len(sizes))):
            _fail(f"{where}.members", "axes of leaves of the plan, such as 'kernel[0]'", member)


def _indices(where, indices, size):
    _is(where, indices, list)
    previous = -1
    for index in indices:
        if type(index) is not int or not previous < index < size:
            _fail(where, f"indices from 0 to {size - 1}, each above the one before it", index)
        previous = index


def _count(where, value, least):
    if type(value) is not int or not least <= value < _LARGEST:
        _fail(where, f"an integer from {least} to 2^63 - 1", value)


def _is(where, value, kind):
    if type(value) is not kind:
        _fail(where, f"a {'list' if kind is list else 'string' if kind is str else 'JSON object'}", value)
    return value


def _keys(where, fields, wanted):
    if type(fields) is not dict or fields.keys() != wanted:
        got = sorted(fields) if type(fields) is dict else fields
        raise CompactionError(f"No plan: {where} must have just {sorted(wanted)}, got {short(got)}; {_REMEDY}")


def _fail(where, rule, value):
    raise CompactionError(f"No plan: {where} must be {rule}, got {short(value)}; {_REMEDY}")


def short(value: Any) -> str:
    """A short text for a value of any size and depth."""
    try:
        text = str(value) if isinstance(value, BaseException) else repr(value)
    except (RecursionError, ValueError):  # an int of more digits than Python prints
        text = f"a {type(value).__name__} that cannot be printed"
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 200 else text[:200] + "..."
