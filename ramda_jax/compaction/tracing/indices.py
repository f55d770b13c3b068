"""Which single indices of axes live and die together: a union-find over them.

A *node* stands for one index of one axis. The label of an axis is an array with a node for each of its indices; an
index is deleted exactly where its node is. Nodes that are unified are one. A node may be a *product* of others, as
index `(h, w, c)` of a flattened axis is: it is deleted where any of its factors is. Labelling indices and not whole
axes makes concatenation, slices, padding and strides plain NumPy on labels.
"""

import itertools
import math

import numpy as np

#: The node that is always kept: what stands for an index that nothing could ever delete.
ALWAYS = 0


class Indices:
    """The nodes of one trace: their unions, products, and what is frozen why.

    Example:
        >>> indices = Indices()
        >>> a, b = indices.new(3), indices.new(2)
        >>> indices.unify(a[:2], b)
        >>> indices.freeze(b[1:], "a model output")
        >>> indices.reasons(a)
        ['', 'a model output', '']
    """

    def __init__(self):
        self._parents = np.zeros(1024, np.int64)
        self._reason_of = np.zeros(1024, np.int32)
        self._reasons = ["", "an axis of size 1, or one that no parameter has"]
        self._reason_of[ALWAYS] = 1
        self._factors: dict[int, tuple[int, ...]] = {}
        self._products: dict[tuple[int, ...], int] = {}
        self._mixed = np.zeros(1024, bool)
        #: Axes merged of which nothing can be deleted: (the new label, the labels it was merged from).
        self.merged: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self.count = 1

    def new(self, size, reason=None):
        """A label of `size` fresh nodes, frozen where a reason is given."""
        start, self.count = self.count, self.count + size
        if self.count > len(self._parents):
            length = max(self.count, 2 * len(self._parents))
            self._parents = np.concatenate([self._parents, np.zeros(length - len(self._parents), np.int64)])
            self._reason_of = np.concatenate([self._reason_of, np.zeros(length - len(self._reason_of), np.int32)])
            self._mixed = np.concatenate([self._mixed, np.zeros(length - len(self._mixed), bool)])
        nodes = np.arange(start, self.count)
        self._parents[nodes] = nodes
        self._reason_of[nodes] = self._reason_number(reason) if reason else 0
        return nodes

    def axis(self, size, reason=None):
        """A label for an axis of that size: fresh nodes, or `ALWAYS` for an axis of size 1, which nothing shortens."""
        return self.always(1) if size == 1 else self.new(size, reason)

    @staticmethod
    def always(size):
        """A label of indices that are always kept."""
        return np.zeros(size, np.int64)

    def find(self, nodes):
        """The representatives of nodes, an array of their shape."""
        roots = self._parents[nodes]
        while True:
            above = self._parents[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parents[nodes] = roots
        return roots

    def unify(self, a, b):
        """Makes `a[i]` and `b[i]` one, for every i; of a frozen one and a free one, both are frozen then."""
        if a is b:
            return
        merged = []
        while True:
            roots_a, roots_b = self.find(a), self.find(b)
            low, high = np.minimum(roots_a, roots_b), np.maximum(roots_a, roots_b)
            differ = low != high
            if not differ.any():
                break
            # A root goes under a smaller one, so that no cycle can arise; what another pair asks of the same root
            # is left to the next round.
            low, high = low[differ], high[differ]
            np.minimum.at(self._parents, high, low)
            merged.append(np.unique(high))
        for nodes in merged:
            self._merge_attributes(nodes)

    def _merge_attributes(self, nodes):
        roots = self.find(nodes)
        np.logical_or.at(self._mixed, roots, self._mixed[nodes])
        frozen = self._reason_of[nodes] != 0
        fresh = frozen & (self._reason_of[roots] == 0)
        for node, root in zip(nodes[fresh], roots[fresh], strict=True):
            self._freeze_root(int(root), int(self._reason_of[node]))
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
                # Two products of different kinds are equal for sure where all their factors are one.
                every = np.array([*present, *factors])
                self.unify(every, np.full(len(every), every[0]))

    def freeze(self, nodes, reason):
        """Keeps what `nodes` stand for, all factors of a product included; the first reason given stays."""
        self._freeze(np.asarray(nodes), self._reason_number(reason))

    def _freeze(self, nodes, number):
        roots = np.unique(self.find(nodes.ravel()))
        self._mixed[roots] = True
        for root in roots[self._reason_of[roots] == 0].tolist():
            self._freeze_root(root, number)

    def _freeze_root(self, root, number):
        self._reason_of[root] = number
        if root in self._factors:
            self._freeze(np.array(self._factors[root]), number)

    def _reason_number(self, reason):
        if reason not in self._reasons:
            self._reasons.append(reason)
        return self._reasons.index(reason)

    def is_free(self, nodes):
        """Whether each node might be deleted as things stand: a boolean array."""
        return self._reason_of[self.find(nodes)] == 0

    def is_mixed(self, nodes):
        """Whether something has frozen each node since it was made: a boolean array. What has not is at most read."""
        return self._mixed[self.find(nodes)]

    def reasons(self, nodes):
        """Why each node is frozen, "" where it is not: a list."""
        return [self._reasons[number] for number in self._reason_of[self.find(np.asarray(nodes))]]

    def factors(self, node):
        """The nodes, none of them a product, at whose deletion `node` is deleted: a frozenset."""
        done, found, stack = set(), set(), [int(node)]
        while stack:
            root = int(self.find(np.array([stack.pop()]))[0])
            if root in done:
                continue
            done.add(root)
            if root in self._factors:
                stack.extend(self._factors[root])
            else:
                found.add(root)
        # A product that was unified with its own factor has no other end; it is then its own.
        return frozenset(found - {ALWAYS} or ({min(done)} - {ALWAYS}))

    def products(self):
        """From each product to its factors, none of them a product: a dict."""
        return {root: self.factors(root) for root in self._factors}

    def product(self, labels):
        """The label of an axis into which the axes of `labels` are merged, the last running fastest."""
        if len(labels) == 1:
            return labels[0]
        shape = tuple(len(label) for label in labels)
        free = [self.is_free(label) for label in labels]
        with_free = [axis for axis, mask in enumerate(free) if mask.any()]
        if not with_free:
            # Nothing can be deleted, but which of it is read may be told apart.
            if not shape:
                return self.always(1)
            label = self.new(math.prod(shape), self.reasons(labels[0][:1])[0])
            self.merged.append((label, list(labels)))
            for one in labels:
                self._mixed[self.find(one)] = True
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

    def split(self, label, shape):
        """The labels of the axes into which an axis is split, such that their product is its label again.

        Where the label is no such product yet, as that of 32 features that become 4 heads of 8, each of its indices
        is made one.
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
            # What all indices have in common says nothing about the axis; the first one takes it along.
            shared = frozenset.intersection(*common) if axis else frozenset()
            parts.append([one - shared for one in common])
        for index, whole in np.ndenumerate(sets):
            if frozenset().union(*(part[i] for part, i in zip(parts, index, strict=True))) != whole:
                return None
        return [np.array([self._product_node(sorted(one)) if one else ALWAYS for one in part]) for part in parts]
