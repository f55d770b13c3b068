"""The proof that a small model computes what the whole one does, made anew for every model.

Structural: both are traced, and the small trace must be the whole one with the planned indices deleted: the same
    primitives in the same
order, each fed with the corresponding values, with the same parameters and literals, and with every
intermediate array of the very shape that the labels predict. Together with the rules' claim (`rules`) that is an
induction over the program. It is what sees a mean over a deleted channel, a width read from a shape, a reshape with a
number in it.

Liveness: what is deleted is read with zeros only, exactly, however small a number would be.

Numeric: outputs on random inputs and on the example arguments agree to rounding. It would see a wrong rule.
"""

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.dims import Dims, axis_nodes, trace_dims
from ramda_jax.compaction.errors import CompactionError
from ramda_jax.compaction.params import difference
from ramda_jax.compaction.plan import Liveness, Plan, check_leaves
from ramda_jax.structure.paths import named_leaves

#: The largest difference, relative to the largest output, that counts as rounding.
TOLERANCES = {
    "float64": 1e-12,
    "float32": 1e-5,
    "float16": 1e-2,
    "bfloat16": 5e-2,
    "complex64": 1e-5,
    "complex128": 1e-12,
}


@dataclasses.dataclass(frozen=True)
class Proof:
    """What has been shown.

    Attributes:
        equations: how many equations of the two traces were compared.
        batches: on how many batches of inputs the outputs were compared.
        error: the largest difference of outputs seen, relative to the largest entry of that output.
    """

    equations: int
    batches: int
    error: float


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """The first equation at which two traces part.

    Attributes:
        reason: what is different.
        visit: the number of the equation in the whole trace, None where it is not about one.
    """

    reason: str
    visit: int | None = None


class Masks:
    """Which indices of every axis of a trace a plan keeps, from what it keeps of the leaves.

    Attributes:
        kept: a boolean for each node.
    """

    def __init__(self, dims: Dims, plan: Plan):
        self._walk = dims.walk
        self._products = dims.walk.indices.products()
        self.kept = np.ones(dims.walk.indices.count, bool)
        kept_somewhere = np.zeros(dims.walk.indices.count, bool)
        for path, value in dims.leaves.items():
            for label, kept in zip(value.labels, plan.leaves[path].kept, strict=True):
                positions, nodes = axis_nodes(self._walk, label, self._products)
                mask = np.ones(len(label), bool)
                if kept is not None:
                    mask[:] = False
                    mask[list(kept)] = True
                self.kept[nodes[~mask[positions]]] = False
                kept_somewhere[nodes[mask[positions]]] = True
        # A product is deleted with any of its factors; a factor that some kept index has is itself not deleted.
        self.kept |= kept_somewhere

    def __call__(self, label):
        """A boolean array for an axis."""
        roots = self._walk.indices.find(label)
        mask = self.kept[roots]
        for product in set(roots.tolist()) & self._products.keys():
            mask[roots == product] = all(self.kept[node] for node in self._products[product])
        return mask

    def shape(self, value):
        """The shape of a value once the indices are deleted."""
        return tuple(int(self(label).sum()) for label in value.labels)


def compare_traces(dims: Dims, plan: Plan, small: Dims) -> Mismatch | None:
    """Whether `small` is the trace `dims` with what `plan` deletes deleted; None if it is."""
    masks = Masks(dims, plan)
    for path, value in dims.leaves.items():
        found = small.leaves[path].shape if path in small.leaves else None
        if found != masks.shape(value):
            return Mismatch(f"the leaf '{path}' must have shape {masks.shape(value)}, got {found}")
    partner = {value.number: small.leaves[path].number for path, value in dims.leaves.items()}
    partner |= {value.number: small.inputs[path].number for path, value in dims.inputs.items()}

    def is_partner(one, other):
        if one.literal is None or other.literal is None:
            return one.literal is None and other.literal is None and partner.get(one.number) == other.number
        if one.literal is other.literal:
            return True
        # Through the dtype first: a random key is no NumPy array.
        return one.dtype == other.dtype and np.array_equal(np.asarray(one.literal), np.asarray(other.literal))

    for number, (visit, other) in enumerate(zip(dims.walk.visits, small.walk.visits, strict=False)):
        name = visit.equation.primitive.name
        if name != other.equation.primitive.name:
            return Mismatch(f"where the model computes {visit.name}, the small one computes {other.name}", number)
        if len(visit.inputs) != len(other.inputs):
            return Mismatch(f"{visit.name} has another number of inputs in the small model", number)
        for one, theirs in zip(visit.inputs, other.inputs, strict=True):
            if one.literal is not None and theirs.literal is not None and not is_partner(one, theirs):
                values = f"{np.asarray(one.literal)!s:.40} to {np.asarray(theirs.literal)!s:.40}"
                return Mismatch(f"the constant in {visit.name} depends on a size: it went from {values}", number)
            if not is_partner(one, theirs):
                return Mismatch(f"{visit.name} is fed with something else in the small model", number)
        reason = difference(visit, other, masks)
        if reason:
            return Mismatch(f"{visit.name} {reason}", number)
        for one, theirs in zip(visit.outputs, other.outputs, strict=True):
            if theirs.shape != masks.shape(one) or theirs.dtype != one.dtype:
                wanted = f"{one.dtype}{list(masks.shape(one))}"
                return Mismatch(f"{visit.name} must return {wanted}, got {theirs.dtype}{list(theirs.shape)}", number)
            partner[one.number] = theirs.number
    if len(dims.walk.visits) != len(small.walk.visits):
        return Mismatch(f"the small model has {len(small.walk.visits)} equations, not {len(dims.walk.visits)}")
    pairs = zip(dims.outputs, small.outputs, strict=True) if len(dims.outputs) == len(small.outputs) else None
    if pairs is None or not all(is_partner(one, other) for one, other in pairs):
        return Mismatch("the small model returns something else")
    return None


def check_liveness(dims: Dims, variables: Any, plan: Plan) -> Mismatch | None:
    """Whether nothing that `plan` deletes is read by what is not zero in `variables`; None if so."""
    leaves = dict(named_leaves(variables))
    check_leaves({path: value.shape for path, value in dims.leaves.items()}, leaves)
    liveness = Liveness(dims, leaves)
    liveness.find_alive()
    kept = Masks(dims, plan).kept
    for dim in dims.ids:
        lost = np.flatnonzero(liveness.alive[dim.nodes] & ~kept[dim.nodes])
        if len(lost):
            where = ", ".join(map(str, dim.readers or dim.members))
            why = f"which is frozen: {dim.reason}" if dim.reason else "which is not zero there"
            return Mismatch(f"index {lost[0]} of {dim.name} is deleted but read by {where}, {why}")
    return None


def random_batches(args, number, seed=0):
    """`number` batches like the example arguments: normal where they are floats, their own entries shuffled
    elsewhere."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if not hasattr(leaf, "dtype") or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jnp.asarray(rng.permutation(np.asarray(leaf).ravel()).reshape(leaf.shape))

    return [jax.tree.map(draw, args) for _ in range(number)]


def compare_outputs(apply_fn, variables, small_fn, small_variables, batches, tolerance=None):
    """The largest relative difference of outputs.

    Returns:
        (error, reason): reason is None where all differences are within the tolerance.
    """
    whole, small = jax.jit(apply_fn), jax.jit(small_fn)
    worst = 0.0
    for args in batches:
        outputs, small_outputs = (
            jax.tree.leaves(whole(variables, *args)),
            jax.tree.leaves(small(small_variables, *args)),
        )
        for one, other in zip(outputs, small_outputs, strict=True):
            if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
                continue
            if one.shape != other.shape or one.dtype != other.dtype:
                return np.inf, f"an output must be {one.dtype}{one.shape}, got {other.dtype}{other.shape}"
            limit = tolerance if tolerance is not None else TOLERANCES.get(str(one.dtype), 0.0)
            a, b = np.asarray(one).astype(_wide(one.dtype)), np.asarray(other).astype(_wide(one.dtype))
            if not a.size:
                continue
            if not np.isfinite(a).all():
                return np.inf, "the model itself returns something that is not finite, so that nothing can be compared"
            scale = np.abs(a).max()
            error = float(np.abs(a - b).max() / scale) if scale else float(np.abs(b).max())
            worst = max(worst, error)
            if not error <= limit:
                return worst, f"outputs differ by {error:.2g} of the largest, more than {limit:.2g}"
    return worst, None


def _wide(dtype):
    return np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64


def check_structure(small_fn, small_variables, args, dims: Dims, plan: Plan) -> Mismatch | None:
    """The structural part: traces the small model and compares; None where it is the planned one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the whole model's own have been seen
            small = trace_dims(small_fn, small_variables, *args)
    except Exception as error:  # whatever a user's code raises for sizes it does not expect
        return Mismatch(f"the small model cannot be traced: {type(error).__name__}: {error}".split("\n")[0])
    return compare_traces(dims, plan, small)


def verify(
    apply_fn: Any,
    variables: Any,
    small_fn: Any,
    small_variables: Any,
    *example_args: Any,
    plan: Plan,
    dims: Dims | None = None,
    num_random: int = 2,
    tolerance: float | None = None,
) -> Proof:
    """Proves that a small model computes what the whole one does, or raises.

    Args:
        apply_fn, variables: the whole model, a function of (variables, *args).
        small_fn, small_variables: the small one.
        *example_args: a batch; arrays, or shapes and dtypes, with which only random inputs are tried.
        plan: what the small variables are said to have kept.
        dims: what `trace_dims` has found for the whole model, to spare its trace.
        num_random: on how many batches of random inputs the outputs are compared.
        tolerance: relative to the largest output; None for 1e-12 in float64, 1e-5 in float32, 1e-2 in float16, 5e-2
            in bfloat16.

    Returns:
        A `Proof`.

    Raises:
        CompactionError: something is different; the message says what and where.
    """
    dims = trace_dims(apply_fn, variables, *example_args) if dims is None else dims
    check_leaves({path: leaf.shape for path, leaf in plan.leaves.items()}, dict(named_leaves(variables)))
    mismatch = check_liveness(dims, variables, plan)
    mismatch = mismatch or check_structure(small_fn, small_variables, example_args, dims, plan)
    if mismatch is not None:
        raise CompactionError(f"The small model is not the planned one: {mismatch.reason}.")
    batches = random_batches(example_args, num_random)
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(example_args)):
        batches.append(example_args)
    error, reason = compare_outputs(apply_fn, variables, small_fn, small_variables, batches, tolerance)
    if reason is not None:
        raise CompactionError(f"The small model is not equal: {reason}.")
    return Proof(len(dims.walk.visits), len(batches), error)
