"""The line of the user's code from which an equation or an error comes."""

import linecache
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Packages whose code is not user code.
_LIBRARIES = ("jax", "jaxlib", "flax", "equinox", "optax", "numpy", "einops", "contextlib", "functools", "ramda_jax")


def line_of_equation(equation: Any) -> str:
    """The line that traced an equation, such as ``"net.py:31, `return x.reshape(2, 4, -1)`"``; "" if unknown."""
    frames = getattr(getattr(equation.source_info, "traceback", None), "frames", ())
    return _first((frame.file_name, frame.line_num) for frame in frames)


def line_of_error(error: BaseException) -> str:
    """The line where an error was raised, in the form of `line_of_equation`."""
    frames = traceback.extract_tb(error.__traceback__)
    return _first((frame.filename, frame.lineno or 0) for frame in reversed(frames))


def _first(places: Iterable[tuple[str, int]]) -> str:
    folders = _library_folders()
    for file, number in places:
        if file.startswith("<") or any(file.startswith(folder) for folder in folders):
            continue
        text = linecache.getline(file, number).strip()
        return f"{Path(file).name}:{number}" + (f", `{text:.80}`" if text else "")
    return ""


def _library_folders():
    files = [getattr(sys.modules.get(name), "__file__", None) for name in _LIBRARIES]
    return [str(Path(file).parent) + "/" if Path(file).name == "__init__.py" else file for file in files if file]
