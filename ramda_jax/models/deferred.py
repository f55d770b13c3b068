"""Arrays that are worked out, entry by entry, where they are needed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


class Deferred:
    """`function(*operands)`, entry by entry, not worked out yet.

    A model builder that hands its metric on so lets the solver of a large leaf work it out block by block, where it
    stays in the cache, from arrays that are in memory anyway. It is a leaf to `jax.tree`; JAX and NumPy take it for
    the array that it stands for.

    Args:
        function: elementwise.
        operands: arrays of one shape, other `Deferred` ones among them, and scalars.
    """

    def __init__(self, function: Callable, *operands):
        self.function = function
        self.operands = operands
        result = jax.eval_shape(function, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands))
        self.shape, self.dtype, self.ndim, self.size = result.shape, result.dtype, result.ndim, result.size

    def __jax_array__(self):
        return self.part(lambda x: x)

    def __array__(self, dtype=None, copy=None):
        del copy  # It is one.
        return self.__jax_array__().__array__(dtype)

    def astype(self, dtype):
        """The same in another dtype."""
        return self if dtype == self.dtype else Deferred(lambda x: x.astype(dtype), self)

    def part(self, cut: Callable):
        """What the function gives of that part of the operands which `cut` gives of an array; of scalars all."""
        return self.function(*(worked_out(x, cut) for x in self.operands))


def worked_out(x, cut=lambda x: x):
    """x, an array or a `Deferred`, as an array: the part of it that `cut` gives; of a scalar all."""
    if isinstance(x, Deferred):
        return x.part(cut)
    return cut(x) if x.ndim else x
