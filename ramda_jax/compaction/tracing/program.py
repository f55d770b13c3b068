"""The result of a walk: values, equations, and their readers."""

import dataclasses
from typing import Any

import numpy as np

from ramda_jax.compaction.tracing.recipes import Recipe


@dataclasses.dataclass(eq=False)
class Value:
    """A value of the program.

    Attributes:
        number: its position in the order in which the walk creates values.
        shape, dtype: of the array.
        labels: a label for each axis.
        recipe: how it is computed from parameters; None if it depends on the inputs.
        literal: the number, if the value is a literal of the program; else None.
    """

    number: int
    shape: tuple[int, ...]
    dtype: Any
    labels: list[np.ndarray]
    recipe: Recipe | None = None
    literal: Any = None


@dataclasses.dataclass(eq=False)
class Visit:
    """An equation that was walked.

    Attributes:
        equation: of the jaxpr.
        inputs, outputs: values.
        notes: for a parameter of the equation that counts indices, the label of these indices, by the parameter's name.
        ignored: the positions of inputs that have no influence, such as the start of a slice that is the whole axis, or
            the inputs of an array without entries.
    """

    equation: Any
    inputs: list[Value]
    outputs: list[Value]
    notes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    ignored: set[int] = dataclasses.field(default_factory=set)

    @property
    def name(self) -> str:
        """The primitive's name, with the name of the module it is in if there is one."""
        scope = str(getattr(self.equation.source_info, "name_stack", ""))
        return f"{self.equation.primitive.name}{f' in {scope}' if scope else ''}"


@dataclasses.dataclass(eq=False)
class Reader:
    """A contraction: where one factor is zero, the other is not read.

    Attributes:
        name: the primitive's name and module.
        contracted: the labels of the axes that are summed over.
        sides: the factors that are computed from parameters, each as (recipe, its contracted axes, the labels of its
            other axes by axis). A term of the sum vanishes if either factor is zero.
        own: for each of `sides` the labels of its contracted axes before they were unified with those of the other
            factor; empty if the rule does not say.
        activations: the factors that depend on the inputs, as (value, its contracted axes in the order of
            `contracted`). They are zero wherever the values that they are computed from make them zero.
    """

    name: str
    contracted: list[np.ndarray]
    sides: list[tuple[Recipe, tuple[int, ...], dict[int, np.ndarray]]]
    own: list[list[np.ndarray]] = dataclasses.field(default_factory=list)
    activations: list[tuple[Value, tuple[int, ...]]] = dataclasses.field(default_factory=list)
