"""Groups that span leaves: index i of all that reads a channel, so that what is zeroed is what can be removed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ramda_jax.compaction.planning.make_plan import check_leaves
from ramda_jax.compaction.tracing.trace import Dims
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups.lasso import GroupLasso
from ramda_jax.structure.paths import named_leaves
from ramda_jax.validation import require_params

COUPLED, REST = "coupled", "rest"


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """The rows of a leaf that belong to a width.

    Attributes:
        path: of the leaf, among the parameters.
        axis: along which the rows lie.
        rows: int array `[size, rows per index]`, the rows of each index of the width.
    """

    path: str
    axis: int
    rows: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Coupling:
    """Parameters put in another order: an array for each width, whose row i is all that reads index i. From `couple`.

    Attributes:
        parts: from widths, by name, to what reads them.
        rest: from paths to (axis, rows) that no free width is read by; the axis is None where that is the whole leaf.
        shapes: of the parameters by path.
    """

    parts: dict[str, tuple[Part, ...]]
    rest: dict[str, tuple[int | None, np.ndarray]]
    shapes: dict[str, tuple[int, ...]]

    def pack(self, params: Any) -> dict[str, dict[str, jax.Array]]:
        """The parameters as `{"coupled": {name: [size, entries]}, "rest": {path: array}}`; gradients alike.

        Raises:
            CompactionError: other paths or shapes than those that were coupled, such as those of the small model.
        """
        leaves = dict(named_leaves(params))
        # Indexing would not say so: JAX takes the last row for one beyond it.
        check_leaves(self.shapes, leaves)
        coupled = {}
        for name, parts in self.parts.items():
            rows = [jnp.moveaxis(leaves[part.path], part.axis, 0)[part.rows] for part in parts]
            coupled[name] = jnp.concatenate([part.reshape(len(part), -1) for part in rows], axis=1)
        rest = {}
        for path, (axis, rows) in self.rest.items():
            rest[path] = leaves[path] if axis is None else jnp.take(leaves[path], rows, axis)
        return {COUPLED: coupled, REST: rest}

    def unpack(self, packed: Any, params: Any) -> Any:
        """The inverse of `pack`: a tree like `params`, with its dtypes."""
        leaves = dict(named_leaves(params))
        for path, (axis, rows) in self.rest.items():
            leaf = packed[REST][path].astype(leaves[path].dtype)
            leaves[path] = leaf if axis is None else _put(leaves[path], axis, rows, jnp.moveaxis(leaf, axis, 0))
        for name, parts in self.parts.items():
            start = 0
            for part in parts:
                leaf = leaves[part.path]
                shape = (*part.rows.shape, *np.delete(leaf.shape, part.axis).tolist())
                columns = int(np.prod(shape[1:]))
                rows = packed[COUPLED][name][:, start : start + columns].reshape(shape).astype(leaf.dtype)
                leaves[part.path] = _put(leaf, part.axis, part.rows, rows)
                start += columns
        return jax.tree.structure(params).unflatten(leaves[path] for path, _ in named_leaves(params))

    def regularizer(
        self, coupled: Regularizer | None = None, rest: Mapping[str, Regularizer | None] | None = None
    ) -> dict[str, Regularizer | None]:
        """What to give to an optimizer that `wrap` is to be put around.

        Args:
            coupled: one with groups along the first axis, for the coupled arrays; None for `GroupLasso(groups=0)`.
            rest: from patterns on the paths of the other parameters to their regularizers, such as `{"conv1/kernel":
                GroupLasso("input")}` for the layer that reads the images.
        """
        prefixed: dict[str, Regularizer | None] = {f"^{COUPLED}/": GroupLasso(groups=0) if coupled is None else coupled}
        return prefixed | dict(rest or {})

    def wrap(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        """An optimizer that sees the parameters packed. Its state is that of `optimizer`; `compact_coupling` has the
        plan by which `compact_state` makes it small.

        `eval_params` wants them packed too: `coupling.unpack(eval_params(state, coupling.pack(params)), params)`.
        """
        inner = optax.with_extra_args_support(optimizer)

        def init(params):
            return inner.init(self.pack(params))

        def update(updates, state, params=None, **extra_args):
            require_params(params)
            packed, state = inner.update(self.pack(updates), state, self.pack(params), **extra_args)
            return self.unpack(packed, updates), state

        return optax.GradientTransformationExtraArgs(init, update)


def _put(leaf, axis, rows, values):
    return jnp.moveaxis(jnp.moveaxis(jnp.asarray(leaf), axis, 0).at[rows].set(values), 0, axis)


def couple(dims: Dims, params: Any) -> Coupling:
    """Groups of the traced widths: index i of *all* that reads a residual stream, a whole head, the rows of a channel.

        psi(W) = sum_d sum_i sqrt(n_di) ||(W_r[i] for all readers r of width d)||,   n_di its number of entries

    A group LASSO leaf by leaf zeroes an input of one layer while another layer still reads the same channel, and the
    channel stays. With these groups what is zeroed is just what can be removed. The parameters are put in another
    order, with an array for each width, and the same solver solves the same kind of subproblem, exactly.

    A leaf that two widths read along different axes, as attention's output projection is by heads and by their entries,
    goes with the first: whole heads.

    Args:
        dims: from `trace_dims`, of the variables that `params` are, or are a part of.
        params: what the optimizer is given.

    Returns:
        A `Coupling`.

    Raises:
        CompactionError: a leaf of `params` that was not traced, or that may be any of several.

    Example:
        >>> import jax.numpy as jnp, ramda_jax
        >>> from ramda_jax.compaction import trace_dims
        >>> def mlp(params, x):
        ...     h = jnp.tanh(x @ params["in"])
        ...     return h @ params["a"] + jnp.sin(h @ params["b"])
        >>> params = {"in": jnp.ones((5, 8)), "a": jnp.ones((8, 3)), "b": jnp.ones((8, 3))}
        >>> coupling = couple(trace_dims(mlp, params, jnp.ones((1, 5))), params)
        >>> {name: leaf.shape for name, leaf in coupling.pack(params)["coupled"].items()}
        {'d0': (8, 6)}
        >>> optimizer = coupling.wrap(ramda_jax.ramda(0.1, coupling.regularizer(), strength=0.1))
    """
    own = dims.own_paths(params)
    axis_of: dict[str, int] = {}
    used = {path: np.zeros(0, np.int64) for path in own.values()}
    parts: dict[str, tuple[Part, ...]] = {}
    for width in dims.widths:
        found = []
        for member in () if width.reason else width.readers:
            path = own.get(member.path)
            if path is None or axis_of.get(path, member.axis) != member.axis:
                continue
            counts = np.bincount(member.index[member.index >= 0], minlength=width.size)
            if counts.min() != counts.max() or np.isin(np.flatnonzero(member.index >= 0), used[path]).any():
                continue
            order = np.argsort(member.index, kind="stable")[int((member.index < 0).sum()) :]
            found.append(Part(path, member.axis, order.reshape(width.size, -1)))
            axis_of[path] = member.axis
            used[path] = np.concatenate([used[path], order])
        if found:
            parts[width.name] = tuple(found)
    rest = {}
    for traced, path in own.items():
        if path not in axis_of:
            rest[path] = (None, np.zeros(0, np.int64))
            continue
        left = np.setdiff1d(np.arange(dims.leaves[traced].shape[axis_of[path]]), used[path])
        if len(left):
            rest[path] = (axis_of[path], left)
    return Coupling(parts, rest, {path: tuple(jnp.shape(leaf)) for path, leaf in named_leaves(params)})
