"""What the removal of a unit saves: entries of the variables, or floating-point operations of a call."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from ramda_jax.compaction.tracing.trace import Dims


def savings(dims: "Dims", of: Literal["parameters", "flops"]) -> np.ndarray:
    """For each node of a trace the cost that is saved if it alone is removed, as a float array.

    An array of sizes s_a costs the product of these. An array of products that are summed costs two operations for each
    entry. If a node has c_a indices on axis a, the cost after its removal is the product of all s_a - c_a. All of these
    are whole numbers.
    """
    nodes = dims.nodes
    saved = np.zeros(nodes.count)
    for cost, labels in counted(dims, of):
        found = [(len(label), *np.unique(nodes.of(label)[1], return_counts=True)) for label in labels]
        if not found:
            continue
        touched = np.unique(np.concatenate([own for _, own, _ in found]))
        left = np.full(len(touched), cost / max(math.prod(size for size, *_ in found), 1))
        for size, own, counts in found:
            sizes = np.full(len(touched), size)
            sizes[np.searchsorted(touched, own)] -= counts
            left *= sizes
        saved[touched] += cost - left
    return saved


def total(dims: "Dims", of: Literal["parameters", "flops"]) -> float:
    """The total of what `savings` counts."""
    return float(sum(cost for cost, _ in counted(dims, of)))


def counted(dims: "Dims", of: Literal["parameters", "flops"]) -> Iterator[tuple[float, Sequence[np.ndarray]]]:
    """Yields (cost, labels of the axes): a variable's entries, or the operations of a product or convolution."""
    return _leaves(dims) if of == "parameters" else _contractions(dims)


def _leaves(dims) -> Iterator[tuple[float, Sequence[np.ndarray]]]:
    for value in dims.leaves.values():
        yield math.prod(value.shape), value.labels


def _contractions(dims) -> Iterator[tuple[float, Sequence[np.ndarray]]]:
    """Products and convolutions: two operations for each term of a sum, times the number of steps inside a scan."""
    loops, times = [], [1]
    for visit in dims.walk.visits:
        equation, name = visit.equation, visit.equation.primitive.name
        if name in ("scan", "while", "cond"):
            # A loop is visited at its begin and at its end.
            if loops and loops[-1] is equation:
                loops.pop()
                times.pop()
            else:
                loops.append(equation)
                times.append(times[-1] * equation.params.get("length", 1))
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            summed = [visit.inputs[0].labels[axis] for axis in contracted]
            yield _cost(visit, math.prod(map(len, summed)), times), [*visit.outputs[0].labels, *summed]
        elif name == "conv_general_dilated":
            _, into, *window = equation.params["dimension_numbers"].rhs_spec
            kernel = visit.inputs[1]
            terms = math.prod(kernel.shape[axis] for axis in (into, *window))
            yield _cost(visit, terms, times), [*visit.outputs[0].labels, kernel.labels[into]]


def _cost(visit, terms, times):
    return 2 * times[-1] * terms * math.prod(visit.outputs[0].shape)
