"""The sizes that modules remember as Python numbers: finds them, and replaces them by other numbers."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Remembered:
    """A number that a module holds.

    Attributes:
        module: the path of the module, "" for the model itself.
        kind: the class of the module.
        name: the attribute, such as `"num_heads"`, `"config.num_heads"` or `"widths.1"`.
        value: the number.
    """

    module: str
    kind: str
    name: str
    value: int

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.module else self.name


#: Numbers that replace those that a model's modules remember, by (path of the module, attribute).
Sizes = Mapping[tuple[str, str], int]


def numbers_of(attributes: Mapping[str, Any], depth: int = 1) -> Iterator[tuple[str, int]]:
    """Yields the integers among attributes, and inside tuples, lists, dicts and plain objects among them."""
    for name, value in attributes.items():
        if not isinstance(name, str) or name.startswith("_"):
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            yield name, value
        elif depth:
            for inner, number in numbers_of(_items(value), depth - 1):
                yield f"{name}.{inner}", number


def with_number(value: Any, name: str, number: int) -> Any:
    """A copy of a tuple, list, dict or plain object with another number under a name that `numbers_of` gives."""
    first, _, rest = name.partition(".")
    inner = _items(value)[first]
    number = with_number(inner, rest, number) if rest else number
    if isinstance(value, (tuple, list)):
        entries = [number if i == int(first) else entry for i, entry in enumerate(value)]
        make: Any = type(value)
        return make(*entries) if hasattr(value, "_fields") else make(entries)
    result = copy.copy(value)
    if isinstance(value, dict):
        result[first] = number
    else:
        object.__setattr__(result, first, number)  # works for a frozen dataclass too
    return result


def _items(value):
    """The entries of a container of settings, by name; {} for anything else."""
    if isinstance(value, (tuple, list)):
        return {str(i): entry for i, entry in enumerate(value)}
    if isinstance(value, dict):
        return value
    is_plain = hasattr(value, "__dict__") and not callable(value) and not hasattr(type(value), "shape")
    return vars(value) if is_plain else {}
