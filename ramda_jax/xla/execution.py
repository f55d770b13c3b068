"""How a solve is run, never what it computes: what a solver asks for, with answers for each place where it may run.

A solver calls the methods of its `Context.run`. `Execution` itself does nothing: a solver that is called by hand gets
it. The library's own steps pass one of the others, each of which gives the same values, up to rounding, by
a faster program.
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
    """Nothing but the plain computation."""

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
            A function of `after`, a scalar that the pass before has made, None for a first pass.
        """
        return lambda after=None: make(model)

    def read_again(self, model: "QuadraticModel") -> "QuadraticModel":
        """The model, for a pass that makes what it needs of it again."""
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
    """A whole leaf, one after the other: large temporaries wait for the leaf before (`keep_after`).

    Attributes:
        after: a scalar that the leaf before has made.
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
        axis_name: of the `jax.vmap`. By it all leaves get one answer; with an answer for each leaf, `cond` would
            become a `select`, which computes both branches.
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
        # What is made of these two is then made again, and not kept in an array for this.
        linear, anchor = jax.lax.optimization_barrier((model.linear, model.anchor))
        return model._replace(linear=linear, anchor=anchor)

    def sums(self, terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
        return one_kernel_sums(terms, axes)
