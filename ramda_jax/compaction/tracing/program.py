"""The result of a walk: values, equations, and their readers."""

import dataclasses
from typing import Any

import numpy as np

from ramda_jax.compaction.tracing.recipes import Recipe


@dataclasses.dataclass(eq=False)
class Value:
    """A value of the program.

    Attributes:
        number: its place in the order in which values arise.
        shape, dtype: of the array.
        labels: one for each axis.
        recipe: how it is made of parameters, None where it depends on the inputs.
        literal: a number that stands in the program itself, else None.
    """

    number: int
    shape: tuple[int, ...]
    dtype: Any
    labels: list[np.ndarray]
    recipe: Recipe | None = None
    literal: Any = None


@dataclasses.dataclass(eq=False)
class Visit:
    """One equation as it was walked.

    Attributes:
        equation: of the jaxpr.
        inputs, outputs: values.
        notes: labels that a parameter of the equation counts, by the parameter's name.
        ignored: the places of inputs that have no influence, such as where a slice starts that is the whole axis,
            or what an array of no entries is made of.
    """

    equation: Any
    inputs: list[Value]
    outputs: list[Value]
    notes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    ignored: set[int] = dataclasses.field(default_factory=set)

    @property
    def name(self) -> str:
        """The primitive's name and, where there is one, that of the module it stands in."""
        scope = str(getattr(self.equation.source_info, "name_stack", ""))
        return f"{self.equation.primitive.name}{f' in {scope}' if scope else ''}"


@dataclasses.dataclass(eq=False)
class Reader:
    """A contraction: where one factor is zero, the other is not read.

    Attributes:
        name: the primitive's name and place.
        contracted: the labels of the axes that are summed over.
        sides: the factors made of parameters, each as (recipe, its contracted axes, the labels of its other axes by
            axis). An entry of the sum vanishes where either is zero.
        own: for each of `sides` the labels of its contracted axes as they came, before they were unified with those of
            the other factor; empty where a rule does not say.
        activations: the factors that depend on the inputs, as (value, its contracted axes in the order of
            `contracted`). Where what makes them is zero they are zero too.
    """

    name: str
    contracted: list[np.ndarray]
    sides: list[tuple[Recipe, tuple[int, ...], dict[int, np.ndarray]]]
    own: list[list[np.ndarray]] = dataclasses.field(default_factory=list)
    activations: list[tuple[Value, tuple[int, ...]]] = dataclasses.field(default_factory=list)
