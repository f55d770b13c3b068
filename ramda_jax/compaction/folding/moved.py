"""Values that are a leaf of the variables up to moving, casting and repeating entries."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.tracing.recipes import Applied, Leaf, Recipe
from ramda_jax.compaction.tracing.trace import Dims

#: Primitives with one input that move its entries, or keep them.
MOVES = ("reshape", "broadcast_in_dim", "transpose", "squeeze", "rev", "slice")
CASTS = ("convert_element_type", "copy", "reduce_precision", "name", "sharding_constraint", "stop_gradient")


def moved_leaf(recipe: Recipe | None) -> str | None:
    """The path of the leaf from which a value is moved; None if it is made in another way or in a loop."""
    while isinstance(recipe, Applied) and recipe.equation.primitive.name in (*MOVES, *CASTS):
        recipe = recipe.inputs[0]
    return recipe.path if isinstance(recipe, Leaf) else None


def entries_of(recipe: Any, size: int) -> np.ndarray:
    """For each entry of a moved leaf, the position of the entry in the raveled leaf."""
    steps = []
    while isinstance(recipe, Applied):
        steps.append(recipe.equation)
        recipe = recipe.inputs[0]
    places = None
    for equation in reversed(steps):
        if places is None:
            places = jnp.arange(size).reshape(equation.invars[0].aval.shape)
        if equation.primitive.name in MOVES:
            places = equation.primitive.bind(places, **equation.params)
    return np.arange(size) if places is None else np.asarray(places)


def count_uses(dims: Dims) -> dict[str, int]:
    """The number of equations in which each leaf, or a value made of it, meets values that depend on the inputs."""
    uses = dict.fromkeys(dims.leaves, 0)
    loops = ("scan", "while", "cond")
    for visit in dims.walk.visits:
        if visit.equation.primitive.name not in loops and all(value.recipe is not None for value in visit.outputs):
            continue
        for value in visit.inputs:
            for path in value.recipe.paths() if value.recipe is not None else ():
                uses[path] += 1
    for value in dims.outputs:
        for path in value.recipe.paths() if value.recipe is not None else ():
            uses[path] += 1
    return uses
