"""Types that recur in signatures: trees, shapes, numbers, and specifications of regularizers and solvers."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar, Union

import jax
import numpy as np
import optax

if TYPE_CHECKING:
    from ramda_jax.regularizers.base import Regularizer
    from ramda_jax.solvers.base import Solver
    from ramda_jax.subproblem.strengths.target import Target

#: A pytree of arrays, such as the parameters: dicts, Flax's states, dataclasses, and classes that a user has
#: registered.
Tree: TypeAlias = Any
#: A pytree of the same kind as another.
TreeT = TypeVar("TreeT")
#: The path of a leaf, a tuple of the keys of `jax.tree_util`.
KeyPath: TypeAlias = tuple[Any, ...]
#: The shape of an array.
Shape: TypeAlias = tuple[int, ...]
#: Axes of an array.
Axes: TypeAlias = tuple[int, ...]
#: By the leaf's path which groups, entries or singular values are alive: boolean arrays.
Support: TypeAlias = Mapping[str, jax.Array | np.ndarray]
#: What a method takes as `regularizer`: None, a `Regularizer`, a flat mapping of patterns, or a tree of these.
RegularizerSpec: TypeAlias = Union["Regularizer", Mapping[Any, Any], tuple[Any, ...], list[Any], None]
#: What a method takes as `strength`: a number, a schedule, a `Target`, or a mapping of patterns to these.
StrengthSpec: TypeAlias = Union[optax.ScalarOrSchedule, "Target", Mapping[str, Any]]
#: What a group regularizer takes as `groups`: a name, or the axes that index the groups.
GroupSpec: TypeAlias = Literal["input", "output", "heads", "kernel"] | int | tuple[int, ...]
#: What a group regularizer takes as `group_weight`: a rule, a number, an array of one per group, or a function
#: of a leaf's path and shape.
GroupWeight: TypeAlias = (
    Literal["sqrt_size", "sqrt_layer_size"] | float | jax.typing.ArrayLike | list[Any] | Callable[[str, Shape], Any]
)
#: What a method takes as `solver`: None for the defaults, a `Solver` for all, or a mapping of patterns.
SolverSpec: TypeAlias = Union["Solver", Mapping[str, "Solver | None"], None]
#: The diagonal metric of a method: one number (RMDA, ProxSGD), or one per entry.
MetricKind: TypeAlias = Literal["scalar", "diagonal"]
#: A real number, of Python or JAX; if the docstring says so, also an array that broadcasts.
Scalar: TypeAlias = float | jax.Array


class StageSettings(TypedDict):
    """The result of `stages` without `eps`: keyword arguments of `ramda` and of `rmda`."""

    learning_rate: optax.ScalarOrSchedule
    averaging: optax.ScalarOrSchedule
    restarts: tuple[int, ...]


class AdaptiveStageSettings(StageSettings):
    """The result of `stages` with `eps`: keyword arguments of `ramda`."""

    eps: optax.ScalarOrSchedule
