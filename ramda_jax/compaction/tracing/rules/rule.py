"""The rule of a primitive."""

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

    JAX's own primitives have rules. For another primitive, such as a kernel or a callback, give a rule to `trace_dims`
    or `compact_model` by `rules=`. Without a rule, everything that the primitive touches stays whole.

    Attributes:
        labels: a function (walk, visit) of the walk and the equation. `visit.inputs` has the equation's inputs, each
            with `shape` and `labels` (a label for each axis), and `visit.equation.params` has its parameters. The
            function returns for each output a list with a label for each axis: the label of an input's axis whose
            indices the output keeps, or a new one by `walk.indices.axis(size, reason)`. `walk.indices.unify(a, b)` says
            that the indices of two axes are deleted together, and `walk.indices.freeze(label, reason)` that the indices
            of an axis stay. It returns None if it does not know this form of the primitive. A rule claims this: if
            indices that are free are deleted, each from all axes that share it, the primitive computes the same output
            with these indices deleted.
        size_params: the names of the equation's parameters that follow from sizes. They may differ in the small model;
            all other parameters must be the same.
        check: a function (visit, small, masks) of the equation in the whole model, the equation in the small model, and
            a function from a label to an array of booleans, the indices kept. It returns what is wrong with the
            parameters in `size_params`, or "" if nothing is. None if the shapes of the outputs determine these
            parameters, or if they only say where a jaxpr came from.

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
