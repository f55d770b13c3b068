"""The sums of products over units, and the terms of constant units in them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.folding.biases import Bias, after
from ramda_jax.compaction.folding.moved import entries_of, moved_leaf
from ramda_jax.compaction.tracing.program import Reader, Value, Visit
from ramda_jax.compaction.tracing.recipes import Recipe
from ramda_jax.compaction.tracing.trace import Dims

_LOOPS = ("scan", "while", "cond")


@dataclasses.dataclass(eq=False)
class Summed:
    """A product or a convolution of units with a kernel, outside of loops.

    Attributes:
        visit: the equation.
        side: the position of the kernel among its inputs.
        axes: the axes that are summed over, of the units and of the kernel, in the same order.
        bias: the bias that is added to it, or the reason why there is none.
    """

    visit: Visit
    side: int
    axes: tuple[tuple[int, ...], tuple[int, ...]]
    bias: Bias | str = ""

    @property
    def kernel(self) -> Value:
        """The factor that depends on parameters only."""
        return self.visit.inputs[self.side]

    @property
    def units(self) -> Value:
        """The factor that depends on the inputs."""
        return self.visit.inputs[1 - self.side]

    def is_of(self, reader: Reader) -> bool:
        """Whether a reader of the trace is this sum."""
        return (
            len(reader.sides) == len(reader.activations) == 1
            and reader.sides[0][0] is self.kernel.recipe
            and reader.activations[0][0] is self.units
        )


def find_sums(dims: Dims) -> list[Summed]:
    """All products and convolutions of units with a kernel outside of loops."""
    result, depth = [], []
    for visit in dims.walk.visits:
        name, params = visit.equation.primitive.name, visit.equation.params
        if name in _LOOPS:
            if depth and depth[-1] is visit.equation:
                depth.pop()
            else:
                depth.append(visit.equation)
        elif depth or name not in ("dot_general", "conv_general_dilated"):
            continue
        else:
            made = [value.recipe is not None for value in visit.inputs]
            if made.count(True) != 1:
                continue
            side = made.index(True)
            if name == "dot_general":
                axes = [tuple(axes) for axes in params["dimension_numbers"][0]]
            elif side == 1 and params["feature_group_count"] == params["batch_group_count"] == 1:
                numbers = params["dimension_numbers"]
                axes = [(numbers.lhs_spec[1],), (numbers.rhs_spec[1],)]
            else:
                continue
            result.append(Summed(visit, side, (axes[1 - side], axes[side])))
    return result


def contributions(
    dims: Dims,
    leaves: Mapping[str, Any],
    inputs: Sequence[Any],
    chosen: Sequence[tuple[Summed, np.ndarray]],
) -> list[np.ndarray]:
    """The terms that the chosen units add to each sum, at the point where its bias is added.

    Args:
        dims: the trace.
        leaves: the variables by path.
        inputs: the arrays of the example arguments, in their order.
        chosen: sums with a bias, each with a mask of the indices that it sums over.
    """

    def run(leaves, inputs):
        values = evaluate(dims, leaves, inputs)
        cache: dict[Recipe, Any] = {}

        def known(value):
            return value.literal if value.recipe is None else value.recipe.evaluate(leaves, cache)

        result = []
        for summed, mask in chosen:
            own, order = summed.axes[0], np.argsort(summed.axes[0])
            shape = [size if axis in own else 1 for axis, size in enumerate(summed.units.shape)]
            factors: list[Any] = [None, None]
            factors[summed.side] = known(summed.kernel)
            kept = np.transpose(mask, order).reshape(shape)
            factors[1 - summed.side] = jnp.where(kept, values[summed.units.number], 0)
            equation = summed.visit.equation
            assert isinstance(summed.bias, Bias)
            result.append(after(summed.bias, equation.primitive.bind(*factors, **equation.params), known))
        return result

    with jax.default_matmul_precision("highest"):
        return [np.asarray(found) for found in jax.jit(run)(dict(leaves), list(inputs))]


def evaluate(dims: Dims, leaves: Mapping[str, Any], inputs: Sequence[Any]) -> dict[int, Any]:
    """The values of a trace by number, without those in loops."""
    values = {value.number: leaves[path] for path, value in dims.leaves.items()}
    values |= {value.number: array for value, array in zip(dims.inputs.values(), inputs, strict=True)}
    loops: list[tuple[Any, Any]] = []

    def of(value):
        if value.literal is not None:
            return value.literal
        # A value that is made only of arrays without entries is not in the trace.
        return values[value.number] if value.number in values else jnp.zeros(value.shape, value.dtype)

    def read(visit):
        return list(map(of, visit.inputs))

    for visit in dims.walk.visits:
        equation = visit.equation
        if equation.primitive.name in _LOOPS:
            if loops and loops[-1][0] is equation:
                _, found = loops.pop()
                if not loops:
                    values |= zip((value.number for value in visit.outputs), found, strict=True)
            else:
                loops.append((equation, [] if loops else equation.primitive.bind(*read(visit), **equation.params)))
        elif not loops:
            found = equation.primitive.bind(*read(visit), **equation.params)
            found = found if equation.primitive.multiple_results else [found]
            values |= zip((value.number for value in visit.outputs), found, strict=True)
    return values


def changed_leaves(
    leaves: Mapping[str, Any], chosen: Sequence[tuple[Summed, np.ndarray]], added: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """The kernels without the rows of the chosen units, and the biases with the units' terms."""
    result = {}

    def array(path):
        return result.setdefault(path, np.array(leaves[path]))

    for (summed, mask), part in zip(chosen, added, strict=True):
        path = moved_leaf(summed.kernel.recipe)
        places = entries_of(summed.kernel.recipe, array(path).size).reshape(summed.kernel.shape)
        order = np.argsort(summed.axes[1])
        shape = [size if axis in summed.axes[1] else 1 for axis, size in enumerate(summed.kernel.shape)]
        rows = np.broadcast_to(np.transpose(mask, order).reshape(shape), places.shape)
        array(path).reshape(-1)[places[rows]] = 0
        bias = summed.bias
        assert isinstance(bias, Bias)
        leaf = array(bias.path)
        leaf += (bias.sign * by_entry(bias, part, leaf.size)[0]).reshape(leaf.shape).astype(leaf.dtype)
    return result


def by_entry(bias: Bias, part: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The number that each entry of the bias must take over: (mean over its positions, largest distance from it)."""
    places = np.broadcast_to(entries_of(bias.value.recipe, size).reshape(bias.value.shape), part.shape).reshape(-1)
    numbers = part.astype(np.float64).reshape(-1)
    count = np.bincount(places, minlength=size)
    mean = np.bincount(places, numbers, size) / np.maximum(count, 1)
    worst = np.zeros(size)
    np.maximum.at(worst, places, np.abs(numbers - mean[places]))
    return mean, worst
