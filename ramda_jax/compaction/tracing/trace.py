"""Which axes of parameters belong together, traced from any JAX function."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.tracing.function import Program, trace_program
from ramda_jax.compaction.tracing.labels.nodes import Nodes
from ramda_jax.compaction.tracing.program import Value
from ramda_jax.compaction.tracing.recipes import Leaf
from ramda_jax.compaction.tracing.rules import Rule
from ramda_jax.compaction.tracing.units.free import UnitCount, Units
from ramda_jax.compaction.tracing.units.part import traced_paths
from ramda_jax.compaction.tracing.walk import Walk
from ramda_jax.compaction.tracing.widths import Width, find_widths, widths_table
from ramda_jax.structure.paths import check_unique, flatten_with_paths

#: A word in `overrides` instead of a name: all indices of this axis stay.
FROZEN = "frozen"
#: The reason for which the axes of a model's inputs stay.
INPUT = "the model's input"


@dataclasses.dataclass(eq=False)
class Dims:
    """The result of `trace_dims`.

    Printing it gives a table: first the free widths, then the widths that something keeps whole, and a line for each
    kind of width that can never be removed.

    Attributes:
        widths: the coupled axes, in the order of the leaves.
        leaves: the variables by path, with the labels of their axes.
        inputs: the example arguments by path.
        outputs: the values returned.
        walk: the whole trace: its equations, its readers, and which nodes are frozen.
        nodes: the nodes of all axes.
        opaque: how often each primitive without a rule occurs. The axes that it touches are frozen.
    """

    widths: tuple[Width, ...]
    leaves: dict[str, Value]
    inputs: dict[str, Value]
    outputs: list[Value]
    walk: Walk
    nodes: Nodes

    @property
    def opaque(self) -> dict[str, int]:
        return dict(self.walk.opaque)

    @functools.cached_property
    def units(self) -> Units:
        """The free indices, and the leaves that read them."""
        return Units(self)

    def own_paths(self, params: Any) -> dict[str, str]:
        """A dict from the paths of `leaves` to those in `params`, the variables that were traced or a part of them.

        Raises:
            CompactionError: a leaf of `params` that was not traced, or that may be any of several.
        """
        shapes = {path: value.shape for path, value in self.leaves.items()}
        return {traced: path for path, traced in traced_paths(shapes, params).items()}

    def count_units(self, leaves: Sequence[tuple[str, Any, Any]], deleted: Any = None) -> dict[str, UnitCount]:
        """How many groups of each leaf can ever be removed, for `describe`.

        Args:
            leaves: a triple (path, leaf, resolved regularizer or None) for each parameter.
            deleted: for each node of the trace whether it is deleted; None means the nodes that are read by zeros only.

        Returns:
            A `UnitCount` by path, for the leaves that have groups.
        """
        traced = {path: traced for traced, path in self.own_paths({path: leaf for path, leaf, _ in leaves}).items()}
        return self.units.count(
            [(traced[path], path, leaf, regularizer) for path, leaf, regularizer in leaves], deleted
        )

    def __str__(self) -> str:
        lines = widths_table(self.widths)
        if self.opaque:
            lines.append("no rule for: " + ", ".join(f"{name} ({n} times)" for name, n in self.opaque.items()))
        return "\n".join(lines)


def check_dims(dims: Any) -> None:
    """Raises unless `dims` is a trace."""
    if not isinstance(dims, Dims):
        raise TypeError(
            f"`dims` must be the result of `trace_dims`, got {type(dims).__name__}; give `trace_dims(model, *inputs)`, "
            "with `call=` where the model is not called as `model(*inputs)`."
        )


def trace_function(
    function: Callable[..., Any],
    variables: Any,
    *example_args: Any,
    overrides: Mapping[str, tuple[Any, ...]] | Any = None,
    rules: Mapping[str, Rule] | None = None,
    resize: Mapping[Any, Any] | None = None,
) -> Dims:
    """`trace_dims` of a function of (variables, *example_args)."""
    return label_program(trace_program(function, variables, *example_args), overrides, rules, resize)


def label_program(
    program: Program,
    overrides: Any = None,
    rules: Mapping[str, Rule] | None = None,
    resize: Mapping[Any, Any] | None = None,
    also: Sequence[Program] = (),
    like: Dims | None = None,
) -> Dims:
    """Labels the axes of a traced program. This runs the rules, and none of the model's code.

    The programs in `also`, of the same variables and inputs, are walked aside: they must run in the small model, but
    their outputs need not be the same. `like` is the trace of the whole program, where this is the small one's.
    """
    inputs_free, outputs_free = _resized(program, resize or {})
    rules = dict(rules or {})
    for name, rule in rules.items():
        if not isinstance(name, str) or not isinstance(rule, Rule):
            raise CompactionError(
                f"`rules` must map names of primitives to `Rule`s, got {name!r}: {rule!r}; give `Rule(labels)`."
            )
    names = program.leaves
    walk = Walk(rules, None if like is None else like.walk)
    values = []
    for number, variable in enumerate(program.jaxpr.jaxpr.invars):
        is_leaf = number < len(names)
        is_free = is_leaf or program.inputs[number - len(names)] in inputs_free
        reason = None if is_free else INPUT
        labels = [walk.indices.axis(size, reason) for size in variable.aval.shape]
        values.append(walk.value(variable.aval, labels, Leaf(names[number]) if is_leaf else None))
    leaves = dict(zip(names, values, strict=False))
    inputs = dict(zip(program.inputs, values[len(names) :], strict=True))
    _override(walk, leaves, overrides)
    outputs = walk.run(program.jaxpr, values)
    for other in also:
        walk.run_aside(other.jaxpr, values)
    for name, value in zip(program.outputs, outputs, strict=True):
        for label in value.labels if name not in outputs_free else ():
            walk.indices.freeze(label, "the model's output")
    _freeze_unused(walk, leaves)
    nodes = walk.indices.nodes()
    return Dims(find_widths(walk, nodes, leaves), leaves, inputs, outputs, walk, nodes)


def _resized(program, resize):
    """The paths of the inputs and of the outputs that may shrink."""

    def under(paths, place, what):
        found = {path for path in paths if path == str(place) or path.startswith(f"{place}/")}
        if not found:
            raise CompactionError(
                f"`resize` must map inputs to the outputs that are these after the call, or to None, but there is no "
                f"{what} {place!r}; the paths are {list(paths)}; use one of these, or how it begins."
            )
        return found

    inputs, outputs = set(), set()
    for place, result in resize.items():
        inputs |= under((*program.inputs, *program.leaves), place, "input")
        outputs |= under(program.outputs, result, "output") if result is not None else set()
    return inputs, outputs


def _freeze_unused(walk, leaves):
    """Freezes the indices of leaves that occur in no value on which an output depends."""

    def paths(visits):
        return {path for visit in visits for value in visit.inputs if value.recipe for path in value.recipe.paths()}

    used, aside = paths(walk.visits), paths(walk.aside)
    values = [value for visit in walk.visits for value in (*visit.inputs, *visit.outputs)]
    live = np.zeros(walk.indices.count, bool)
    for value in values:
        for label in value.labels:
            live[walk.indices.find(label)] = True
    for path, value in leaves.items():
        for label in value.labels if path not in used else ():
            if path in aside:
                # A row of a flattened axis occurs in a value if its channel does.
                found = [live[list(walk.indices.factors(node))].any() for node in label.tolist()]
                walk.indices.freeze(label[~np.array(found, bool)], "a leaf that no output depends on")
            else:
                walk.indices.freeze(label, "a leaf that the function does not use")


def _is_names(node):
    return node is None or (isinstance(node, tuple) and all(name is None or isinstance(name, str) for name in node))


def _override(walk, leaves, overrides):
    flat, _ = flatten_with_paths(overrides, is_leaf=_is_names)
    first = {}
    for path, (_, names) in zip(check_unique([path for path, _ in flat]), flat, strict=True):
        if names is None:
            continue
        if path not in leaves:
            raise CompactionError(
                f"`overrides` must name leaves, got {path!r}; the paths are {list(leaves)}; use one of these."
            )
        labels = leaves[path].labels
        if not _is_names(names) or len(names) != len(labels):
            raise CompactionError(
                f"`overrides` must hold a tuple of names or None for each of the {len(labels)} axes of '{path}', got "
                f"{names!r}; give one for each."
            )
        for axis, (name, label) in enumerate(zip(names, labels, strict=True)):
            if name == FROZEN:
                walk.indices.freeze(label, "the user's override")
            elif name is not None:
                other_path, other = first.setdefault(name, (f"{path}[{axis}]", label))
                if len(other) != len(label):
                    raise CompactionError(
                        f"`overrides` must give a name to axes of one length, but {name!r} is on {other_path} of "
                        f"{len(other)} and on {path}[{axis}] of {len(label)}; use another name there."
                    )
                walk.indices.unify(label, other)
