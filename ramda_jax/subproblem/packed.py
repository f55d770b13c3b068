"""States of optimizers that see the parameters in another order."""

from typing import TYPE_CHECKING, Any, NamedTuple

from ramda_jax.structure.packing import Packing
from ramda_jax.structure.paths import named_leaves
from ramda_jax.subproblem.find_states import find_states
from ramda_jax.subproblem.state import serialize_with_flax


class _PackedFields(NamedTuple):
    inner: Any
    packing: Packing


class PackedState(_PackedFields):
    """State of an optimizer that sees the parameters in another order.

    Attributes:
        inner: the state of the optimizer itself, for parameters in that order.
        packing: the order; static.
    """

    __slots__ = ()

    if not TYPE_CHECKING:  # a type checker sees a plain field

        @property
        def packing(self) -> Packing:
            serialize_with_flax(type(self[-1]))  # as in `ProximalPointState`
            return self[-1]


def leaves_seen(state: Any, params: Any) -> dict[str, Any]:
    """The leaves of the parameters by path, together with those that the optimizers in `state` see in another order."""
    leaves = dict(named_leaves(params))
    for _, node in find_states(state, PackedState):
        leaves |= named_leaves(node.packing.pack(params))
    return leaves
