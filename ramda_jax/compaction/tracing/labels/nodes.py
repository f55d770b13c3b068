"""The nodes of a complete trace."""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of axes, after the last union.

    Attributes:
        roots: int array `[count]`, for each node the representative of all nodes that it was unified with.
        products: a mapping from each product to its factors, none of which is a product.
    """

    roots: np.ndarray
    products: dict[int, frozenset[int]]

    @property
    def count(self) -> int:
        """The number of nodes."""
        return len(self.roots)

    @functools.cached_property
    def _factors(self):
        """For each node the number of its row, or -1; and a row of factors for each product, padded with -1."""
        row_of = np.full(self.count, -1)
        row_of[np.fromiter(self.products, np.int64, len(self.products))] = np.arange(len(self.products))
        rows = np.full((len(self.products), max(map(len, self.products.values()), default=0)), -1)
        for row, factors in zip(rows, self.products.values(), strict=True):
            row[: len(factors)] = sorted(factors)
        return row_of, rows

    def of(self, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (position, node) of an axis as two int arrays of one length; a product has a pair per factor."""
        roots = self.roots[label]
        row_of, rows = self._factors
        row = row_of[roots]
        products = np.flatnonzero(row >= 0)
        factors = rows[row[products]]
        positions = np.broadcast_to(products[:, None], factors.shape)[factors >= 0]
        alone = np.flatnonzero(row < 0)
        return np.concatenate([alone, positions]), np.concatenate([roots[alone], factors[factors >= 0]])

    def mask(self, label: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Which indices of an axis are kept: those all of whose nodes are in `kept`, a boolean for each node."""
        roots = self.roots[label]
        row_of, rows = self._factors
        mask, row = kept[roots], row_of[roots]
        factors = rows[row[row >= 0]]
        mask[row >= 0] = (kept[factors] | (factors < 0)).all(axis=1)
        return mask
