"""A cube root that vectorises."""

import jax
import jax.numpy as jnp

# Dividing the bits of a float by three divides its exponent by three, so `magic - bits / 3` are the
# bits of a first guess for x ** (-1/3), 3.5 % off at most; the steps below bring that to rounding. The
# constants are 4/3 of the bits of 1.0, less the shift that balances the guess's largest errors to both sides.
_CBRT = {
    jnp.dtype("float32"): (jnp.int32, 0x54A2FA8C, 1),
    jnp.dtype("float64"): (jnp.int64, 0x553EF0FF289DD796, 2),
}


@jax.jit
def cbrt(x: jax.Array) -> jax.Array:
    """Cube root of a non-negative array; 0, NaN and infinity stay the same.

    Args:
        x: float32 or float64, any shape, no negative entries (sums of squares here).

    Returns:
        `x ** (1/3)` to four units in the last place (2.1 machine eps), of the same shape and dtype. On CPUs `jnp.cbrt`
        is one libm call per element, which takes forty times as long as a copy, and it is wrong (negative) for float32
        denormals. This function takes a few multiplications, which vectorise.
    """
    integer, magic, num_steps = _CBRT[jnp.dtype(x.dtype)]
    bits = jax.lax.bitcast_convert_type(x, integer)
    # A denormal has no exponent to divide: its bits, read as an integer, are x * 2 ** lift. (As an
    # integer, because XLA's CPU arithmetic takes denormals for zero.) Times 2 ** (3 k) its root is
    # lifted by 2 ** k exactly.
    nmant = jnp.finfo(x.dtype).nmant
    lift = nmant - jnp.finfo(x.dtype).minexp
    k = -(-lift // 3)
    denormal = bits < (1 << nmant)
    lifted = jnp.where(denormal, bits.astype(x.dtype) * 2.0 ** (3 * k - lift), x)
    bits = jax.lax.bitcast_convert_type(lifted, integer)
    # As floats: a division of integers is expensive in XLA's cost model, so that its results would be stored in an
    # array. The rounding error of the bits does not matter for the guess.
    guess = (jnp.asarray(magic, x.dtype) - bits.astype(x.dtype) * jnp.asarray(1 / 3, x.dtype)).astype(integer)
    root = jax.lax.bitcast_convert_type(guess, x.dtype)

    def times(root, *coefficients):
        # (1 - e) ** (-1/3) = 1 + e/3 + 2 e^2/9 + 14 e^3/81 + ...: no division.
        e = 1 - ((lifted * root) * root) * root
        series = jnp.asarray(coefficients[-1], x.dtype)
        for coefficient in reversed(coefficients[:-1]):
            series = jnp.asarray(coefficient, x.dtype) + e * series
        return root + root * (e * series)

    root = times(root, 1 / 3, 2 / 9, 14 / 81)
    for _ in range(num_steps):
        root = times(root, 1 / 3)
    result = (lifted * root) * root
    result = jnp.where(denormal, result * 2.0**-k, result)
    return jnp.where(x == jnp.inf, x, result)


def cbrt_for_step(x: jax.Array) -> jax.Array:
    """`cbrt`, on NVIDIA's GPUs by the device's own function, which is exact to a unit in the last place."""
    # There it is one operation. XLA then computes it again in more of the passes over the data, and writes less: 59.6
    # instead of 60.2 bytes a parameter for RAMDA's step of a decoder on an H100, and 62.7 instead of 65.5 for ResNet50
    # (`benchmarks/NOTES.md`, "On accelerators").
    return jax.lax.platform_dependent(x, cuda=jax.lax.cbrt, default=cbrt)
