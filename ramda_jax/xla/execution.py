"""How a solve is run. This never changes what is computed, except by rounding.

A solver calls the methods of its `Context.run`. `Execution` itself is the plain computation, for a solver that is
called by hand. The library's own steps pass one of the subclasses, which gives the same values by a faster program.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from ramda_jax.typing import Axes
from ramda_jax.xla.hints import keep_after
from ramda_jax.xla.reductions import fused_sums, one_kernel_sums, plain_sums

if TYPE_CHECKING:
    from ramda_jax.builders.quadratic import QuadraticModel

NamedTupleT = TypeVar("NamedTupleT", bound=NamedTuple)


@functools.partial(jax.tree_util.register_dataclass, data_fields=(), meta_fields=())
@dataclasses.dataclass(frozen=True)
class Execution:
    """The plain computation."""

    def keep(self, x: jax.Array, like: jax.Array) -> jax.Array:
        """Returns `x`, which several passes over the data read; `like` is an array of its shape already in memory."""
        del like
        return x

    def each_pass(
        self, make: Callable[["QuadraticModel"], jax.Array], model: "QuadraticModel"
    ) -> Callable[..., jax.Array]:
        """A function that gives the array `make(model)` for one pass over the data.

        Args:
            make: a function of a leaf's `QuadraticModel` that returns an array of the leaf's shape.
            model: the model.

        Returns:
            A function of `after`, a scalar that the previous pass has computed; None for a first pass.
        """
        return lambda after=None: make(model)

    def read_again(self, model: "QuadraticModel") -> "QuadraticModel":
        """Returns the model for another pass over the data, which computes everything from it again."""
        return model

    def sums(self, terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
        """The sums of several arrays of one shape over `axes`, kept as axes of length one."""
        return plain_sums(terms, axes)

    def largest(self, x: jax.Array) -> jax.Array:
        """The largest of the scalars `x` of all leaves that are solved together."""
        return x

    def unless(
        self, done: jax.Array, known: Callable[[], NamedTupleT], go_on: Callable[[], NamedTupleT]
    ) -> NamedTupleT:
        """Returns `known()` if the scalar `done` is True, else `go_on()`; both are named tuples of the same type."""
        return jax.lax.cond(done, known, go_on)


#: The execution of a solver that is called by hand.
PLAIN = Execution()


@functools.partial(jax.tree_util.register_dataclass, data_fields=("after",), meta_fields=())
@dataclasses.dataclass(frozen=True)
class InTurn(Execution):
    """A whole leaf; the leaves are solved one after the other.

    Large temporaries wait for the previous leaf (`keep_after`), so that at most one leaf's temporaries are in memory.

    Attributes:
        after: a scalar that the previous leaf has computed.
    """

    after: Any

    def keep(self, x: jax.Array, like: jax.Array) -> jax.Array:
        return keep_after(x, self.after, like)

    def each_pass(
        self, make: Callable[["QuadraticModel"], jax.Array], model: "QuadraticModel"
    ) -> Callable[..., jax.Array]:
        # Each pass computes its array again. If XLA kept the first pass's array for the later passes, that would be one
        # more live temporary (0.55 instead of 0.46 of the parameters' bytes, `benchmarks/NOTES.md`, "Attempts").
        def of_pass(after=None):
            if after is None:
                return make(model)
            return make(model._replace(anchor=keep_after(model.anchor, after, model.linear)))

        return of_pass

    def unless(
        self, done: jax.Array, known: Callable[[], NamedTupleT], go_on: Callable[[], NamedTupleT]
    ) -> NamedTupleT:
        chosen = super().unless(done, known, go_on)
        # The first field goes into the state and must be sharded like it. A branch's output loses the sharding of its
        # operands; selecting again outside of the branches restores it.
        return chosen._replace(**{chosen._fields[0]: jnp.where(done, known()[0], chosen[0])})


@functools.partial(jax.tree_util.register_dataclass, data_fields=("after",), meta_fields=("axis_name",))
@dataclasses.dataclass(frozen=True)
class Stacked(InTurn):
    """Leaves of equal shape, stacked, under a `jax.vmap` with a named axis.

    Attributes:
        axis_name: the name of that axis. The maximum over this axis is the same for all leaves. With a value for each
            leaf, `cond` would become a `select`, which computes both branches.
    """

    axis_name: str = "leaves"

    def largest(self, x: jax.Array) -> jax.Array:
        return jax.lax.pmax(x, self.axis_name)


@functools.partial(jax.tree_util.register_dataclass, data_fields=("after",), meta_fields=())
@dataclasses.dataclass(frozen=True)
class InCache(InTurn):
    """A tile of a leaf in a core's cache. Arrays that several passes read are computed once and kept there."""

    def each_pass(
        self, make: Callable[["QuadraticModel"], jax.Array], model: "QuadraticModel"
    ) -> Callable[..., jax.Array]:
        kept = self.keep(make(model), model.anchor)
        return lambda after=None: kept

    def sums(self, terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
        return fused_sums(terms, axes)


@functools.partial(jax.tree_util.register_dataclass, data_fields=(), meta_fields=())
@dataclasses.dataclass(frozen=True)
class AtOnce(Execution):
    """All leaves of a tree at once, on an accelerator."""

    def read_again(self, model: "QuadraticModel") -> "QuadraticModel":
        # The barrier makes XLA compute everything from these two again. Otherwise it would keep an array of the last
        # pass: 4 bytes more a parameter (`benchmarks/NOTES.md`, "On accelerators").
        linear, anchor = jax.lax.optimization_barrier((model.linear, model.anchor))
        return model._replace(linear=linear, anchor=anchor)

    def sums(self, terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
        return one_kernel_sums(terms, axes)


@functools.partial(jax.tree_util.register_dataclass, data_fields=(), meta_fields=())
@dataclasses.dataclass(frozen=True)
class OnChip(Execution):
    """A tile of a leaf inside a kernel (`xla.tile_kernels`): the plain computation, of arrays on the chip."""
