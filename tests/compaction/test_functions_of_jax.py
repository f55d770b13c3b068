"""Common functions of JAX: each of their primitives has a rule, and a width that they do not work along stays free.

The first layer has 8 units, and nothing reads the last three. A function between the first and the second layer works
along another axis, of length 6, or entry by entry. So the three units must be removed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax.compaction import compact_model
from tests.compaction.patterns import relative_difference

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4)), jnp.float32)
PARAMS = {
    "in": jnp.asarray(np.random.default_rng(1).normal(size=(4, 8)), jnp.float32),
    "out": jnp.asarray(np.random.default_rng(2).normal(size=(8, 3)), jnp.float32).at[5:].set(0),
}
TWO = jnp.array([0, 4])
SEGMENTS = jnp.array([0, 0, 1, 2, 2, 2])
KEY = jax.random.key(0)


def over_rows(function):
    """Applies a function of segments along axis 1."""
    return lambda h: jnp.moveaxis(function(jnp.moveaxis(h, 1, 0), SEGMENTS, 3), 0, 1)


def images(function):
    """Applies a function to the rows as images of 2 x 3."""
    return lambda h: function(h.reshape(2, 2, 3, -1))


def pooled(h, initial, function, window=(1, 2, 1)):
    return jax.lax.reduce_window(h, initial, function, window, (1, 1, 1), "VALID")


def matrices(h):
    """A positive definite 3 x 3 matrix for each unit."""
    rows = jnp.moveaxis(h, -1, 1).reshape(2, -1, 2, 3)
    return jnp.einsum("bchi,bchj->bcij", rows, rows) + jnp.eye(3)


def back(result):
    """Moves the units back to the last axis, and flattens the axes before it."""
    return jnp.moveaxis(result, 1, -1).reshape(2, -1, result.shape[1])


def by_scan(h):
    return jnp.moveaxis(jax.lax.scan(lambda c, x: (c + x, jnp.tanh(c)), h[:, 0], jnp.moveaxis(h, 1, 0))[1], 0, 1)


def by_fori(h):
    return jax.lax.fori_loop(0, 3, lambda i, c: c.at[:, i].multiply(2.0), h)


def by_while(h):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, h))[1]


def chosen(h):
    return jax.lax.switch(jnp.argmax(h[0, :, 0]) % 3, [jnp.sin, jnp.cos, lambda h: h * 2], h)


def kept_cache(h):
    """A cache of length 9, of which a part is written at a position that depends on data."""
    start = (h[0, 0, 0] > 0).astype(jnp.int32)
    return jax.lax.dynamic_update_slice(jnp.zeros((2, 9, h.shape[-1])), h, (0, start, 0))


def cache_of_each(h):
    """The same with a position for each example of the batch."""
    starts = (h[:, 0, 0] > 0).astype(jnp.int32)
    write = jax.vmap(lambda cache, new, start: jax.lax.dynamic_update_slice(cache, new, (start, 0)))
    return write(jnp.zeros((2, 9, h.shape[-1])), h, starts)


def padded_by_set(h):
    """Zeros of the length of the second layer's rows, which here is the number of units."""
    return jnp.zeros((*h.shape[:2], PARAMS_SIZE[0])).at[..., : h.shape[-1]].set(h)


ELEMENTWISE = {
    name: getattr(jnp, name)
    for name in """
    abs arctan arcsinh cbrt ceil conj cos cosh deg2rad exp exp2 expm1 fabs fix floor i0 isfinite isnan logical_not
    nan_to_num negative positive rad2deg reciprocal rint round sign signbit sin sinc sinh spacing square tan tanh trunc
    """.split()
    if hasattr(jnp, name)
} | {
    f"nn.{name}": getattr(jax.nn, name)
    for name in """
    celu elu gelu hard_sigmoid hard_silu hard_swish hard_tanh identity leaky_relu log_sigmoid mish relu relu6 selu
    sigmoid silu soft_sign softplus sparse_plus sparse_sigmoid squareplus swish tanh
    """.split()
} | {
    "gelu, exact": lambda h: jax.nn.gelu(h, approximate=False),
    "sqrt": lambda h: jnp.sqrt(h * h),
    "erf": jax.scipy.special.erf,
    "xlogy": lambda h: jax.scipy.special.xlogy(h * h, h * h),
    "lgamma": lambda h: jax.lax.lgamma(h * h + 1),
    "where": lambda h: jnp.where(h > 0, h, 0.1 * h),
    "where, NaN": lambda h: jnp.nan_to_num(jnp.where(h > 0, h, jnp.nan)),
    "where, by rows": lambda h: jnp.where(jnp.arange(6)[:, None] < 3, h, 0),
    "select": lambda h: jnp.select([h > 1, h > 0], [h, 2 * h], 0),
    "piecewise": lambda h: jnp.piecewise(h, [h < 0, h >= 0], [lambda h: -h, lambda h: h]),
    "clip": lambda h: jnp.clip(h, -1, 1),
    "maximum": lambda h: jnp.maximum(h, 0.5),
    "hypot": lambda h: jnp.hypot(h, 2 * h),
    "logaddexp": lambda h: jnp.logaddexp(h, 0),
    "power": lambda h: jnp.abs(h) ** 1.5,
    "floor_divide": lambda h: h // 0.3,
    "remainder": lambda h: h % 0.3,
    "atan2": lambda h: jnp.arctan2(h, 2.0),
    "half precision": lambda h: h.astype(jnp.bfloat16).astype(jnp.float32),
    "reduce_precision": lambda h: jax.lax.reduce_precision(h, 8, 7),
    "bitcast": lambda h: jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(h, jnp.int32), jnp.float32),
    "complex": lambda h: jnp.abs(h + 1j * h),
    "stop_gradient": jax.lax.stop_gradient,
    "optimization_barrier": jax.lax.optimization_barrier,
    "copy": lambda h: jnp.array(h, copy=True),
    "vmap": jax.vmap(jax.vmap(jnp.tanh)),
    "checkpoint": jax.checkpoint(jnp.tanh),
    "jvp": lambda h: jax.jvp(jnp.tanh, (h,), (h,))[1],
    "grad inside": jax.grad(lambda h: jnp.tanh(h).sum()),
    "constant zeros of NumPy": lambda h: h + np.zeros(h.shape, np.float32),
    "constant rows of NumPy": lambda h: h * np.broadcast_to(np.arange(6, dtype=np.float32)[:, None], h.shape),
    "a random key as a constant": lambda h: h + jax.random.normal(KEY, (6, 1)),
    "switch": chosen,
    "while": by_while,
}  # fmt: skip
ALONG_ROWS = {
    "tile": lambda h: jnp.tile(h, (1, 2, 1)),
    "repeat": lambda h: jnp.repeat(h, 2, axis=1),
    "roll": lambda h: jnp.roll(h, 1, axis=1),
    "flip": lambda h: jnp.flip(h, 1),
    "rot90": lambda h: jnp.rot90(h, axes=(0, 1)),
    "concatenate": lambda h: jnp.concatenate([h, h], 1),
    "stack": lambda h: jnp.stack([h, h]),
    "split": lambda h: sum(jnp.split(h, 2, axis=1)),
    "array_split": lambda h: jnp.array_split(h, 4, axis=1)[1],
    "unstack": lambda h: sum(jnp.unstack(h, axis=1)),
    "moveaxis": lambda h: jnp.moveaxis(h, 0, 1),
    "pad": lambda h: jnp.pad(h, ((0, 0), (1, 2), (0, 0))),
    "pad, reflect": lambda h: jnp.pad(h, ((0, 0), (1, 2), (0, 0)), mode="reflect"),
    "pad, edge": lambda h: jnp.pad(h, ((0, 0), (1, 2), (0, 0)), mode="edge"),
    "pad, wrap": lambda h: jnp.pad(h, ((0, 0), (1, 2), (0, 0)), mode="wrap"),
    "pad between": lambda h: jax.lax.pad(h, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0))),
    "pad, constant of units": lambda h: jnp.pad(h, ((0, 0), (0, 0), (0, PARAMS_SIZE[0] - h.shape[-1]))),
    "set at units": padded_by_set,
    "sum": lambda h: h.sum(1),
    "mean": lambda h: h.mean(1),
    "var": lambda h: h.var(1),
    "max": lambda h: h.max(1),
    "prod": lambda h: h.prod(1),
    "any": lambda h: (h > 0).any(1).astype(h.dtype),
    "ptp": lambda h: jnp.ptp(h, axis=1),
    "norm": lambda h: jnp.linalg.norm(h, axis=1),
    "argmax": lambda h: jnp.argmax(h, 1).astype(h.dtype),
    "median": lambda h: jnp.median(h, axis=1),
    "quantile": lambda h: jnp.quantile(h, 0.3, axis=1),
    "sort": lambda h: jnp.sort(h, axis=1),
    "argsort": lambda h: jnp.argsort(h, axis=1).astype(h.dtype),
    "sort with keys": lambda h: jax.lax.sort((h, -h), dimension=1, num_keys=1)[1],
    "top_k": lambda h: jnp.moveaxis(jax.lax.top_k(jnp.moveaxis(h, 1, 2), 2)[0], 2, 1),
    "approx_max_k": lambda h: jax.lax.approx_max_k(h, 2, reduction_dimension=1)[0],
    "cumsum": lambda h: jnp.cumsum(h, axis=1),
    "cumprod": lambda h: jnp.cumprod(h, axis=1),
    "cummax": lambda h: jax.lax.cummax(h, axis=1),
    "cumlogsumexp": lambda h: jax.lax.cumlogsumexp(h, axis=1),
    "diff": lambda h: jnp.diff(h, axis=1),
    "gradient": lambda h: jnp.gradient(h, axis=1),
    "associative_scan": lambda h: jax.lax.associative_scan(jnp.add, h, axis=1),
    "scan": by_scan,
    "fori_loop": by_fori,
    "map": lambda h: jax.lax.map(jnp.tanh, h),
    "softmax": lambda h: jax.nn.softmax(h, axis=1),
    "log_softmax": lambda h: jax.nn.log_softmax(h, axis=1),
    "logsumexp": lambda h: jax.nn.logsumexp(h, axis=1),
    "standardize": lambda h: jax.nn.standardize(h, axis=1),
    "fft": lambda h: jnp.fft.fft(h, axis=1).real,
    "rfft and back": lambda h: jnp.fft.irfft(jnp.fft.rfft(h, axis=1), n=6, axis=1),
    "fft2": images(lambda h: jnp.fft.fft2(h, axes=(1, 2)).real),
    "take": lambda h: jnp.take(h, TWO, axis=1),
    "index": lambda h: h[:, TWO],
    "index by data": lambda h: h[jnp.argmax(h[:, :, 0], 1) % 2, 1],
    "take_along_axis": lambda h: jnp.take_along_axis(h, jnp.argmax(h, 1)[:, None], 1),
    "one entry": lambda h: h[:, -1],
    "dynamic_slice": lambda h: jax.lax.dynamic_slice_in_dim(h, (h[0, 0, 0] > 0).astype(jnp.int32), 3, axis=1),
    "dynamic_slice at a negative place": lambda h: jax.lax.dynamic_slice(
        h, (0, 1, jnp.argmax(h[0, :, 0])), (2, 3, h.shape[-1])
    ),
    "dynamic_update_slice": kept_cache,
    "dynamic_update_slice of each": cache_of_each,
    "at set": lambda h: h.at[:, TWO].set(1.0),
    "at set rows": lambda h: h.at[:, 2:4].set(h[:, :2]),
    "at add": lambda h: h.at[:, TWO].add(h[:, :2]),
    "at max": lambda h: h.at[:, TWO].max(0.5),
    "at min": lambda h: h.at[:, TWO].min(0.5),
    "at multiply": lambda h: h.at[:, TWO].multiply(2.0),
    "at get, filled": lambda h: h.at[:, TWO + 3].get(mode="fill", fill_value=0),
    "segment_sum": over_rows(jax.ops.segment_sum),
    "segment_max": over_rows(jax.ops.segment_max),
    "segment_min": over_rows(jax.ops.segment_min),
    "segment_prod": over_rows(jax.ops.segment_prod),
    "reduce": lambda h: jax.lax.reduce(h, 1.0, lambda a, b: a * b + 0.5 * a, (1,)),
    "reduce_window": lambda h: pooled(h, -jnp.inf, jax.lax.max),
    "average": lambda h: pooled(h, 0.0, jax.lax.add),
    "reduce_window of any function": lambda h: pooled(h, 0.0, lambda a, b: a + b * b),
    "maximum pooling, its gradient": jax.grad(lambda h: (pooled(h, -jnp.inf, jax.lax.max, (1, 2, 1)) ** 2).sum()),
    "average pooling, its gradient": jax.grad(lambda h: (pooled(h, 0.0, jax.lax.add) ** 2).sum()),
    "resize, nearest": images(lambda h: jax.image.resize(h, (2, 4, 6, h.shape[-1]), "nearest")),
    "resize, bilinear": images(lambda h: jax.image.resize(h, (2, 4, 6, h.shape[-1]), "bilinear")),
    "matmul over rows": lambda h: jnp.ones((5, 6)) @ h,
    "einsum over rows": lambda h: jnp.einsum("btc,bsc->btsc", h, h),
    "depth to space": lambda h: h.reshape(2, 3, 2, -1).transpose(0, 2, 1, 3).reshape(2, 6, -1),
    "triangle": lambda h: jnp.tril(jnp.ones((6, 6))) @ h,
    "digitize": lambda h: jnp.digitize(h, jnp.array([-1.0, 0.0, 1.0])).astype(h.dtype),
    "searchsorted": lambda h: jnp.searchsorted(jnp.array([-1.0, 0.0, 1.0]), h).astype(h.dtype),
    "interp": lambda h: jnp.interp(h, jnp.array([-1.0, 0.0, 1.0]), jnp.array([1.0, 0.0, 2.0])),
    "one_hot of it": lambda h: jnp.moveaxis(jax.nn.one_hot((h > 0).astype(jnp.int32), 2), -1, 1),
    "noise, the same for all units": lambda h: h + jax.random.normal(KEY, (2, 6, 1)),
    "dropped rows": lambda h: jnp.where(jax.random.bernoulli(jax.random.fold_in(KEY, 1), 0.5, (2, 6, 1)), h, 0),
    "attention over rows": lambda h: jax.nn.softmax(X @ X.swapaxes(1, 2)) @ h,
    "cholesky": lambda h: back(jnp.linalg.cholesky(matrices(h))),
    "inverse": lambda h: back(jnp.linalg.inv(matrices(h))),
    "solve": lambda h: back(jnp.linalg.solve(matrices(h), jnp.ones((3, 1)))),
    "solve, units side by side": lambda h: jax.scipy.linalg.solve_triangular(
        jnp.tril(jnp.ones((6, 6))), h[0], lower=True
    )[None],
    "eigh": lambda h: back(jnp.linalg.eigh(matrices(h))[0][..., None]),
    "svd": lambda h: back(jnp.linalg.svd(matrices(h), compute_uv=False)[..., None]),
    "qr": lambda h: back(jnp.abs(jnp.linalg.qr(matrices(h))[1])),
    "determinant": lambda h: back(jnp.linalg.det(matrices(h))[..., None, None]),
}  # fmt: skip
#: The number of rows of the second layer's kernel while a function is traced.
PARAMS_SIZE = [8]


def between(function):
    def apply(params, x):
        PARAMS_SIZE[0] = len(params["out"])
        return function(x @ params["in"]) @ params["out"]

    return apply


#: The functions that need a rule of their own. The tests run them too.
RUN = (
    "tile",
    "pad, constant of units",
    "set at units",
    "top_k",
    "approx_max_k",
    "fft",
    "dynamic_update_slice of each",
    "at set rows",
    "at add",
    "segment_sum",
    "segment_max",
    "maximum pooling, its gradient",
    "constant zeros of NumPy",
    "where, NaN",
    "solve, units side by side",
)


@pytest.mark.parametrize(
    "name", [*RUN, *(pytest.param(n, marks=pytest.mark.slow) for n in ELEMENTWISE | ALONG_ROWS if n not in RUN)]
)
def test_what_stands_beside_a_width_computes_the_same(name):
    apply = between((ELEMENTWISE | ALONG_ROWS)[name])
    small = compact_model(apply, X, variables=PARAMS, num_random=0)
    other = X[:, ::-1] * 0.9
    assert relative_difference(apply(PARAMS, other), apply(small.variables, other)) <= 1e-5


@pytest.mark.parametrize("name", [*ELEMENTWISE, *ALONG_ROWS])
def test_a_width_passes_beside_a_common_function(name):
    """This test checks the structure only and runs nothing."""
    function = (ELEMENTWISE | ALONG_ROWS)[name]
    x = jax.ShapeDtypeStruct(X.shape, X.dtype)
    small = compact_model(between(function), x, variables=PARAMS, num_random=0)
    assert small.dims.opaque == small.refused == {}
    assert jax.tree.map(jnp.shape, small.variables) == {"in": (4, 5), "out": (5, 3)}
