"""The comparison of outputs: its precision, and the inputs that it generates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ramda_jax.compaction import CompactionError, compact, compact_model, expand, plan_compaction, trace_dims
from ramda_jax.compaction.proof.numbers import batches_for, coarsest, compare_outputs, random_batches, tolerance_of
from tests import tiny
from tests.compaction.patterns import relative_difference
from tests.tiny import array

ONES = [[(jnp.ones(3),)]]


class HalfInside(nnx.Module):
    """A net that computes in another dtype and returns float32, as in mixed precision."""

    def __init__(self, dtype, rngs):
        self.layers = nnx.List([nnx.Linear(m, n, dtype=dtype, rngs=rngs) for m, n in ((6, 16), (16, 12), (12, 4))])
        self.norm = nnx.LayerNorm(16, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = nnx.gelu(self.layers[1](self.norm(self.layers[0](x))))
        logits = self.layers[2](x).astype(jnp.float32)
        return logits, jnp.argmax(logits, -1)


@pytest.mark.slow_except("bfloat16")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_what_computes_in_half_precision_is_compared_in_it_though_it_returns_single(dtype, monkeypatch):
    net = HalfInside(dtype, nnx.Rngs(0))
    net.layers[2].kernel[...] = net.layers[2].kernel[...].at[5:].set(0)
    x = jax.random.normal(jax.random.key(0), (32, 6))
    small = compact_model(net, x, num_random=1)
    assert small.model.layers[2].kernel.shape == (5, 4)
    other = x[::-1] * 0.7
    assert relative_difference(net(other)[0], small.model(other)[0]) <= tolerance_of(dtype)
    # Sums in another order, as XLA takes them for larger sizes, differ in the last bits of half precision.
    seen = []

    def rounded(*args):
        outputs, place = small.apply(*args)
        seen.append(args)
        return outputs * (1 + float(jnp.finfo(dtype).eps)), place * 0

    error, reason = compare_outputs(*small.whole, rounded, small.variables, [[(x,)]], precision=dtype)
    assert seen and 1e-4 < error and reason is None
    assert compare_outputs(*small.whole, rounded, small.variables, [[(x,)]], precision=jnp.float32)[1]


def test_outputs_need_not_agree_better_than_the_precision_inside_though_no_parameter_shows_it():
    # Without parameters nothing changes if their last bits do.
    same, rounded = lambda _, x: x, lambda _, x: 1.01 * x
    assert compare_outputs(same, None, rounded, None, ONES, precision=jnp.bfloat16)[1] is None
    assert compare_outputs(same, None, rounded, None, ONES, precision=jnp.float32)[1]


def test_the_coarsest_dtype_is_that_of_the_largest_rounding():
    assert (
        coarsest([jnp.dtype("float32"), jnp.dtype("bfloat16"), jnp.dtype("float16"), jnp.dtype("int8")]) == jnp.bfloat16
    )
    assert coarsest([jnp.dtype("int32"), None]) is None
    assert tolerance_of(jnp.dtype("int32")) == 0
    assert tolerance_of(jnp.dtype("float8_e4m3fn")) == 0.5


def test_a_program_that_magnifies_rounding_need_not_be_more_exact_than_it_is():
    def cancelling(params, x):
        return (params - 0.99) * x

    def compare(factor, precision):
        return compare_outputs(cancelling, jnp.ones(3), cancelling, jnp.full(3, factor), ONES, precision=precision)[1]

    # The last bit of the parameter changes the output by 1.2e-5.
    assert compare(1 + 2.4e-7, jnp.float32) is None
    assert "more than 1e-05; a larger `tolerance=`" in str(compare(1 + 2.4e-7, None))
    assert "where the program computes in float32" in str(compare(1 + 1e-5, jnp.dtype("float32")))
    # A given tolerance overrides the default.
    reason = compare_outputs(cancelling, jnp.ones(3), cancelling, jnp.full(3, 1 + 2.4e-7), ONES, 1e-6, jnp.float32)[1]
    assert "more than 1e-06" in str(reason)


def test_random_floats_are_normal_or_from_the_range_of_each_feature():
    x = jnp.asarray(np.random.default_rng(0).uniform([[-3, 2]], [[-1, 5]], (50, 2)), jnp.float32)
    (normal,), (drawn,), (shuffled,) = random_batches((x,), 1)[0]
    assert normal[:, 0].max() > 1 and normal[:, 1].min() < 0
    for batch in (drawn, shuffled):
        assert (batch.min(0) >= x.min(0)).all() and (batch.max(0) <= x.max(0)).all() and not jnp.array_equal(batch, x)
    np.testing.assert_array_equal(jnp.sort(shuffled, axis=0), jnp.sort(x, axis=0))
    # A single row has a range only as a whole. Constant inputs and entries that are not finite stay.
    _, (row,), _ = random_batches((jnp.array([[1.0, 2.0, 4.0]]),), 1)[0]
    assert (row >= 1).all() and (row <= 4).all() and len(set(row[0].tolist())) == 3
    _, (constant,), _ = random_batches((jnp.ones((3, 4)),), 1)[0]
    assert (constant == 1).all()
    _, (masked,), _ = random_batches((jnp.array([[1.0, -jnp.inf], [2.0, 3.0], [0.0, 1.0]]),), 1)[0]
    assert masked[0, 1] == -jnp.inf and jnp.isfinite(masked[1:]).all()
    assert [array.shape for (array,) in random_batches((jnp.ones((0, 2)),), 1)[0]] == [(0, 2)] * 3


def logarithm(params, x):
    return jnp.log(x) @ params["in"] @ params["out"]


def difference(params, x):
    """The logarithm of the difference of a feature and a larger feature."""
    return jnp.log(x[:, 1:] - x[:, :1]) @ params["in"] @ params["out"]


@pytest.mark.parametrize("function", [logarithm, difference])
def test_inputs_with_a_domain_are_drawn_from_the_batch(function):
    low = np.random.default_rng(0).uniform(0.1, 9, (8, 1))
    x = array(np.concatenate([low, low + 0.1], 1), jnp.float32)
    size = 2 if function is logarithm else 1
    params = {"in": jnp.ones((size, 5)), "out": jnp.ones((5, 2)).at[3:].set(0)}
    small = compact_model(function, x, variables=params)
    assert small.variables["in"].shape == (size, 3) and small.proof.batches == 3
    if function is logarithm:
        # Without values of the inputs, a point with finite outputs is found too.
        compact_model(function, jax.ShapeDtypeStruct(x.shape, x.dtype), variables=params)
    else:
        with pytest.raises(CompactionError, match=r"not finite, .* give a batch of inputs for which it is finite"):
            compact_model(function, -x, variables=params)


def test_keys_and_integers_are_compared_as_before():
    tokens, key = jnp.array([3, 1, 2]), jax.random.key(0)
    batches = batches_for((tokens, key), 1)
    assert sorted(batches[0][0][0].tolist()) == [1, 2, 3] and batches[1] == [(tokens, key)]
    assert compare_outputs(lambda p, t, k: (t, k), 0, lambda p, t, k: (t, k), 0, batches) == (0.0, None)
    assert "differ by" in str(compare_outputs(lambda p, t, k: t, 0, lambda p, t, k: t + 1, 0, batches)[1])


def test_cut_arrays_and_random_batches_need_no_program(caplog):
    params = tiny.normal_tree({"in": (5, 23), "out": (23, 3)})
    params["out"] = array(np.where(np.arange(23)[:, None] < 11, params["out"], 0), jnp.float32)
    batch = tiny.normal_tree((7, 5))
    plan = plan_compaction(
        trace_dims(lambda params, x: jnp.tanh(x @ params["in"]) @ params["out"], params, batch), params
    )

    assert tiny.compiled(lambda: jax.jit(lambda x: x + 1)(1.0), caplog)  # a new program is seen
    assert not tiny.compiled(lambda: expand(plan, compact(plan, params)), caplog)
    assert not tiny.compiled(lambda: random_batches((batch,), 1), caplog)
