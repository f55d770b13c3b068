"""Compares the outputs of two models on the same inputs."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction.tracing.static_args import hold_static
from ramda_jax.typing import Tree
from ramda_jax.validation import check_count, check_non_negative

#: The largest difference, relative to the largest output, that counts as rounding.
TOLERANCES = {
    "float64": 1e-12,
    "float32": 1e-5,
    "float16": 1e-2,
    "bfloat16": 5e-2,
    "complex64": 1e-5,
    "complex128": 1e-12,
}


def check_comparison(num_random: int, tolerance: float | None) -> None:
    """Raises if the outputs cannot be compared with these settings: with an infinite tolerance everything is equal."""
    check_count("num_random", num_random, 0)
    if tolerance is not None:
        check_non_negative("tolerance", tolerance, schedules=False)


def tolerance_of(dtype: Any) -> float:
    """The largest difference that counts as rounding in a dtype; 0 for dtypes without rounding, such as integers."""
    if str(dtype) in TOLERANCES or not jnp.issubdtype(dtype, jnp.floating):
        return TOLERANCES.get(str(dtype), 0.0)
    return min(0.5, 4 * float(jnp.finfo(dtype).eps))


def coarsest(dtypes: Iterable[Any]) -> Any:
    """The floating-point dtype with the least precision among these dtypes, or None."""
    floats = [dtype for dtype in set(dtypes) - {None} if jnp.issubdtype(dtype, jnp.floating)]
    return max(floats, key=lambda dtype: float(jnp.finfo(dtype).eps), default=None)


def random_batches(args: tuple[Any, ...], number: int, seed: int = 0) -> list[list[tuple[Any, ...]]]:
    """`number` lists of alternatives for a batch like the example arguments; the least similar alternative comes first.

    In the first alternative floats are normal. A model with a logarithm or the root of a variance may not be finite for
    these. The next alternative draws them from the range that each feature (index of the last axis) has in the
    arguments, and the last shuffles the arguments' own entries within their feature. For arguments without values, it
    draws from 0.1 to 0.9. Entries that are not floats are always shuffled.
    """
    rng = np.random.default_rng(seed)

    def alternatives(leaf):
        if not hasattr(leaf, "dtype") or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return [leaf] * 3
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            if isinstance(leaf, jax.ShapeDtypeStruct):
                return [jnp.zeros(leaf.shape, leaf.dtype)] * 3
            return [jnp.asarray(rng.permutation(np.asarray(leaf).ravel()).reshape(leaf.shape))] * 3
        drawn = [rng.normal(size=leaf.shape)]
        if isinstance(leaf, jax.ShapeDtypeStruct):
            drawn += [rng.uniform(0.1, 0.9, leaf.shape)] * 2
        else:
            width = leaf.shape[-1] if leaf.ndim > 1 else 1
            features = np.asarray(leaf).astype(np.float64).reshape(-1, width) if leaf.size else np.zeros(leaf.shape)
            drawn += [_in_range(rng, features), rng.permuted(features, axis=0)] if leaf.size else [features] * 2
        # JAX would compile a program for each shape to convert an array of another dtype.
        return [jnp.asarray(numbers.reshape(leaf.shape).astype(leaf.dtype), leaf.dtype) for numbers in drawn]

    def draw():
        leaves, treedef = jax.tree.flatten(args)
        return [treedef.unflatten(each) for each in zip(*map(alternatives, leaves), strict=True)] or [args]

    return [draw() for _ in range(number)]


def _in_range(rng, features):
    """Random numbers like the rows of `features`, each column in its own range; entries that are not finite stay."""
    finite = np.isfinite(features)
    low = np.min(features, axis=0, initial=np.inf, where=finite)
    high = np.max(features, axis=0, initial=-np.inf, where=finite)
    if not (low < high).any():
        low, high = low.min(), high.max()  # a single row only has a range as a whole
    drawn = rng.uniform(np.where(low < high, low, 0), np.where(low < high, high, 1), features.shape)
    return np.where(finite & (low < high), drawn, features)


def batches_for(args: tuple[Any, ...], num_random: int) -> list[list[tuple[Any, ...]]]:
    """The batches on which outputs are compared: random batches, and the example arguments if they have values."""
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(args)):
        return random_batches(args, num_random)
    return [[*batches, args] for batches in random_batches(args, num_random)] + [[args]]


def compare_outputs(
    apply_fn: Callable[..., Any],
    variables: Tree,
    small_fn: Callable[..., Any],
    small_variables: Tree,
    batches: Sequence[Sequence[tuple[Any, ...]]],
    tolerance: float | None = None,
    precision: Any = None,
    resized: Any = None,
) -> tuple[float, str | None]:
    """The largest relative difference of outputs.

    Args:
        apply_fn, variables, small_fn, small_variables: the two models.
        batches: for each comparison a list of alternatives. The first for which the whole model is finite is used.
        tolerance: as in `verify`.
        precision: the dtype of least precision in the program, if both models are known to be the same program; else
            None. The outputs need not agree better than that, nor better than the program's outputs do if its
            parameters are rounded.
        resized: a `Resized` for the inputs and outputs that are smaller in the small model; None if there are none.

    Returns:
        (error, reason). `reason` is None if all differences are within the tolerance.
    """
    whole, small = (_compiled(function, batches) for function in (apply_fn, small_fn))
    worst = 0.0
    # Use full precision, because accelerators may compute matrix products less precisely than their dtypes allow.
    with jax.default_matmul_precision("highest"):
        for alternatives in batches:
            args, outputs = _first_finite(whole, variables, alternatives)
            if outputs is None:
                return np.inf, (
                    "the model itself returns something that is not finite, so that nothing can be compared; give a "
                    "batch of inputs for which it is finite"
                )
            small_args = args if resized is None else resized.inputs(args)
            kept = outputs if resized is None else resized.outputs(outputs)
            small_outputs = jax.tree.leaves(small(small_variables, *small_args))
            for output, small_output in zip(kept, small_outputs, strict=True):
                error, reason = _difference(output, small_output)
                worst = max(worst, error)
                if reason is not None:
                    return worst, reason
                limit = _limit(output.dtype, precision) if tolerance is None else tolerance
                if error > limit and tolerance is None and precision is not None:
                    limit = max(limit, _own_rounding(whole, variables, args, outputs, precision))
                if not error <= limit:
                    inside = "" if precision is None else f" where the program computes in {precision}"
                    return worst, (
                        f"outputs differ by {error:.2g} of the largest, more than {limit:.2g}{inside}; a larger "
                        "`tolerance=` would let that pass"
                    )
    return worst, None


def _compiled(function, batches):
    # Static arguments are the same in all batches.
    held, _ = hold_static(function, batches[0][0] if batches else ())
    jitted = jax.jit(held)

    def run(variables, *args):
        return jitted(variables, *hold_static(function, args)[1])

    return run


def _first_finite(whole, variables, alternatives):
    for args in alternatives:
        outputs = jax.tree.leaves(whole(variables, *args))
        if all(np.isfinite(_wide(output)).all() for output in outputs if not _is_key(output)):
            return args, outputs
    return (), None


def _difference(output, other):
    """(the difference relative to the largest entry, what is wrong or None)."""
    if _is_key(output):
        return 0.0, None
    if output.shape != other.shape or output.dtype != other.dtype:
        return np.inf, f"an output must be {output.dtype}{output.shape}, got {other.dtype}{other.shape}"
    a, b = _wide(output), _wide(other)
    if not a.size:
        return 0.0, None
    if not np.isfinite(b).all():
        return np.inf, "the small model returns something that is not finite"
    scale = np.abs(a).max()
    return float(np.abs(a - b).max() / scale) if scale else float(np.abs(b).max()), None


def _limit(dtype, precision):
    own = tolerance_of(dtype)
    if precision is None:
        return own
    inside = tolerance_of(precision)
    # An integer, such as an argmax, may depend on the last bit of the numbers that it was computed from.
    return max(own, inside) if own or inside <= TOLERANCES["float32"] else np.inf


def _own_rounding(whole, variables, args, outputs, precision):
    """Four times the change of the outputs if every parameter changes by its last bit; at most a half."""
    rng = np.random.default_rng(0)
    eps = float(jnp.finfo(precision).eps)

    def nudge(leaf):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            return leaf
        return jnp.asarray(leaf * (1 + eps * rng.choice((-1.0, 1.0), np.shape(leaf))), jnp.result_type(leaf))

    nudged = jax.tree.leaves(whole(jax.tree.map(nudge, variables), *args))
    errors = [_difference(output, other)[0] for output, other in zip(outputs, nudged, strict=True)]
    return min(0.5, 4 * max(errors, default=0.0))


def _is_key(output):
    return jnp.issubdtype(output.dtype, jax.dtypes.prng_key)


def _wide(output):
    is_complex = jnp.issubdtype(output.dtype, jnp.complexfloating)
    return np.asarray(output).astype(np.complex128 if is_complex else np.float64)
