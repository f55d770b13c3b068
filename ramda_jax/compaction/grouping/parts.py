"""The rows of leaves that form a coupled array."""

import dataclasses

import numpy as np

COUPLED, REST = "coupled", "rest"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Part:
    """The rows of a leaf that belong to a width.

    Attributes:
        path: the path of the leaf, among the parameters.
        axis: the axis along which the rows lie.
        rows: int array `[size, rows per index]`, the rows of each index of the width.
    """

    path: str
    axis: int
    rows: np.ndarray

    def __str__(self) -> str:
        each = self.rows.shape[1]
        return f"{self.path}[{self.axis}]{f' x{each}' if each > 1 else ''}"

    def __repr__(self) -> str:
        return f"<{self}>"
