"""Indices that are products of others: which of them are kept or deleted together.

A node may be a *product* of others, such as index `(h, w, c)` of a flattened axis. It is deleted if any of its factors
is.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ramda_jax.compaction.tracing.labels.nodes import Nodes
from ramda_jax.compaction.tracing.labels.union_find import ALWAYS, UnionFind
from ramda_jax.typing import Shape


class Indices(UnionFind):
    """The nodes of a trace: their unions, their products, and why some are frozen.

    Attributes:
        merged: merged axes of which nothing can be deleted, as (the new label, the labels it was merged from).

    Example:
        >>> indices = Indices()
        >>> rows, columns = indices.new(2), indices.new(2)
        >>> flat = indices.product([rows, columns])
        >>> indices.freeze(flat[:1], "read")
        >>> indices.reasons(rows), indices.reasons(columns)
        (['read', ''], ['read', ''])
    """

    def __init__(self) -> None:
        super().__init__()
        self._factors: dict[int, tuple[int, ...]] = {}
        self._products: dict[tuple[int, ...], int] = {}
        self.merged: list[tuple[np.ndarray, list[np.ndarray]]] = []

    def _after_merge(self, nodes):
        super()._after_merge(nodes)
        if not self._factors:
            return
        for node in nodes.tolist():
            factors = self._factors.pop(node, None)
            if factors is None:
                continue
            root = int(self.find(np.array([node]))[0])
            if self._reason_of[root]:
                self._freeze(np.array(factors), int(self._reason_of[root]))
            present = self._factors.setdefault(root, factors)
            if present is factors:
                continue
            if len(present) == len(factors):
                self.unify(np.array(present), np.array(factors))
            else:
                # Two products with different numbers of factors are certainly equal if all their factors are unified.
                every = np.array([*present, *factors])
                self.unify(every, np.full(len(every), every[0]))

    def _freeze_root(self, root, number):
        super()._freeze_root(root, number)
        if root in self._factors:
            self._freeze(np.array(self._factors[root]), number)

    def factors(self, node: int) -> frozenset[int]:
        """The nodes whose deletion deletes `node`; none of them is a product."""
        return self._factors_by(lambda one: int(self.find(np.array([one]))[0]), node)

    def _factors_by(self, root_of, node):
        done, found, stack = set(), set(), [int(node)]
        while stack:
            root = root_of(stack.pop())
            if root in done:
                continue
            done.add(root)
            if root in self._factors:
                stack.extend(self._factors[root])
            else:
                found.add(root)
        # A product unified with one of its own factors has no proper factors left; treat it as its own factor.
        return frozenset(found - {ALWAYS} or ({min(done)} - {ALWAYS}))

    def nodes(self) -> Nodes:
        """All nodes in their present state: the `Nodes` of a trace once it is complete."""
        roots = self.find(np.arange(self.count))
        # Look the method up only once: a large model has a hundred thousand products.
        root_of = roots.tolist().__getitem__
        return Nodes(roots, {root: self._factors_by(root_of, root) for root in self._factors})

    def product(self, labels: Sequence[np.ndarray]) -> np.ndarray:
        """The label of the axis that merges the axes of `labels`; the last of these varies fastest."""
        if len(labels) == 1:
            return labels[0]
        shape = tuple(len(label) for label in labels)
        free = [self.is_free(label) for label in labels]
        with_free = [axis for axis, mask in enumerate(free) if mask.any()]
        if not with_free:
            # No index can be deleted, but the report says which of them are read.
            if not shape:
                return self.always(1)
            label = self.new(math.prod(shape), self.reasons(labels[0][:1])[0])
            self.merged.append((label, list(labels)))
            return label
        if len(with_free) == 1:
            [axis] = with_free
            expanded = labels[axis].reshape([-1 if i == axis else 1 for i in range(len(shape))])
            return np.broadcast_to(expanded, shape).reshape(-1)
        chosen = [self.find(labels[axis]).tolist() for axis in with_free]
        nodes = [self._product_node(combination) for combination in itertools.product(*chosen)]
        sub_shape = [shape[axis] if axis in with_free else 1 for axis in range(len(shape))]
        return np.broadcast_to(np.array(nodes).reshape(sub_shape), shape).reshape(-1)

    def _product_node(self, nodes):
        factors = tuple(node for node in nodes if not self._reason_of[node])
        if len(factors) <= 1:
            return factors[0] if factors else nodes[0]
        if factors not in self._products:
            node = int(self.new(1)[0])
            self._factors[node] = factors
            self._products[factors] = node
        return self._products[factors]

    def split(self, label: np.ndarray, shape: Shape) -> list[np.ndarray]:
        """The labels of the axes into which an axis is split. Their product is the label of the axis.

        If the label is not such a product yet, as for 32 features that become 4 heads of 8, each of its indices is made
        a product.
        """
        if 1 in shape:
            parts = iter(self.split(label, tuple(size for size in shape if size != 1)))
            return [self.always(1) if size == 1 else next(parts) for size in shape]
        if len(shape) <= 1:
            return [label] * len(shape)
        roots = self.find(label).reshape(shape)
        for axis in range(len(shape)):
            first = [slice(None) if i == axis else slice(0, 1) for i in range(len(shape))]
            if np.array_equal(np.broadcast_to(roots[tuple(first)], shape), roots):
                own = roots[tuple(first)].reshape(-1)
                return [own if i == axis else self.always(size) for i, size in enumerate(shape)]
        if not self.is_free(label).any():
            return [self.axis(size, self.reasons(label[:1])[0]) for size in shape]
        known = self._known_split(roots)
        if known is not None:
            return known
        parts = [self.axis(size) for size in shape]
        self.unify(self.product(parts), label)
        return parts

    def _known_split(self, roots):
        if not any(root in self._factors for root in np.unique(roots).tolist()):
            return None
        sets = np.empty(roots.shape, object)
        for index, root in np.ndenumerate(roots):
            sets[index] = self.factors(root)
        parts = []
        for axis, size in enumerate(roots.shape):
            common = [frozenset.intersection(*np.take(sets, i, axis).ravel()) for i in range(size)]
            # Factors shared by all indices do not distinguish positions on this axis; attribute them to the first only.
            shared = frozenset.intersection(*common) if axis else frozenset()
            parts.append([factors - shared for factors in common])
        for index, whole in np.ndenumerate(sets):
            if frozenset().union(*(part[i] for part, i in zip(parts, index, strict=True))) != whole:
                return None
        return [
            np.array([self._product_node(sorted(factors)) if factors else ALWAYS for factors in part]) for part in parts
        ]
