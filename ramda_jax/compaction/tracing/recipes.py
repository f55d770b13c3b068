"""Recipes: how a value that a contraction reads is computed from parameters.

A kernel may be cast, transposed, concatenated with others or masked before it meets an activation. If a value depends
on parameters alone, its recipe says how. The recipe can be evaluated at given parameters, and shows which entries of
the value are zero.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Recipe:
    """How a value is computed from parameters and constants only.

    Attributes:
        scans: the numbers of the scans over whose steps the value is stacked, outermost first. Each is a leading axis
            of the array that `evaluate` returns.
    """

    scans: tuple[int, ...] = ()

    def evaluate(self, leaves: Mapping[str, Any], cache: "dict[Recipe, Any]") -> Any:
        """The value at the parameters `leaves`, a mapping of paths to arrays; calls share the dict `cache`."""
        if self not in cache:
            cache[self] = self._evaluate(leaves, cache)
        return cache[self]

    def _evaluate(self, leaves, cache) -> Any:
        raise NotImplementedError

    def paths(self) -> frozenset[str]:
        """The paths of the leaves that the value depends on."""
        return frozenset()


@dataclasses.dataclass(eq=False)
class Leaf(Recipe):
    """A leaf of the variables."""

    path: str

    def _evaluate(self, leaves, cache):
        return leaves[self.path]

    def paths(self) -> frozenset[str]:
        return frozenset([self.path])


@dataclasses.dataclass(eq=False)
class Constant(Recipe):
    """A number in the program, or an array that it closes over."""

    value: Any

    def _evaluate(self, leaves, cache):
        return self.value


@dataclasses.dataclass(eq=False)
class ScanStep(Recipe):
    """An argument of a scan's body: the slice, for a single step, of a value that is scanned over."""

    stacked: Recipe
    scan: int

    def __post_init__(self) -> None:
        self.scans: tuple[int, ...] = (*self.stacked.scans, self.scan)

    def _evaluate(self, leaves, cache):
        return self.stacked.evaluate(leaves, cache)

    def paths(self) -> frozenset[str]:
        return self.stacked.paths()


@dataclasses.dataclass(eq=False)
class Applied(Recipe):
    """An output of an equation whose inputs have recipes."""

    equation: Any
    inputs: tuple[Recipe, ...]
    output: int

    def __post_init__(self) -> None:
        # A scan inside another has the higher number.
        self.scans: tuple[int, ...] = tuple(sorted({scan for recipe in self.inputs for scan in recipe.scans}))
        self._paths = frozenset().union(*(recipe.paths() for recipe in self.inputs))

    def paths(self) -> frozenset[str]:
        return self._paths

    def _evaluate(self, leaves, cache):
        equation = self.equation

        def apply(*values):
            result = equation.primitive.bind(*values, **equation.params)
            return result[self.output] if equation.primitive.multiple_results else result

        for scan in reversed(self.scans):
            apply = jax.vmap(apply, in_axes=tuple(0 if scan in recipe.scans else None for recipe in self.inputs))
        return apply(*(recipe.evaluate(leaves, cache) for recipe in self.inputs))


def nonzero(recipe: Recipe, leaves: Mapping[str, Any], threshold: float, cache: "dict[Recipe, Any]") -> np.ndarray:
    """Which entries of a recipe's value are not zero at any step of the scans around it: a NumPy array of booleans.

    For a leaf that has a shape but no values, no entry is known to be zero.
    """
    made_of = {path: leaves[path] for path in recipe.paths()}
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in made_of.values()):
        shape = jax.eval_shape(lambda leaves: recipe.evaluate(leaves, {}), made_of).shape
        return np.broadcast_to(True, shape[len(recipe.scans) :])
    value = np.asarray(recipe.evaluate(leaves, cache))
    if jnp.issubdtype(value.dtype, jnp.floating):  # a threshold beyond the dtype's largest number makes all zero
        threshold = min(threshold, float(jnp.finfo(value.dtype).max))
    # Not `value == 0`: a NaN is not zero.
    return np.any(~(np.abs(value) <= threshold), axis=tuple(range(len(recipe.scans))))
