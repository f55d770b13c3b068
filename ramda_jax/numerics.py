"""Numerical helpers shared by the model builders, the regularizers and the solvers."""

import math

import jax
import jax.numpy as jnp
import optax

# Where counters of steps stay: the end of int32.
LAST_COUNT = 2**31 - 1


def sums_dtype(dtype):
    """The dtype in which sums over steps are kept for parameters of `dtype`: at least float32.

    In bfloat16 a sum of ones stops at 256: from there on the summand is lost in rounding.
    """
    return jnp.promote_types(dtype, jnp.float32)


def scalars_dtype(tree):
    """The dtype of step counts, sums of step sizes and weights: the widest sums' dtype in `tree`."""
    return jnp.result_type(jnp.float32, *(sums_dtype(x.dtype) for x in jax.tree.leaves(tree)))


def at_step(value, step, dtype):
    """`value` as a scalar of `dtype`: itself, or what the schedule `value` gives at `step`."""
    return jnp.asarray(value(step) if callable(value) else value, dtype=dtype)


def next_count(count):
    """count + 1, which stays where it is at the end of int32 instead of wrapping around."""
    return jnp.asarray(optax.safe_increment(count))


def weight_of_average(decay, count, dtype):
    """`1 - decay^count`, what the weights of a moving average of `count` values sum to; a scalar of `dtype`.

    By a power of floats: outside of `jit` JAX compiles one anew for every value of an integer exponent.
    """
    return 1 - jnp.asarray(decay, dtype) ** count.astype(dtype)


def with_type_sharding(x, sharding):
    """x in `sharding`, that of another array's type; of use on meshes whose axes are explicit, elsewhere x itself."""
    return x if jax.typeof(x).sharding == sharding else jax.sharding.reshard(x, sharding)


def gathered(x):
    """x with no axis sharded in its type: `reshape` and the SVD refuse sharded axes on meshes whose axes are explicit.

    On other meshes, where types say nothing of sharding, x itself: there XLA gathers what an operation needs whole.
    """
    sharding = jax.typeof(x).sharding
    if all(axis is None for axis in sharding.spec):
        return x
    return jax.sharding.reshard(x, sharding.update(spec=jax.sharding.PartitionSpec(*[None] * x.ndim)))


def group_norms(x, axes):
    """`||x_g||` over `axes`, kept as axes of length one; no square over- or underflows.

    The largest entry is divided out before squaring: in float32 the squares of 1e-23 are all zero
    and those of 1e20 are infinite.
    """
    scale, inverse = group_scales(x, axes)
    return scale * jnp.sqrt(jnp.sum(jnp.square(x * inverse), axis=axes, keepdims=True))


def group_sums(terms, axes, in_cache=False):
    """The sums of several arrays of one shape over `axes`, kept as axes of length one; in the cache in one pass.

    XLA for CPUs makes a reduction of several operands one loop, with all that they are made of inside, but vectorises
    it only if few numbers go into a sum and neighbours into different ones. So an axis is cut, the few summed first,
    and the rest, a fraction, one array after the other.

    Args:
        terms: arrays of one shape and dtype.
        axes: to sum over, in increasing order.
        in_cache: whether what the terms are made of is in a core's cache. Else its order of access makes one pass
            slower than several.
    """

    def plain(*terms):
        return tuple(jnp.sum(x, axis=axes, keepdims=True) for x in terms)

    cut = _cut(jax.typeof(terms[0]), axes)
    if cut is None or not in_cache:
        return plain(*terms)

    def cut_first(*terms):
        shape, axis = cut
        zero = jnp.zeros([], terms[0].dtype)
        few = jax.lax.reduce(
            tuple(x.reshape(shape) for x in terms),
            (zero,) * len(terms),
            lambda x, y: tuple(a + b for a, b in zip(x, y, strict=True)),
            (axis,),
        )
        return plain(*few)

    return jax.lax.platform_dependent(*terms, cpu=cut_first, default=plain)


def _cut(kind, axes):
    """The shape with the last of `axes` cut in two, and which of its axes has the few; None if it is not worth it."""
    shape = kind.shape
    if math.prod(shape) < 2**13 or not axes or shape[-1] < 64 or any(kind.sharding.spec):
        return None
    axis = axes[-1]
    is_last = axis == len(shape) - 1
    # Neighbours are at least 8, and few enough of a sum for the compiler to write out.
    few = max(n for n in range(1, 17) if shape[axis] % n == 0 and (not is_last or shape[axis] >= 8 * n))
    if few == 1:
        return None
    rest = (few, shape[axis] // few) if is_last else (shape[axis] // few, few)
    return (*shape[:axis], *rest, *shape[axis + 1 :]), axis if is_last else axis + 1


def group_scales(x, axes):
    """A power of two near each group's largest entry, kept as axes of length one, and its inverse.

    Both are powers of two that are no denormals, so that scaling rounds nothing, and the inverse is there so that
    it is a multiplication: XLA would keep the results of a division in an array of their own.
    """
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0)
    info = jnp.finfo(x.dtype)
    # The bits of the exponent alone; NaN and infinity have the highest and are clipped to a finite one.
    integer = jnp.int32 if info.bits == 32 else jnp.int64
    exponent = jax.lax.bitcast_convert_type(largest, integer) >> info.nmant
    bias = info.maxexp - 1
    # Zeros as they are: XLA may square the inverse first, and 0 * inf is no 0.
    exponent = jnp.where(largest == 0, bias, exponent)
    exponent = jnp.clip(exponent, 2, 2 * bias - 2)
    scale = jax.lax.bitcast_convert_type(exponent << info.nmant, x.dtype)
    inverse = jax.lax.bitcast_convert_type((2 * bias - exponent) << info.nmant, x.dtype)
    return scale, inverse


def in_turn(x, after, other):
    """x, bit by bit, but worked out once, and not before the scalar `after` is known.

    XLA's schedule for CPUs is free to prepare all leaves before it finishes the first, with as many temporaries
    alive at once, and it works out again for every reader what is not written to memory, a cube root too. A division
    by ones that it cannot foresee puts the leaves in a row, so that the temporaries of one stay in the cache and are
    gone before the next, and is dear enough to XLA to be kept. (Not `jax.lax.optimization_barrier`: that is gone
    before the schedule is made. And not by one scalar: that would become a multiplication.)

    Args:
        x: an array, floating-point.
        after: a scalar that another computation has made, of any real dtype; or None, for no waiting.
        other: an array that is in memory anyway, of x's shape and dtype; of another, there is no waiting. (With x
            itself as a part of the ones it would be read twice, and be kept for that before its turn.)
    """
    if after is None or x.shape != other.shape:
        return x

    def wait(x, after, other):
        return x / jnp.where(unforeseen_zero(after) != 0, other, 1)

    return jax.lax.platform_dependent(x, after, other, cpu=wait, default=lambda x, after, other: x)


def unforeseen_zero(scalar):
    """0 as int32 `[]`, of which XLA does not see that it is 0 whatever the scalar, of any real dtype, is."""
    # By its bits, as NaN and infinity would not become 0 by any arithmetic.
    bits = jax.lax.bitcast_convert_type(scalar.astype(jnp.float32), jnp.int32)
    return jnp.minimum(jnp.maximum(bits, 0), 0)


def norm(x):
    """`||x||` of a whole array, a scalar; as `group_norms`, no square over- or underflows."""
    return jnp.squeeze(group_norms(x, None))


# Dividing the bits of a float by three divides its exponent by three, so `magic - bits / 3` are the
# bits of a first guess for x ** (-1/3), 3.5 % off at most; the steps below bring that to rounding. The
# constants are 4/3 of the bits of 1.0, less the shift that balances the guess's largest errors to both sides.
_CBRT = {
    jnp.dtype("float32"): (jnp.int32, 0x54A2FA8C, 1),
    jnp.dtype("float64"): (jnp.int64, 0x553EF0FF289DD796, 2),
}


@jax.jit
def cbrt(x):
    """Cube root of a non-negative array: 0, NaN and infinity give themselves.

    Args:
        x: float32 or float64, any shape, no negative entries (sums of squares here).

    Returns:
        `x ** (1/3)` to four units in the last place (2.1 machine eps), same shape and dtype. `jnp.cbrt` is one libm
        call per element on CPU, forty times the time of a copy, and wrong (negative) for float32 denormals; this is
        a handful of multiplications that vectorise.
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
    # As floats: XLA takes a division of integers for expensive and would keep its results in an array of their own. The
    # rounding of the bits is nothing to the guess.
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
