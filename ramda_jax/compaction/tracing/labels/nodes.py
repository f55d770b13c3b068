"""The nodes of a trace that is complete."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Nodes:
    """What axes are made of, once no more nodes are unified.

    Attributes:
        roots: int array `[count]`, of each node the one that stands for all it was unified with.
        products: from each product to its factors, none of them a product.
    """

    roots: np.ndarray
    products: dict[int, frozenset[int]]

    @property
    def count(self) -> int:
        """How many nodes there are."""
        return len(self.roots)

    def of(self, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (positions, nodes) of an axis, products as the nodes they are made of: two int arrays of one length."""
        roots = self.roots[label]
        is_product = np.isin(roots, list(self.products)) if self.products else np.zeros(len(roots), bool)
        positions, nodes = [np.flatnonzero(~is_product)], [roots[~is_product]]
        for position in np.flatnonzero(is_product).tolist():
            factors = sorted(self.products[int(roots[position])])
            positions.append(np.full(len(factors), position))
            nodes.append(np.array(factors, np.int64))
        return np.concatenate(positions), np.concatenate(nodes)

    def mask(self, label: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Which indices of an axis are in `kept`, a boolean for each node: those all of whose nodes are."""
        roots = self.roots[label]
        mask = kept[roots]
        if not self.products:
            return mask
        for product in set(roots.tolist()) & self.products.keys():
            mask[roots == product] = all(kept[node] for node in self.products[product])
        return mask
