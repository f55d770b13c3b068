"""Constants folded into biases: the model computes the same, and nothing reads the constant units."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.adapters.choose import adapter_for, check_inputs
from ramda_jax.compaction.adapters.trace_dims import trace_calls
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.folding.biases import Biases
from ramda_jax.compaction.folding.gains import Gains
from ramda_jax.compaction.folding.moved import count_uses, entries_of, moved_leaf
from ramda_jax.compaction.folding.sums import Summed, by_entry, changed_leaves, contributions, find_sums
from ramda_jax.compaction.planning.liveness import Liveness
from ramda_jax.compaction.proof.lines import line_of_equation
from ramda_jax.compaction.proof.numbers import batches_for, check_comparison, compare_outputs, tolerance_of
from ramda_jax.compaction.proof.verify import Proof, precision_of
from ramda_jax.compaction.tracing.known.constants import Constants
from ramda_jax.compaction.tracing.known.zeros import Zeros, zero_masks, zero_terms
from ramda_jax.compaction.tracing.static_args import hold_static
from ramda_jax.compaction.tracing.trace import Dims
from ramda_jax.compaction.tracing.widths import maker_of
from ramda_jax.structure.paths import named_leaves

_NOT_EVEN = "what the units add is not the same everywhere, as where a convolution pads with zeros"


@dataclasses.dataclass(frozen=True)
class Folded:
    """A model of the same shapes whose constants have become parts of biases.

    Attributes:
        model, variables, apply: as in `Compaction`. The units that were constants are still there, but nothing reads
            them.
        folded: maps the axes that make the units to the folded indices, such as `{"up/kernel[1]": (3, 5)}`.
        refused: maps such axes to the reason why constant units were not folded.
        proof: the comparison of outputs.
        unread: maps axes of kernels to the indices whose entries were set to zero, because their outputs are multiplied
            by zeros.
    """

    model: Any
    variables: Any
    apply: Callable[..., Any]
    folded: dict[str, tuple[int, ...]]
    refused: dict[str, str]
    proof: Proof
    unread: dict[str, tuple[int, ...]]


def fold_constants(
    model: Any,
    *example_args: Any,
    variables: Any = None,
    call: Callable[..., Any] | None = None,
    num_random: int = 2,
    tolerance: float | None = None,
) -> Folded:
    """Folds units that are the same for every input into the biases of the layers that read them.

    If a unit's column is zero and its bias is not, as after training with `GroupLasso("output")`, the unit is a
    constant c = activation(bias). A kernel that reads the unit with row w adds c w to a sum. The same sum results from

        bias <- bias + c w,    w <- 0,

    Then nothing reads the unit, and `compact_model` removes it.

    The program proves for all inputs that a unit is constant, and c is computed. Only products and convolutions may
    read the unit, each with its own kernel, and with a bias that is added before anything else reads the sum: the bias
    of the layer, or the running mean of a batch norm after it. c w must be the same at all positions to which the bias
    is added, which is not so if a convolution pads with zeros.

    Outputs of a product or a convolution that are only multiplied by zeros, such as the scale of a batch norm or of a
    residual branch, are not read either. The kernel's entries for these outputs are set to zero.

    Args:
        model, *example_args, variables, call: as in `compact_model`; the model is traced in evaluation mode.
        num_random, tolerance: as in `verify`.

    Returns:
        A `Folded`; pass its `model`, or for linen and functions its `variables`, to `compact_model`.

    Raises:
        CompactionError: the outputs differ by more than the tolerance; variables without values.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def mlp(params, x):
        ...     return jax.nn.sigmoid(x @ params["in"] + params["b"]) @ params["out"] + params["c"]
        >>> params = {"in": jnp.ones((5, 8)).at[:, 2:].set(0), "b": jnp.zeros(8)}
        >>> params |= {"out": jnp.ones((8, 3)), "c": jnp.zeros(3)}
        >>> folded = fold_constants(mlp, jnp.ones((4, 5)), variables=params)
        >>> folded.folded, folded.variables["c"]
        ({'in[1]': (2, 3, 4, 5, 6, 7)}, Array([3., 3., 3.], dtype=float32))
    """
    check_comparison(num_random, tolerance)
    adapter = adapter_for(model, variables, call)
    check_inputs(model, adapter, example_args)
    leaves = dict(named_leaves(adapter.variables))
    abstract = [path for path, leaf in leaves.items() if isinstance(leaf, jax.ShapeDtypeStruct)]
    if abstract:
        raise CompactionError(
            f"The variables must have values, by which units are constants, but '{abstract[0]}' is abstract; give the "
            "trained variables."
        )
    dims, _ = trace_calls(adapter, {}, example_args)
    unread, indices = Gains(dims, leaves, count_uses(dims)).unread(find_sums(dims))
    leaves |= {path: jnp.asarray(leaf) for path, leaf in unread.items()}
    units = _Units(dims, leaves)
    batches = batches_for(example_args, max(num_random, 2))
    inputs = [jax.tree.leaves(hold_static(adapter.apply, batch[0])[1]) for batch in batches[:2]]
    while True:
        chosen = units.chosen()
        added = [contributions(dims, leaves, arrays, chosen) for arrays in inputs] if chosen else []
        wrong = [s for (s, _), *parts in zip(chosen, *added, strict=True) if not _is_one_bias(s, parts, leaves)]
        if not wrong:
            break
        for summed in wrong:
            units.refuse(summed, _NOT_EVEN)
    changed = unread | (changed_leaves(leaves, chosen, added[0]) if chosen else {})
    whole = adapter.variables
    new = jax.tree.structure(whole).unflatten(
        jnp.asarray(changed[path]) if path in changed else leaf for path, leaf in named_leaves(whole)
    )
    folded_model, apply = adapter.rebuild(new, {})
    error, reason = compare_outputs(adapter.apply, whole, apply, new, batches, tolerance, precision_of(dims))
    if reason is not None:
        raise CompactionError(
            f"The folded model must compute the same as the whole model, but does not: {reason}; use the whole model."
        )
    return Folded(folded_model, new, apply, units.folded(), units.reasons(), Proof(0, len(batches), error), indices)


def _is_one_bias(summed, parts, leaves):
    """Whether the bias can take over the parts: they must be equal for both inputs and at all positions of an entry."""
    bias = summed.bias
    means, distances = zip(*(by_entry(bias, part, np.size(leaves[bias.path])) for part in parts), strict=True)
    scale = max(np.abs(means).max(initial=0), np.abs(distances).max(initial=0))
    limit = tolerance_of(parts[0].dtype) * scale
    return all(np.isfinite(means[0])) and max(np.max(d, initial=0) for d in (*distances, means[0] - means[-1])) <= limit


class _Units:
    """The units that are constants, and the sums that read them."""

    def __init__(self, dims: Dims, leaves: Mapping[str, Any]) -> None:
        self._dims = dims
        zeros = Zeros(dims, {path: zero_masks(leaves[path]) for path, value in dims.leaves.items() if value.shape})
        constants = Constants(dims, zeros, leaves)
        liveness = Liveness(dims, leaves)
        liveness.find_alive()
        self._sums = self._with_biases(leaves)
        count = dims.nodes.count
        is_constant, is_read = np.ones(count, bool), np.zeros(count, bool)
        self._why: dict[int, str] = {}
        others = []
        for reader in dims.walk.readers:
            is_one = any(summed.is_of(reader) for summed in self._sums)
            terms = zero_terms(reader, constants)
            for axis, label in enumerate(reader.contracted):
                positions, nodes = dims.nodes.of(label)
                every = np.asarray(terms.all(axis=tuple(i for i in range(terms.ndim) if i != axis)))
                if reader.activations:
                    is_read[nodes] = True
                    np.logical_and.at(is_constant, nodes, every[positions])
                if not is_one:
                    others.append((nodes, f"{reader.name} reads it, which is not a product outside of loops"))
        is_free = np.zeros(count, bool)
        for width in dims.widths:
            is_free[width.nodes] = not width.reason
        self._constant = is_constant & is_read & is_free & liveness.alive
        for nodes, reason in others:
            self._keep(nodes, reason)
        for summed in self._sums:
            if isinstance(summed.bias, str):
                self.refuse(summed, summed.bias)

    def _with_biases(self, leaves):
        uses = count_uses(self._dims)
        floats = {path for path, leaf in leaves.items() if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)}
        biases = Biases(self._dims, uses, floats)
        result = find_sums(self._dims)
        for summed in result:
            path = moved_leaf(summed.kernel.recipe)
            if path is None:
                summed.bias = "its kernel is computed from parameters"
            elif uses[path] > 1:
                summed.bias = f"its kernel '{path}' is used elsewhere too"
            elif len(np.unique(entries_of(summed.kernel.recipe, np.size(leaves[path])))) < np.prod(summed.kernel.shape):
                summed.bias = f"its kernel repeats entries of '{path}'"
            else:
                summed.bias = biases.of(summed.visit.outputs[0])
        return result

    def _nodes(self, summed):
        labels = [summed.units.labels[axis] for axis in summed.axes[0]]
        return [self._dims.nodes.of(label) for label in labels]

    def _keep(self, nodes, reason):
        for node in nodes[self._constant[nodes]].tolist():
            self._why.setdefault(node, reason)

    def refuse(self, summed: Summed, reason: str) -> None:
        """Keeps the units that a sum reads, with a reason."""
        line = line_of_equation(summed.visit.equation)
        for _, nodes in self._nodes(summed):
            self._keep(nodes, f"{reason} ({line})" if line else reason)

    def _selected(self):
        selected = self._constant.copy()
        selected[list(self._why)] = False
        return selected

    def chosen(self) -> list[tuple[Summed, np.ndarray]]:
        """The sums that read units to be folded, each with a mask of the indices that it sums over."""
        selected, result = self._selected(), []
        for summed in self._sums:
            pairs = self._nodes(summed)
            sizes = [summed.units.shape[axis] for axis in summed.axes[0]]
            mask = np.zeros(sizes, bool)
            for axis, (positions, nodes) in enumerate(pairs):
                own = np.zeros(sizes[axis], bool)
                own[positions[selected[nodes]]] = True
                mask |= own.reshape([-1 if i == axis else 1 for i in range(len(sizes))])
            if mask.any():
                result.append((summed, mask))
        return result

    def folded(self) -> dict[str, tuple[int, ...]]:
        """The folded indices, by the axes that make them."""
        selected, result = self._selected(), {}
        for width in self._dims.widths:
            maker = maker_of(width, self._dims.leaves)
            own = np.flatnonzero(np.isin(maker.index, np.flatnonzero(selected[width.nodes]))).tolist()
            if own:
                result[str(maker)] = tuple(sorted({*result.get(str(maker), ()), *own}))
        return result

    def reasons(self) -> dict[str, str]:
        """The reasons why constants stay, by the axes that make them."""
        result = {}
        for width in self._dims.widths:
            for node in width.nodes.tolist():
                if node in self._why:
                    result.setdefault(str(maker_of(width, self._dims.leaves)), self._why[node])
        return result
