"""The inputs of a model that nothing reads. They stay, but the report lists them, because a user may want to know."""

import numpy as np

from ramda_jax.compaction.planning.liveness import Liveness
from ramda_jax.compaction.tracing.trace import INPUT, Dims


def unread_inputs(dims: Dims, liveness: Liveness) -> dict[str, tuple[int, ...]]:
    """A dict from "path[axis]" to the indices of inputs that no parameter reads and that nothing mixes with others.

    They stay because they are the model's input. An input that may shrink has no such indices: its unread indices are
    deleted, or they stay for another reason, such as the axis of a `scan`.
    """
    roots = dims.nodes.roots
    touched = _mixed(dims)
    for reader, entries in liveness.readers:
        for label in liveness.needed(reader, entries):
            touched[roots[label]] = True
    unread = {
        name: np.flatnonzero(~touched[roots[label]] & (np.array(dims.walk.indices.reasons(label)) == INPUT))
        for name, label in _input_axes(dims).items()
    }
    return {name: tuple(found.tolist()) for name, found in unread.items() if len(found)}


def _mixed(dims):
    """Which nodes an equation has frozen, as a boolean for each; the other frozen nodes are at most read."""
    indices = dims.walk.indices
    mixed = np.zeros(dims.nodes.count, bool)
    for nodes in [*indices.frozen, *(part for _, parts in indices.merged for part in parts)]:
        mixed[dims.nodes.roots[nodes]] = True
    return mixed


def _input_axes(dims):
    """The labels of the inputs' axes, and of the axes merged from these, by name."""
    first_nodes = {}
    result = {}
    for path, value in dims.inputs.items():
        for axis, label in enumerate(value.labels):
            if len(label) > 1:
                first_nodes[int(label[0])] = f"{path}[{axis}]"
                result[f"{path}[{axis}]"] = label
    for merged, parts in dims.walk.indices.merged:
        names = [first_nodes.get(int(part[0])) for part in parts if len(part) > 1]
        if names and None not in names:
            result[" x ".join(map(str, names))] = merged
    return result
