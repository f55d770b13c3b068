"""Parameters whose order for an optimizer differs from that in the model."""

from typing import Any, Protocol, runtime_checkable

from ramda_jax.typing import Tree


@runtime_checkable
class Packing(Protocol):
    """Another order of parameters, such as that of `compaction.Coupling`; hashable, as a static part of a state."""

    def pack(self, params: Tree) -> Tree:
        """The parameters in that order; parameters in that order already are returned unchanged."""
        ...

    def unpack(self, packed: Tree, params: Tree) -> Tree:
        """The inverse of `pack`: a tree like `params`."""
        ...


def packing_of(spec: Any) -> Packing | None:
    """The order of parameters that a specification of regularizers is for; None for the model's own order."""
    return getattr(spec, "packing", None)


def packed(spec: Any, tree: Tree) -> Tree:
    """A tree like the parameters, in the order that a specification of regularizers is for."""
    packing = packing_of(spec)
    return tree if packing is None else packing.pack(tree)
