"""The rule of a primitive, in one place."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ramda_jax.compaction.tracing.program import Visit
    from ramda_jax.compaction.tracing.walk import Walk


@dataclasses.dataclass(frozen=True)
class Rule:
    """The rule of a primitive: everything that compaction needs to know about it.

    JAX's own primitives have theirs. For others, such as a kernel or a callback, give one to `trace_dims` or
    `compact_model` by `rules=`; without one everything that the primitive touches stays whole.

    Attributes:
        labels: a function (walk, visit) of the walk and the equation. `visit.inputs` has the equation's inputs, each
            with `shape` and `labels`, one for each axis, and `visit.equation.params` its parameters. It returns for
            each output a list with a label for each axis: that of an input's axis whose indices it hands on, or a new
            one by `walk.indices.axis(size, reason)`. `walk.indices.unify(a, b)` says that the indices of two axes go
            together, `walk.indices.freeze(label, reason)` that those of an axis stay. None: this form of the primitive
            is unknown. The claim: with indices deleted that are free and go together, the primitive computes what it
            did, with the same indices deleted.
        size_params: names of the equation's parameters that follow from sizes. They may be others in the small model;
            all other parameters must be the same.
        check: a function (visit, small, masks) of the equation in the whole and in the small model and of the indices
            kept, an array of booleans for a label: what is wrong with the parameters in `size_params`, "" where nothing
            is. None where the shapes of the outputs fix them, or where they only tell where a jaxpr came from.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> def softplus(x):  # NumPy's, of which the trace shows a callback alone
        ...     result = jax.ShapeDtypeStruct(x.shape, x.dtype)
        ...     return jax.pure_callback(lambda x: np.logaddexp(x, 0), result, x, vmap_method="expand_dims")
        >>> def mlp(params, x):
        ...     return softplus(x @ params["in"]) @ params["out"]
        >>> params = {"in": jnp.ones((5, 8)), "out": jnp.ones((8, 3)).at[2:].set(0)}
        >>> rule = Rule(lambda walk, visit: [visit.inputs[0].labels], size_params=frozenset({"result_avals"}))
        >>> from ramda_jax.compaction import compact_model
        >>> small = compact_model(mlp, jnp.ones((4, 5)), variables=params, rules={"pure_callback": rule})
        >>> jax.tree.map(jnp.shape, small.variables)
        {'in': (5, 2), 'out': (2, 3)}
    """

    labels: Callable[["Walk", "Visit"], Sequence[Sequence[np.ndarray]] | None]
    size_params: frozenset[str] = frozenset()
    check: Callable[["Visit", "Visit", Callable[[np.ndarray], np.ndarray]], str] | None = None
