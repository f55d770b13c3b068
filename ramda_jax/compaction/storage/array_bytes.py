"""Turns arrays of every dtype of JAX into the form of safetensors, and back."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.typing import Shape

#: The names in safetensors of the dtypes that every version of it has. All other dtypes are stored as bytes.
_WORDS = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}


@dataclasses.dataclass(frozen=True)
class ArrayKind:
    """The kind of a leaf's entries.

    Attributes:
        dtype: the dtype of the numbers; for a PRNG key the dtype of the numbers that it consists of.
        key: the PRNG's name, or "" if it is not a key.
        key_shape: the shape of the numbers of a key.
    """

    dtype: np.dtype
    key: str = ""
    key_shape: tuple[int, ...] = ()

    def num_bytes(self, shape: Shape) -> int:
        """The number of bytes of an array of that shape."""
        return math.prod((*shape, *self.key_shape)) * self.dtype.itemsize


def to_stored(path: str, leaf: Any) -> tuple[np.ndarray, str]:
    """The array that safetensors hold for a leaf, and the name of its kind.

    Raises:
        CompactionError: numbers, or keys, that could not be read again.
    """
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    name = getattr(leaf.dtype, "name", str(leaf.dtype))
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        name = f"key {jax.random.key_impl(leaf)}"
        leaf = jax.random.key_data(leaf)
    kind_named(name, path)
    array = np.asarray(leaf)
    array = np.array(array, array.dtype.newbyteorder("="), order="C")
    if array.dtype.name not in _WORDS:
        array = np.frombuffer(array.tobytes(), np.uint8).reshape(*array.shape, array.dtype.itemsize)
    return array, name


def kind_named(name: Any, path: str) -> ArrayKind:
    """The kind with that name, which is a dtype's name, or `key` with a PRNG's name.

    Raises:
        CompactionError: there is no such kind, or it belongs to another version of JAX.
    """
    if isinstance(name, str) and name.startswith("key "):
        key = name.removeprefix("key ")
        try:
            data = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=key)))
            return ArrayKind(np.dtype(data.dtype), key, data.shape)
        except Exception as error:  # JAX may raise any error for an unknown name
            raise _unknown(name, path) from error
    # Check the name first, because `np.dtype` also accepts objects, texts and records.
    if isinstance(name, str) and hasattr(jnp, name + "_" if name == "bool" else name):
        try:
            dtype = jnp.dtype(name)
        except TypeError as error:
            raise _unknown(name, path) from error
        if dtype.name == name and (dtype == np.bool_ or jnp.issubdtype(dtype, jnp.number)):
            return ArrayKind(dtype)
    raise _unknown(name, path)


def _unknown(name, path):
    return CompactionError(
        f"A leaf must be of numbers of JAX or of PRNG keys of a kind that has a name, but '{path!s:.80}' is of "
        f"{name!r:.80}; give another array."
    )


def from_stored(path: str, kind: ArrayKind, shape: tuple[int, ...], stored: dict[str, Any]) -> jax.Array:
    """The leaf of that kind and shape from the content of safetensors.

    Raises:
        CompactionError: the content is something else, or JAX would round it.
    """
    is_known = kind.dtype.name in _WORDS
    whole = (*shape, *kind.key_shape)
    expected = (_WORDS.get(kind.dtype.name, "U8"), [*whole, *(() if is_known else (kind.dtype.itemsize,))])
    found = (stored["dtype"], list(stored["shape"]))
    if found != expected or len(stored["data"]) != kind.num_bytes(shape):
        raise CompactionError(
            f"'{path}' must be stored as {expected[0]} of shape {tuple(expected[1])}, as the plan says, got {found[0]} "
            f"of {tuple(found[1])}; save again by `save_compact`."
        )
    if jax.dtypes.canonicalize_dtype(kind.dtype) != kind.dtype:
        raise CompactionError(
            f"'{path}' was saved as {kind.dtype.name} and must not be rounded to 32 bits, as JAX would do; load it "
            "with `jax.enable_x64(True)`."
        )
    # A copy, because JAX may use the array's memory. With the dtype that the array has, JAX compiles nothing.
    array = jnp.asarray(np.frombuffer(stored["data"], kind.dtype).reshape(whole).copy(), kind.dtype)
    return jax.random.wrap_key_data(array, impl=kind.key) if kind.key else array
