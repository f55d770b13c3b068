"""The outputs of two models on the same inputs."""

from collections.abc import Callable, Sequence
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
    """Raises unless outputs can be compared like this: an infinite tolerance would call anything equal."""
    check_count("num_random", num_random, 0)
    if tolerance is not None:
        check_non_negative("tolerance", tolerance, schedules=False)


def random_batches(args: tuple[Any, ...], number: int, seed: int = 0) -> list[tuple[Any, ...]]:
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


def batches_for(args: tuple[Any, ...], num_random: int) -> list[tuple[Any, ...]]:
    """What outputs are compared on: random batches, and the example arguments where they have values."""
    batches = random_batches(args, num_random)
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(args)):
        batches.append(args)
    return batches


def compare_outputs(
    apply_fn: Callable[..., Any],
    variables: Tree,
    small_fn: Callable[..., Any],
    small_variables: Tree,
    batches: Sequence[tuple[Any, ...]],
    tolerance: float | None = None,
) -> tuple[float, str | None]:
    """The largest relative difference of outputs.

    Returns:
        (error, reason): reason is None where all differences are within the tolerance.
    """
    # What is static is the same in all batches.
    static = batches[0] if batches else ()
    whole, small = (jax.jit(hold_static(function, static)[0]) for function in (apply_fn, small_fn))
    worst = 0.0
    for args in batches:
        _, arrays = hold_static(apply_fn, args)
        outputs, small_outputs = (
            jax.tree.leaves(whole(variables, *arrays)),
            jax.tree.leaves(small(small_variables, *arrays)),
        )
        for output, small_output in zip(outputs, small_outputs, strict=True):
            if jnp.issubdtype(output.dtype, jax.dtypes.prng_key):
                continue
            if output.shape != small_output.shape or output.dtype != small_output.dtype:
                return (
                    np.inf,
                    f"an output must be {output.dtype}{output.shape}, got {small_output.dtype}{small_output.shape}",
                )
            limit = tolerance if tolerance is not None else TOLERANCES.get(str(output.dtype), 0.0)
            a, b = np.asarray(output).astype(_wide(output.dtype)), np.asarray(small_output).astype(_wide(output.dtype))
            if not a.size:
                continue
            if not np.isfinite(a).all():
                return np.inf, "the model itself returns something that is not finite, so that nothing can be compared"
            if not np.isfinite(b).all():
                return np.inf, "the small model returns something that is not finite"
            scale = np.abs(a).max()
            error = float(np.abs(a - b).max() / scale) if scale else float(np.abs(b).max())
            worst = max(worst, error)
            if not error <= limit:
                return worst, f"outputs differ by {error:.2g} of the largest, more than {limit:.2g}"
    return worst, None


def _wide(dtype):
    return np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64
