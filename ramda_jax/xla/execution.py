"""How a solve is run. It never changes what is computed, except by rounding.

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
        """`x`, which several passes over the data read; `like` is an array of its shape that is in memory anyway."""
        del like
        return x

    def each_pass(
        self, make: Callable[["QuadraticModel"], jax.Array], model: "QuadraticModel"
    ) -> Callable[..., jax.Array]:
        """A function that gives the array `make(model)` for one pass over the data.

        Args:
            make: from a `QuadraticModel` of one leaf to an array of the leaf's shape.
            model: the model.

        Returns:
            A function of `after`, a scalar that the pass before has computed; None for a first pass.
        """
        return lambda after=None: make(model)

    def read_again(self, model: "QuadraticModel") -> "QuadraticModel":
        """The model, for one more pass over the data that computes again what it needs of it."""
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
        """`known()` if the scalar `done` is True, else `go_on()`: named tuples of the same type."""
        return jax.lax.cond(done, known, go_on)


#: Of a solver that is called by hand.
PLAIN = Execution()


@functools.partial(jax.tree_util.register_dataclass, data_fields=("after",), meta_fields=())
@dataclasses.dataclass(frozen=True)
class InTurn(Execution):
    """A whole leaf; the leaves are solved one after the other.

    Large temporaries wait for the leaf before (`keep_after`), so that those of one leaf at most are in memory.

    Attributes:
        after: a scalar that the leaf before has computed.
    """

    after: Any

    def keep(self, x: jax.Array, like: jax.Array) -> jax.Array:
        return keep_after(x, self.after, like)

    def each_pass(
        self, make: Callable[["QuadraticModel"], jax.Array], model: "QuadraticModel"
    ) -> Callable[..., jax.Array]:
        # Each pass computes its array again: if XLA kept that of the first pass for the later ones, it would be one
        # temporary more (0.55 instead of 0.46 of the parameters' bytes, `benchmarks/NOTES.md`, "Attempts").
        def of_pass(after=None):
            if after is None:
                return make(model)
            return make(model._replace(anchor=keep_after(model.anchor, after, model.linear)))

        return of_pass

    def unless(
        self, done: jax.Array, known: Callable[[], NamedTupleT], go_on: Callable[[], NamedTupleT]
    ) -> NamedTupleT:
        chosen = super().unless(done, known, go_on)
        # The first field goes into the state, sharded as there. A branch's output loses the sharding of its operands;
        # selecting again outside of the branches restores it.
        return chosen._replace(**{chosen._fields[0]: jnp.where(done, known()[0], chosen[0])})


@functools.partial(jax.tree_util.register_dataclass, data_fields=("after",), meta_fields=("axis_name",))
@dataclasses.dataclass(frozen=True)
class Stacked(InTurn):
    """Leaves of equal shape, stacked, under a `jax.vmap` with a named axis.

    Attributes:
        axis_name: the name of that axis. The largest over this axis is one answer for all leaves. With an answer for
            each leaf, `cond` would become a `select`, which computes both branches.
    """

    axis_name: str = "leaves"

    def largest(self, x: jax.Array) -> jax.Array:
        return jax.lax.pmax(x, self.axis_name)


@functools.partial(jax.tree_util.register_dataclass, data_fields=("after",), meta_fields=())
@dataclasses.dataclass(frozen=True)
class InCache(InTurn):
    """A tile of a leaf, small enough for a core's cache: what several passes read is computed once and kept there."""

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
        # The barrier makes XLA compute again what it needs of these two. Otherwise it would keep that of the last pass
        # in an array: 4 bytes more a parameter (`benchmarks/NOTES.md`, "On accelerators").
        linear, anchor = jax.lax.optimization_barrier((model.linear, model.anchor))
        return model._replace(linear=linear, anchor=anchor)

    def sums(self, terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
        return one_kernel_sums(terms, axes)
