"""Types that recur in signatures: what a user may write for a regularizer, for groups, for a solver, for stages."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import jax
import optax

if TYPE_CHECKING:
    from ramda_jax.regularizers.base import Regularizer
    from ramda_jax.solvers.base import Solver

#: What a method takes as `regularizer`: None, a `Regularizer`, a flat mapping of patterns, or a tree of these.
RegularizerSpec: TypeAlias = "Regularizer | Mapping[str, Any] | Sequence[Any] | optax.Params | None"
#: What a group regularizer takes as `groups`: a name, or the axes that index the groups.
GroupSpec: TypeAlias = Literal["input", "output", "heads", "kernel"] | int | tuple[int, ...]
#: What a method takes as `solver`: None for the defaults, a `Solver` for all, or a mapping of patterns.
SolverSpec: TypeAlias = "Solver | Mapping[str, Solver | None] | None"
#: The diagonal metric of a method: one number (RMDA, ProxSGD), or one per entry.
MetricKind: TypeAlias = Literal["scalar", "diagonal"]
#: A real number, of Python, NumPy or JAX.
Scalar: TypeAlias = float | jax.Array


class StageSettings(TypedDict, total=False):
    """What `stages` returns: keyword arguments of `ramda`, and without `eps` of `rmda`."""

    learning_rate: optax.ScalarOrSchedule
    averaging: optax.ScalarOrSchedule
    eps: optax.ScalarOrSchedule
    restarts: tuple[int, ...]
