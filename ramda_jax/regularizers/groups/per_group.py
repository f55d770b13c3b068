"""One number for each group as a setting of a regularizer. Like all settings it is compared by value and hashable."""

from typing import Any

import numpy as np

from ramda_jax.typing import Shape


class PerGroup:
    """A read-only array of weights, finite and at least 0.

    Attributes:
        array: a read-only NumPy array of float64.
    """

    def __init__(self, values: Any) -> None:
        array = np.array(values)
        is_real = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
        # NumPy does not treat bfloat16 and similar dtypes as floating-point numbers.
        if not is_real and array.dtype.kind in "bcOSUmM":
            raise TypeError(f"`group_weight` must hold real numbers, got {values!r}; use for example an array of ones.")
        array = array.astype(np.float64)
        if not np.all(np.isfinite(array) & (array >= 0)):
            raise ValueError(f"`group_weight` must be finite and at least 0, got {values!r}; use 0.0 for no weight.")
        array.setflags(write=False)
        self.array: Any = array
        self._hash = hash((array.shape, array.tobytes()))

    def check_fits(self, shape: Shape, path: str) -> None:
        """Raises unless the array broadcasts against one number per group of a leaf, of the shape `shape`."""
        try:
            fits = np.broadcast_shapes(self.array.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"`group_weight` must broadcast against one number per group, of shape {shape} for '{path}', got shape "
                f"{self.array.shape}; use `norms(leaf)` of the resolved regularizer to see that shape."
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerGroup) and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        low, high = (f"{x:.4g}" for x in (np.min(self.array, initial=np.inf), np.max(self.array, initial=0)))
        return f"<{'x'.join(map(str, self.array.shape))} weights from {low} to {high}>"
