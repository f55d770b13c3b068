"""The description of an architecture: its code, its widths, and, by hand, where each of its units is read."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ramda_jax.structure.paths import named_leaves

NNX, LINEN, EQUINOX, FUNCTION = "nnx", "linen", "Equinox", "function"
SHARE = 0.4


def left(size: int) -> int:
    """The number of living units among `size` units."""
    return size - round(SHARE * size)


@dataclasses.dataclass(frozen=True)
class At:
    """Entries that are zero where a unit is dead: indices of one axis of a leaf.

    From `start` to `stop` the axis is `[repeats, size, inner]`, and the middle index is the unit: `inner` adjacent
    indices belong to one unit, and all units are repeated `repeats` times.
    """

    path: str
    axis: int
    inner: int = 1
    start: int = 0
    stop: int | None = None


@dataclasses.dataclass(frozen=True)
class Units:
    """Units of one kind, of which `SHARE` die: channels, hidden units, heads.

    Attributes:
        size: the number of units.
        at: the entries that must be zero for a unit to be dead.
        layers: the length of the leading axis of all leaves in `at` if each layer has its own dead units; 0 if the
            dead units are those of the whole leaf.
    """

    size: int
    at: tuple[At, ...]
    layers: int = 0

    def kill(self, leaves: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        """Sets `SHARE` of the units to zero, in place."""
        for layer in range(self.layers) if self.layers else [...]:
            dead = rng.permutation(self.size)[: self.size - left(self.size)]
            for at in self.at:
                leaf = leaves[at.path][layer]
                along = np.moveaxis(leaf, at.axis - bool(self.layers), 0)[at.start : at.stop]
                rows = np.arange(len(along)).reshape(-1, self.size, at.inner)[:, dead].ravel()
                along[rows] = 0


def units(size: int, *at: At | tuple[Any, ...], layers: int = 0) -> Units:
    """`Units`, whose places may be given as tuples."""
    return Units(size, tuple(one if isinstance(one, At) else At(*one) for one in at), layers)


@dataclasses.dataclass(frozen=True)
class Entry:
    """An architecture.

    Attributes:
        library: `NNX`, `LINEN`, `EQUINOX` or `FUNCTION`.
        make: a function of the widths by name that makes the model; for nnx also of `rngs`, for Equinox of `key`. For
            functions it returns the shapes of the variables, as a tree of tuples.
        whole: the widths before compaction.
        expert: the widths that remain if everything dead is removed.
        units: everything that is removable.
        inputs: a function of (a random generator, the batch size).
        apply: the function of (variables, *inputs), for functions.
        call, resize, fit: as in `compact_model`.
        less: the number of removable entries that `make` cannot leave out, counted by hand.
        compared: a function that selects the outputs to compare; None for all.
        stays: a pattern for the reason, if anything stays that an expert would have cut.
        tolerance: how far outputs and gradients may differ, relative to the largest entry; gradients ten times as far.
    """

    library: str
    make: Callable[..., Any]
    whole: Mapping[str, Any]
    expert: Mapping[str, Any]
    units: tuple[Units, ...]
    inputs: Callable[[np.random.Generator, int], tuple[Any, ...]]
    apply: Callable[..., Any] | None = None
    call: Callable[..., Any] | None = None
    resize: Mapping[Any, Any] | None = None
    fit: Callable[..., Any] | None = None
    less: int = 0
    compared: Callable[[Any], Any] | None = None
    stays: str = ""
    tolerance: float = 1e-5

    def batch(self, size: int, seed: int) -> tuple[Any, ...]:
        """Inputs, the same in every process."""
        found = self.inputs(np.random.default_rng(seed), size)
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) if np.asarray(x).dtype.kind == "f" else x, found)

    def fresh(self, widths: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        """(the model without values, its variables as shapes)."""
        make, widths = self.make, dict(self.whole if widths is None else widths)
        if self.library == NNX:
            model = nnx.eval_shape(lambda: make(**widths, rngs=nnx.Rngs(0)))
            return model, nnx.state(model)
        if self.library == EQUINOX:
            model = eqx.filter_eval_shape(lambda key: make(**widths, key=key), jax.random.key(0))
            return model, eqx.filter(model, _is_shape)
        if self.library == LINEN:
            module = make(**widths)
            given = module if self.call is None else _Called(module, self.call)
            return module, jax.eval_shape(given.init, jax.random.key(0), *self.batch(2, 0))
        shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), make(**widths), is_leaf=_is_tuple)
        return self.apply, shapes

    def least(self) -> int:
        """The number of entries that an expert would leave: those of the model with the remaining widths."""
        _, variables = self.fresh(self.expert)
        return sum(math.prod(leaf.shape) for _, leaf in named_leaves(variables)) - self.less

    def dead(self, seed: int = 0) -> tuple[Any, Any]:
        """(the model with random values and dead units, its variables if it does not hold them itself)."""
        model, shapes = self.fresh()
        rng = np.random.default_rng(seed)
        named = {path: fill(path, leaf, rng) for path, leaf in named_leaves(shapes)}
        for one in self.units:
            one.kill(named, rng)
        values = jax.tree.structure(shapes).unflatten(
            jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in named.values()
        )
        if self.library == NNX:
            model = nnx.merge(nnx.graphdef(model), values)
            model.eval()
            return model, None
        if self.library == EQUINOX:
            return eqx.combine(values, eqx.filter(model, _is_shape, inverse=True)), None
        return model, values


@dataclasses.dataclass(frozen=True)
class _Called:
    """A linen module for `init` that is not called in the usual way."""

    module: Any
    call: Callable[..., Any]

    def init(self, key, *inputs):
        return self.module.init(key, *inputs)


def fill(path: str, leaf: Any, rng: np.random.Generator) -> Any:
    """Random numbers, so that a dead unit is not a zero unit: biases are random too, and variances are positive."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), leaf.shape)
    dtype = np.dtype(leaf.dtype)
    if dtype.kind not in "fc":
        return np.zeros(leaf.shape, dtype)
    name = path.rpartition("/")[2]
    if "cache" in path:
        return np.zeros(leaf.shape, dtype)
    if "var" in name:
        return rng.uniform(0.5, 2.0, leaf.shape).astype(dtype)
    if leaf.ndim <= 1 or "bias" in name or "scale" in name:
        return rng.normal(0.5, 0.3, leaf.shape).astype(dtype)
    fan = math.prod(leaf.shape[:-1]) ** 0.5
    return (rng.normal(size=leaf.shape) / min(fan, 4.0)).astype(dtype)


def _is_shape(leaf):
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _is_tuple(leaf):
    return isinstance(leaf, tuple)


def normal(*shape: int) -> Callable[..., tuple[Any, ...]]:
    """Inputs of one array `[batch, *shape]` of normal numbers."""
    return lambda rng, batch: (rng.normal(size=(batch, *shape)),)


def tokens(vocabulary: int, length: int) -> Callable[..., tuple[Any, ...]]:
    """Inputs of one array `[batch, length]` of tokens."""
    return lambda rng, batch: (jnp.asarray(rng.integers(0, vocabulary, (batch, length)), jnp.int32),)


def over_batch(model: Any, *inputs: Any) -> Any:
    """Calls an Equinox model, which takes a single example, on a batch."""
    return jax.vmap(model)(*inputs)
