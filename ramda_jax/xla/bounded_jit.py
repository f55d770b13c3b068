"""A `jax.jit` that keeps a limited number of compiled programs, the most recently used ones."""

import collections
import functools
import threading
from collections.abc import Callable
from typing import Any

import jax


class BoundedJit:
    """A function that is compiled once for each signature. At most `size` programs are kept.

    `jax.jit` keeps every program as long as its function exists, and a function of a module exists for ever. Here each
    signature has its own `jax.jit`, and the least recently used one is released with its program. If it is called
    later, it is compiled again.

    Args:
        function: a function of some static arguments, then pytrees of arrays, all by position.
        num_static: the number of static arguments, which must be hashable.
        size: the largest number of programs that are kept. A program is released after `size` others have been used
            since. So this should be more than the number of programs that are used in turn.

    Example:
        >>> import jax.numpy as jnp
        >>> power = BoundedJit(lambda exponent, x: x**exponent, num_static=1, size=2)
        >>> [float(power(exponent, jnp.float32(2.0))) for exponent in (1, 2, 3)], len(power)
        ([2.0, 4.0, 8.0], 2)
    """

    def __init__(self, function: Callable[..., Any], num_static: int, size: int) -> None:
        self._function = function
        self._num_static = num_static
        self.size = size
        self._compiled: collections.OrderedDict[Any, Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._compiled)

    def __call__(self, *args: Any) -> Any:
        static, arrays = args[: self._num_static], args[self._num_static :]
        leaves, treedef = jax.tree.flatten(arrays)
        key = (static, treedef, *((jax.typeof(leaf), getattr(leaf, "sharding", None)) for leaf in leaves))
        with self._lock:
            compiled = self._compiled.get(key)
            if compiled is None:
                # Each signature has its own function: JAX keeps what it traces and compiles as long as the function
                # exists.
                compiled = self._compiled[key] = jax.jit(functools.partial(self._function, *static))
            self._compiled.move_to_end(key)
            released = [self._compiled.popitem(last=False)[1] for _ in range(len(self._compiled) - self.size)]
        for old in released:
            old.clear_cache()
        return compiled(*arrays)
