"""A union-find over single indices of axes, with reasons why some must stay.

A *node* stands for an index of an axis. The label of an axis is an array with a node for each of its indices, and an
index is deleted exactly if its node is. Unified nodes are the same node. Labelling indices and not whole axes makes
concatenation, slices, padding and strides plain NumPy on labels.
"""

import numpy as np

#: The node that is always kept, for indices that can never be deleted.
ALWAYS = 0


class UnionFind:
    """Nodes, their unions, and why some are frozen.

    Attributes:
        count: the number of nodes.
        frozen: arrays of the nodes that were frozen after they were made, in order.
        can_freeze: whether reasons freeze nodes; False while equations are walked on which no output depends.

    Example:
        >>> nodes = UnionFind()
        >>> a, b = nodes.new(3), nodes.new(2)
        >>> nodes.unify(a[:2], b)
        >>> nodes.freeze(b[1:], "a model output")
        >>> nodes.reasons(a)
        ['', 'a model output', '']
    """

    def __init__(self) -> None:
        self._parents = np.zeros(1024, np.int64)
        self._reason_of = np.zeros(1024, np.int32)
        self._reasons = ["", "an axis of size 1, or one that no parameter has"]
        self._reason_of[ALWAYS] = 1
        self.frozen: list[np.ndarray] = []
        self.can_freeze: bool = True
        self.count: int = 1

    def new(self, size: int, reason: str | None = None) -> np.ndarray:
        """A label of `size` new nodes, which are frozen if a reason is given and `can_freeze` is True."""
        start, self.count = self.count, self.count + size
        if self.count > len(self._parents):
            length = max(self.count, 2 * len(self._parents))
            self._parents = np.concatenate([self._parents, np.zeros(length - len(self._parents), np.int64)])
            self._reason_of = np.concatenate([self._reason_of, np.zeros(length - len(self._reason_of), np.int32)])
        nodes = np.arange(start, self.count)
        self._parents[nodes] = nodes
        self._reason_of[nodes] = self._reason_number(reason) if reason and self.can_freeze else 0
        return nodes

    def axis(self, size: int, reason: str | None = None) -> np.ndarray:
        """A label for an axis of that size: new nodes, or `ALWAYS` for an axis of size 1, which is never shortened."""
        return self.always(1) if size == 1 else self.new(size, reason)

    @staticmethod
    def always(size: int) -> np.ndarray:
        """A label of indices that are always kept."""
        return np.zeros(size, np.int64)

    def find(self, nodes: np.ndarray) -> np.ndarray:
        """The representatives of nodes, as an array of the same shape."""
        roots = self._parents[nodes]
        while True:
            above = self._parents[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parents[nodes] = roots
        return roots

    def unify(self, a: np.ndarray, b: np.ndarray) -> None:
        """Unifies `a[i]` and `b[i]` for every i. If either is frozen, both are frozen afterwards."""
        if a is b:
            return
        merged = []
        while True:
            roots_a, roots_b = self.find(a), self.find(b)
            low, high = np.minimum(roots_a, roots_b), np.maximum(roots_a, roots_b)
            differ = low != high
            if not differ.any():
                break
            # A root is attached to a smaller one, so that there is no cycle. If several pairs have the same root, the
            # others wait for the next round.
            low, high = low[differ], high[differ]
            np.minimum.at(self._parents, high, low)
            merged.append(np.unique(high))
        for nodes in merged:
            self._after_merge(nodes)

    def _after_merge(self, nodes):
        """Passes on what is known about `nodes`, which were roots, to their new roots."""
        roots = self.find(nodes)
        fresh = (self._reason_of[nodes] != 0) & (self._reason_of[roots] == 0)
        for node, root in zip(nodes[fresh], roots[fresh], strict=True):
            self._freeze_root(int(root), int(self._reason_of[node]))

    def freeze(self, nodes: np.ndarray, reason: str) -> None:
        """Freezes the indices of `nodes`. A node that is frozen already keeps its reason."""
        if self.can_freeze:
            self._freeze(np.asarray(nodes), self._reason_number(reason))

    def _freeze(self, nodes, number):
        roots = np.unique(self.find(nodes.ravel()))
        self.frozen.append(roots)
        for root in roots[self._reason_of[roots] == 0].tolist():
            self._freeze_root(root, number)

    def _freeze_root(self, root, number):
        self._reason_of[root] = number

    def _reason_number(self, reason):
        if reason not in self._reasons:
            self._reasons.append(reason)
        return self._reasons.index(reason)

    def is_free(self, nodes: np.ndarray) -> np.ndarray:
        """Whether each node can still be deleted, as a boolean array."""
        return self._reason_of[self.find(nodes)] == 0

    def reasons(self, nodes: np.ndarray) -> list[str]:
        """The reason for which each node is frozen, or "" for a free node, as a list."""
        return [self._reasons[number] for number in self._reason_of[self.find(np.asarray(nodes))]]
