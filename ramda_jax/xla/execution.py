"""How a solve is run. This never changes what is computed, except by rounding.

A solver calls the methods of its `Context.run`. `Execution` itself is the plain computation, for a solver that is
called by hand. The library's own steps pass one of the subclasses, which gives the same values by a faster program.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from ramda_jax.typing import Axes
from ramda_jax.xla.hints import keep_after, opaque_zero
from ramda_jax.xla.one_program import one_program
from ramda_jax.xla.reductions import fused_sums, one_kernel_sums, plain_sums

if TYPE_CHECKING:
    from ramda_jax.builders.quadratic import QuadraticModel


@functools.partial(jax.tree_util.register_dataclass, data_fields=(), meta_fields=())
@dataclasses.dataclass(frozen=True)
class Execution:
    """The plain computation.

    Attributes:
        passes_know_starts: whether the compiler knows where a leaf's numbers per group start in the vector of all
            groups, when a pass over the data reads them. The solution's starts are `hidden` all the same.
    """

    passes_know_starts: ClassVar[bool] = False

    def keep(self, x: jax.Array, like: jax.Array) -> jax.Array:
        """Returns `x`, which several passes over the data read; `like` is an array of its shape already in memory."""
        del like
        return x

    def read_again(self, model: "QuadraticModel") -> "QuadraticModel":
        """Returns the model for another pass over the data, which computes everything from it again."""
        return model

    def sums(self, terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
        """The sums of several arrays of one shape over `axes`, kept as axes of length one."""
        return plain_sums(terms, axes)

    def largest(self, x: jax.Array) -> jax.Array:
        """The largest of the scalars `x` of all leaves that are solved together."""
        return x

    def hidden(self, numbers: Sequence[int]) -> Sequence[Any]:
        """Returns whole numbers, where that makes fewer kernels as scalars whose values the compiler does not know."""
        return numbers

    def quotients(
        self, rhs: jax.Array, metric: jax.Array, reach: jax.Array, divisor: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """`rhs / divisor` and `metric * reach / divisor`, for a normal or infinite positive divisor."""
        # A finite numerator keeps the second at most 1 where the divisor overflows, and not NaN.
        return rhs / divisor, jnp.minimum(metric * reach, jnp.finfo(rhs.dtype).max) / divisor


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


@functools.partial(jax.tree_util.register_dataclass, data_fields=("after",), meta_fields=("axis_name",))
@dataclasses.dataclass(frozen=True)
class Stacked(InTurn):
    """Leaves of equal shape, stacked, under a `jax.vmap` with a named axis.

    Attributes:
        axis_name: the name of that axis. The maximum over this axis is the same for all leaves, so that their passes
            are one loop.
    """

    axis_name: str = "leaves"

    def largest(self, x: jax.Array) -> jax.Array:
        return jax.lax.pmax(x, self.axis_name)


@functools.partial(jax.tree_util.register_dataclass, data_fields=("after",), meta_fields=())
@dataclasses.dataclass(frozen=True)
class InCache(InTurn):
    """A tile of a leaf, or small leaves, in a core's cache, from where several sums are taken in one pass."""

    def sums(self, terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
        return fused_sums(terms, axes)

    def hidden(self, numbers: Sequence[int]) -> Sequence[Any]:
        zero = opaque_zero(self.after)
        # A division is so expensive in XLA's cost model that its result is stored. A sum would be fused into each slice
        # as a constant.
        return [jax.lax.div(zero + number, zero + 1) for number in numbers]


@functools.partial(jax.tree_util.register_dataclass, data_fields=(), meta_fields=())
@dataclasses.dataclass(frozen=True)
class AtOnce(Execution):
    """All leaves of a tree at once, on an accelerator."""

    # Only then does XLA for GPUs make the first pass one kernel with the writing of V and U: 60 instead of 70 bytes a
    # parameter for RAMDA's step of a decoder on an H100 (`benchmarks/NOTES.md`, "On accelerators").
    passes_know_starts = True

    def read_again(self, model: "QuadraticModel") -> "QuadraticModel":
        linear, anchor = _read_again_on_tpus(model.linear, model.anchor)
        return model._replace(linear=linear, anchor=anchor)

    def sums(self, terms: Sequence[jax.Array], axes: Axes) -> tuple[jax.Array, ...]:
        return one_kernel_sums(terms, axes)

    def hidden(self, numbers: Sequence[int]) -> Sequence[Any]:
        return jax.lax.optimization_barrier(tuple(jnp.asarray(number, jnp.int32) for number in numbers))

    def quotients(
        self, rhs: jax.Array, metric: jax.Array, reach: jax.Array, divisor: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # XLA for GPUs fuses these into more of the sums: 61.2 to 59.6 bytes a parameter for RAMDA's step of a decoder
        # on an H100, and 66.3 to 62.7 for ResNet50. On CPUs they would take the step from 2.6 to 4.3 times AdamW
        # (`benchmarks/NOTES.md`).
        return rhs / divisor, metric * (reach / divisor)


@functools.partial(jax.tree_util.register_dataclass, data_fields=(), meta_fields=())
@dataclasses.dataclass(frozen=True)
class OnChip(Execution):
    """A tile of a leaf inside a kernel (`xla.tile_kernels`), with arrays on the chip."""

    def quotients(
        self, rhs: jax.Array, metric: jax.Array, reach: jax.Array, divisor: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # A division takes longer than two multiplications.
        inverse = 1 / divisor
        return rhs * inverse, metric * (reach * inverse)


@one_program()
def _read_again_on_tpus(linear, anchor):
    # XLA for TPUs would keep an array of the last pass: 56 bytes a parameter instead of 52 for ProxAdamW's step of a
    # matrix. On an H100 a barrier costs 1 to 4 bytes; only `strict` would save 4 by it.
    return jax.lax.platform_dependent(
        linear,
        anchor,
        tpu=lambda *arrays: jax.lax.optimization_barrier(arrays),
        default=lambda *arrays: arrays,
    )
