"""Hints that do not change values, but make XLA for CPUs compile a better program."""

import jax
import jax.numpy as jnp


def keep_after(x: jax.Array, after: jax.Array | None, like: jax.Array) -> jax.Array:
    """Returns `x` unchanged, but makes XLA for CPUs compute it once, and only after the scalar `after` is known.

    Two things go wrong without it. XLA is free to prepare all leaves before it finishes the first, and then holds the
    temporaries of all of them at once. And it computes a value that looks cheap again for every reader, even a cube
    root. Here `x` is divided by an array of ones whose values the compiler does not know. The division depends on
    `after`, so that leaves wait for each other. It is so expensive in XLA's cost model that its result is stored. For
    RAMDA with the group LASSO on ResNet50's tree this reduced the temporaries from 4.99 times the parameters' size to
    0.55 (`benchmarks/NOTES.md`, "Attempts"; `python -m benchmarks.step_cost` prints the figure).

    `jax.lax.optimization_barrier` does not do this: it is removed before XLA schedules. Nor does a division by a
    scalar: XLA turns it into a multiplication.

    Args:
        x: an array, floating-point.
        after: a scalar of any real dtype that another computation has made; None means that `x` does not wait.
        like: an array of x's shape and dtype that is in memory anyway. With another shape `x` does not wait. (If the
            ones were made from `x`, XLA would read `x` twice, and would compute and keep it before its turn.)
    """
    if after is None or x.shape != like.shape:
        return x

    def wait(x, after, like):
        return x / jnp.where(opaque_zero(after) != 0, like, 1)

    return jax.lax.platform_dependent(x, after, like, cpu=wait, default=lambda x, after, like: x)


def stored(small: jax.Array) -> jax.Array:
    """Returns whole numbers from 0 to 2^20 unchanged, as int32, but makes XLA for CPUs compute them once.

    Use it for a small array each of whose entries is read by many other entries. XLA would fuse its computation into
    theirs and repeat it for each of them. A root is so expensive in XLA's cost model that its result is stored, and its
    rounded square is the number again.
    """
    return jnp.round(jnp.square(jnp.sqrt(small.astype(jnp.float32)))).astype(jnp.int32)


def opaque_zero(scalar: jax.Array) -> jax.Array:
    """Computes 0, an int32 `[]`, from any scalar of a real dtype, in a way that XLA cannot simplify to a constant."""
    # Start from its bits, because no arithmetic turns NaN and infinity into 0.
    bits = jax.lax.bitcast_convert_type(scalar.astype(jnp.float32), jnp.int32)
    return jnp.minimum(jnp.maximum(bits, 0), 0)
