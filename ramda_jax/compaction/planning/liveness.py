"""The indices that nonzero parameters read."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ramda_jax.compaction.tracing.known.zeros import Zeros, zero_masks, zero_terms
from ramda_jax.compaction.tracing.labels.nodes import Nodes
from ramda_jax.compaction.tracing.program import Reader
from ramda_jax.compaction.tracing.recipes import nonzero
from ramda_jax.compaction.tracing.trace import Dims


def _zero_terms(dims, leaves, threshold):
    """For each contraction, a mask of the terms that vanish because an activation is always zero."""
    masks = {path: zero_masks(leaves[path], threshold) for path, value in dims.leaves.items() if value.shape}
    zeros = Zeros(dims, masks)
    return {id(reader): zero_terms(reader, zeros) for reader in dims.walk.readers}


class Liveness:
    """The alive nodes: those that must be alive, those that they read, and so on."""

    def __init__(
        self,
        dims: Dims,
        leaves: Mapping[str, Any],
        threshold: float = 0.0,
        keep: Collection[str] = (),
        like: "Liveness | None" = None,
    ) -> None:
        self.dims = dims
        self.nodes: Nodes = dims.nodes
        every = np.arange(self.nodes.count)
        on_leaf = np.zeros(self.nodes.count, bool)
        for width in dims.widths:
            on_leaf[width.nodes] = True
        # A node that is not on a leaf's axis cannot be deleted from a leaf, so it stays.
        self.alive: np.ndarray = (self.nodes.roots == every) & (~dims.walk.indices.is_free(every) | ~on_leaf)
        for width in dims.widths:
            if width.name in keep:
                self.alive[width.nodes] = True
        cache = {}
        # Reuse the zeros of another `Liveness` of the same values.
        self.readers: list[tuple[Reader, list[np.ndarray]]] = (
            like.readers
            if like is not None
            else [
                (reader, [nonzero(recipe, leaves, threshold, cache) for recipe, _, _ in reader.sides])
                for reader in dims.walk.readers
            ]
        )
        self._zero: dict[int, np.ndarray] = like._zero if like is not None else _zero_terms(dims, leaves, threshold)

    def read(self, reader: Reader, entries: Sequence[np.ndarray]) -> np.ndarray:
        """A mask of the terms of the sum that are read, over the contracted axes."""
        result = ~self._zero[id(reader)]
        for (_, contracted, others), mask in zip(reader.sides, entries, strict=True):
            for axis, label in others.items():
                alive = self.nodes.mask(label, self.alive)
                if not alive.all():
                    mask = np.compress(alive, mask, axis)
            read = mask.any(axis=tuple(others))
            # The contracted axes remain, in their order in the value.
            result &= np.transpose(read, np.argsort(np.argsort(contracted)))
        return result

    def needed(self, reader: Reader, entries: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the read part of the label of each contracted axis."""
        read = self.read(reader, entries)
        for axis, label in enumerate(reader.contracted):
            yield label[read.any(axis=tuple(i for i in range(read.ndim) if i != axis))]

    def find_alive(self) -> None:
        """Finds the smallest set that contains all frozen nodes, and all nodes that a node of the set reads."""
        changed = True
        while changed:
            changed = False
            # Go backwards from the outputs, because most changes come from there.
            for reader, entries in reversed(self.readers):
                for label in self.needed(reader, entries):
                    _, nodes = self.nodes.of(label)
                    if not self.alive[nodes].all():
                        self.alive[nodes] = True
                        changed = True

    def dead(self) -> list[str]:
        """The names of the widths without an alive node."""
        return [width.name for width in self.dims.widths if not self.alive[width.nodes].any()]

    def with_padding(self, round_to: int, empty: Collection[str] = ()) -> np.ndarray:
        """A mask of the alive nodes, and of the further nodes that keep axes from being empty and make sizes round.

        Dead widths in `empty` keep no node.
        """
        kept = self.alive.copy()
        # The nodes that may be kept so that no axis is empty.
        allowed = np.ones(self.nodes.count, bool)
        for width in self.dims.widths:
            alive = int(kept[width.nodes].sum())
            if not alive and width.name in empty:
                allowed[width.nodes] = False
                continue
            target = min(width.size, max(1, -(-alive // round_to)) * round_to)
            spare = width.nodes[~kept[width.nodes]]
            kept[spare[: target - alive]] = True
        values = [value for visit in self.dims.walk.visits for value in visit.outputs]
        for value in [*self.dims.leaves.values(), *values]:
            for label in value.labels:
                if len(label) and not self.nodes.mask(label, kept).any():
                    first = np.flatnonzero(self.nodes.mask(label, allowed))[:1]
                    _, nodes = self.nodes.of(label[first])
                    kept[nodes] = True
        return kept
