"""Groups that span leaves: the parameters in another order, with an array for each width."""

import dataclasses
import functools
import hashlib
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.grouping.parts import COUPLED, REST, Part
from ramda_jax.compaction.grouping.weighing import weighed_patterns, weighing
from ramda_jax.compaction.planning.make_plan import check_leaves
from ramda_jax.compaction.tracing.units.free import UnitCount
from ramda_jax.regularizers.base import Regularizer
from ramda_jax.regularizers.groups import GroupLasso
from ramda_jax.structure.paths import named_leaves
from ramda_jax.subproblem.packed import PackedState
from ramda_jax.tables import text_table
from ramda_jax.validation import require_params


class CoupledRegularizers(dict[str, Any]):
    """The result of `Coupling.regularizer`: patterns on packed paths, and the order of the parameters.

    Attributes:
        packing: the coupling.
        remedy: the remedy in the error about a pattern that matches nothing.
    """

    packing: "Coupling"
    remedy: str = "put the optimizer into `coupling.wrap`, or fix the pattern."


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Coupling:
    """The parameters in another order, with an array for each width whose row i has all readers of index i.

    It comes from `couple` or `couple_model`. Two couplings are equal if they have the same order.

    Attributes:
        parts: a dict from the names of widths to their readers.
        rest: a dict from paths to (axis, rows) that read no free width; the axis is None if that is the whole leaf.
        shapes: the shapes of the parameters by path.
        weights: a dict from widths to arrays `[size]` of their groups' weights; None for the roots of the sizes.
        why: the reason if there are no parts, else "".
        left_out: the traced widths that have no part, and why, as a text; "" if there are none or it is not known.
    """

    parts: dict[str, tuple[Part, ...]]
    rest: dict[str, tuple[int | None, np.ndarray]]
    shapes: dict[str, tuple[int, ...]]
    weights: dict[str, np.ndarray] | None = None
    why: str = ""
    left_out: str = ""

    @functools.cached_property
    def _digest(self):
        found = hashlib.sha256(repr((list(self.shapes.items()), self.why)).encode())
        for name, parts in self.parts.items():
            for part in parts:
                found.update(repr((name, part.path, part.axis, part.rows.shape)).encode() + part.rows.tobytes())
        for path, (axis, rows) in self.rest.items():
            found.update(repr((path, axis, rows.shape)).encode() + rows.tobytes())
        for name, weights in (self.weights or {}).items():
            found.update(name.encode() + weights.tobytes())
        return found.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coupling) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def pack(self, params: Any) -> Any:
        """The parameters as `{"coupled": {name: [size, entries]}, "rest": {path: array}}`; gradients alike.

        Args:
            params: the coupled parameters, alone or in a tree with others; packed ones are returned unchanged.

        Raises:
            CompactionError: the paths or shapes are not those that were coupled, for example those of the small model.
        """
        leaves = dict(named_leaves(params))
        if _is_packed(leaves):
            return params
        leaves = {path: leaves[name] for path, name in self._names(leaves).items()}
        # Indexing would not raise an error, because JAX clamps an index beyond the last row.
        check_leaves(self.shapes, leaves)
        coupled = {}
        for name, parts in self.parts.items():
            rows = [jnp.moveaxis(leaves[part.path], part.axis, 0)[part.rows] for part in parts]
            blocks = [part.reshape(len(part), math.prod(part.shape[1:])) for part in rows]
            coupled[name] = jnp.concatenate(blocks, axis=1)
        rest = {}
        for path, (axis, rows) in self.rest.items():
            rest[path] = leaves[path] if axis is None else jnp.take(leaves[path], rows, axis)
        return {COUPLED: coupled, REST: rest}

    def unpack(self, packed: Any, params: Any) -> Any:
        """The inverse of `pack`: a tree like `params`, with its dtypes."""
        own = dict(named_leaves(params))
        if _is_packed(own):
            return packed
        names = self._names(own)
        leaves = {path: own[name] for path, name in names.items()}
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
        own |= {name: leaves[path] for path, name in names.items()}
        return jax.tree.structure(params).unflatten(own[path] for path, _ in named_leaves(params))

    def _names(self, leaves):
        """A dict from coupled paths to those in a tree, which may have other leaves too, or a common prefix."""
        if not self.shapes.keys() <= leaves.keys():
            first = next(iter(self.shapes))
            for name in leaves:
                prefix = name.removesuffix(first)
                if name.endswith(f"/{first}") and all(prefix + path in leaves for path in self.shapes):
                    return {path: prefix + path for path in self.shapes}
            check_leaves(self.shapes, leaves)
        return {path: path for path in self.shapes}

    def regularizer(
        self,
        coupled: Regularizer | Mapping[str, Regularizer | None] | None = None,
        rest: Mapping[str, Regularizer | None] | None = None,
    ) -> CoupledRegularizers:
        """The regularizers for an optimizer in `wrap`.

        Metrics, `describe`, `freeze_structure` and the report take it with the model's own parameters.

        Args:
            coupled: a regularizer with groups along the first axis, for the coupled arrays; None for
                `GroupLasso(groups=0)`. Or a mapping of patterns on packed paths, such as `keep_group_weights` returns.
                Groups without a weight of their own have the coupling's `weights`. `TopGroups`, and all others
                whose groups have no weights, need a coupling without.
            rest: from patterns on the paths of the other parameters to their regularizers, such as `{"conv1/kernel":
                GroupLasso("input")}` for the layer that reads the images.

        Raises:
            CompactionError: nothing is coupled, because no index can be removed, and `rest` is not given.
            ValueError: the coupling has weights, and a regularizer of coupled arrays would ignore them.
        """
        if not self.parts and not rest:
            raise CompactionError(
                f"Some group must be removable, but {self.why}; use named groups, such as "
                "`GroupLasso()`, or give `rest`."
            )
        if isinstance(coupled, Mapping):
            found = weighed_patterns(coupled, self.weights or {}, [f"{REST}/{path}" for path in self.rest])
        else:
            base = GroupLasso(groups=0) if coupled is None else coupled
            found = {f"^{COUPLED}/{name}$": weighing(base, weights) for name, weights in (self.weights or {}).items()}
            if self.parts and not found:
                found = {f"^{COUPLED}/": base}
        result = CoupledRegularizers(found | dict(rest or {}))
        result.packing = self
        return result

    def wrap(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        """An optimizer that sees the parameters packed. Its state is a `PackedState` around that of `optimizer`;
        `eval_params` and `compact_state` know it, and take the model's own parameters.
        """
        inner = optax.with_extra_args_support(optimizer)

        def init(params) -> Any:
            return PackedState(inner.init(self.pack(params)), self)

        def update(updates, state, params=None, **extra_args) -> tuple[Any, Any]:
            require_params(params)
            if not isinstance(state, PackedState) or state.packing != self:
                raise ValueError(
                    f"The state must be one of this coupling, got one of {getattr(state, 'packing', type(state))!r}; "
                    "make a state for these parameters by `optimizer.init(params)`."
                )
            packed, inner_state = inner.update(self.pack(updates), state.inner, self.pack(params), **extra_args)
            return self.unpack(packed, updates), PackedState(inner_state, self)

        return optax.GradientTransformationExtraArgs(init, update)

    def count_units(self, leaves: Sequence[tuple[str, Any, Any]]) -> dict[str, UnitCount]:
        """`Dims.count_units` for packed leaves: every coupled group is a unit."""
        counts = {}
        for path, leaf, regularizer in leaves:
            if path.startswith(f"{COUPLED}/") and regularizer is not None:
                size = leaf.shape[0]
                has_values = not isinstance(leaf, jax.ShapeDtypeStruct)
                zero = int((~np.asarray(jax.device_get(leaf)).any(axis=1)).sum()) if has_values else 0
                counts[path] = UnitCount(size, size, zero, zero)
        return counts

    def _rows(self):
        for name, parts in self.parts.items():
            entries = sum(
                part.rows.shape[1] * int(np.prod(np.delete(self.shapes[part.path], part.axis))) for part in parts
            )
            yield name, str(len(parts[0].rows)), str(entries), " ".join(map(str, parts))

    def __str__(self) -> str:
        if not self.parts:
            return f"nothing is coupled: {self.why}"
        table = text_table([("width", "groups", "size", "rows of"), *self._rows()], right=(1, 2))
        others = f"without groups: {self.left_out}" if self.left_out else ""
        return "\n".join([*table, *textwrap.wrap(others, 120, subsequent_indent="  ")])

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {groups} groups of {size}" for name, groups, size, _ in self._rows())
        return f"Coupling({shown})"


def _is_packed(leaves):
    return bool(leaves) and all(path.startswith((f"{COUPLED}/", f"{REST}/")) for path in leaves)


def _put(leaf, axis, rows, values):
    return jnp.moveaxis(jnp.moveaxis(jnp.asarray(leaf), axis, 0).at[rows].set(values), 0, axis)
