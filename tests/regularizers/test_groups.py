"""The slices of a leaf that are groups: every name, every number of axes, every refusal."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import GroupLasso

# Tuples (groups, path, shape, group axes, number of groups).
LAYOUTS = [
    ("input", "dense/kernel", (6, 4), (0,), 6),
    ("input", "conv/kernel", (5, 6, 4), (1,), 6),
    ("input", "conv/kernel", (3, 2, 6, 4), (2,), 6),
    ("input", "conv/kernel", (3, 2, 2, 6, 4), (3,), 6),
    ("input", "depthwise/kernel", (3, 3, 1, 8), (3,), 8),  # each output has its own input, so a group is a channel
    ("input", "depthwise/kernel", (4, 1, 8), (2,), 8),
    ("input", "grouped/kernel", (3, 3, 2, 8), (2,), 2),
    ("input", "dense/kernel", (1, 8), (0,), 1),  # a dense layer with one input feature
    ("input", "attention/query/kernel", (6, 2, 3), (0,), 6),
    ("input", "attention/key/kernel", (6, 2, 3), (0,), 6),
    ("input", "attention/value/kernel", (6, 2, 3), (0,), 6),
    ("input", "attention/out/kernel", (2, 3, 6), (0, 1), 6),
    *(("input", f"block/{name}/kernel", (6, 2, 3), (0,), 6) for name in ("q_proj", "k", "to_v", "wq")),
    *(("input", f"block/{name}/kernel", (2, 3, 6), (0, 1), 6) for name in ("o_proj", "out_proj", "o", "wo")),
    ("input", "attn/q_einsum/w", (2, 6, 3), (1,), 6),
    ("input", "attn/kv_einsum/w", (2, 4, 6, 3), (2,), 6),
    ("input", "attn/attn_vec_einsum/w", (2, 3, 6), (0, 1), 6),
    ("input", "block/o_proj/kernel", (6, 6), (0,), 6),  # a dense layer with this name
    ("input", "general/kernel", (2, 3, 6), (1,), 3),
    ("input", "lstm/kernel", (6, 16), (0,), 6),
    ("input", "head/out/kernel", (6, 4), (0,), 6),  # a dense layer with the name out
    ("input", "stem/query/kernel", (3, 3, 6, 4), (2,), 6),  # a convolution with the name query
    ("input", "query", (5, 6, 4), (1,), 6),  # a leaf with this name, not a layer
    ("input", "query/attention/kernel", (5, 6, 4), (1,), 6),  # only the parent's name counts
    ("output", "dense/kernel", (6, 4), (1,), 4),
    ("output", "conv/kernel", (3, 2, 6, 4), (3,), 4),
    ("output", "conv/kernel", (3, 2, 2, 6, 4), (4,), 4),
    ("output", "attention/query/kernel", (6, 2, 3), (1, 2), 6),
    ("output", "attention/key/kernel", (6, 2, 3), (1, 2), 6),
    ("output", "attention/value/kernel", (6, 2, 3), (1, 2), 6),
    ("output", "attention/out/kernel", (2, 3, 6), (2,), 6),
    ("heads", "attention/query/kernel", (6, 2, 3), (1,), 2),
    ("heads", "attention/key/kernel", (6, 2, 3), (1,), 2),
    ("heads", "attention/value/kernel", (6, 2, 3), (1,), 2),
    ("heads", "attention/out/kernel", (2, 3, 6), (0,), 2),
    ("heads", "block/q_proj/kernel", (6, 2, 3), (1,), 2),
    ("heads", "block/o_proj/kernel", (2, 3, 6), (0,), 2),
    ("heads", "attn/q_einsum/w", (2, 6, 3), (0,), 2),
    ("heads", "attn/kv_einsum/w", (2, 4, 6, 3), (1,), 4),
    ("output", "attn/q_einsum/w", (2, 6, 3), (0, 2), 6),
    # Stacks of layers: a group contains the same slice of all layers.
    ("input", "layers/dense/kernel", (7, 6, 4), (1,), 6),
    ("input", "layers/conv/kernel", (7, 3, 3, 6, 4), (3,), 6),
    ("input", "layers/depthwise/kernel", (7, 3, 3, 1, 8), (4,), 8),
    ("input", "layers/attention/query/kernel", (7, 6, 2, 3), (1,), 6),
    ("input", "layers/self_attn/q_proj/kernel", (7, 8, 2, 3), (1,), 8),
    ("input", "layers/attention/out/kernel", (7, 2, 3, 6), (1, 2), 6),
    ("input", "SelfAttention_0/out/kernel", (2, 7, 2, 3, 6), (2, 3), 6),
    ("input", "mha/key/kernel", (6, 6, 2, 3), (1,), 6),  # the number of layers equals the number of features
    ("input", "layers/attn_vec_einsum/w", (7, 2, 3, 6), (1, 2), 6),
    ("input", "layers/kv_einsum/w", (7, 2, 4, 6, 3), (3,), 6),
    ("output", "layers/attention/query/kernel", (7, 6, 2, 3), (2, 3), 6),
    ("output", "layers/attention/out/kernel", (7, 2, 3, 6), (3,), 6),
    ("heads", "layers/attention/query/kernel", (7, 6, 2, 3), (2,), 2),
    ("heads", "layers/attention/out/kernel", (7, 2, 3, 6), (1,), 2),
    ("heads", "layers/q_einsum/w", (7, 2, 6, 3), (1,), 2),
    ("input", "attention/query/kernel", (1, 1, 6, 4), (2,), 6),  # a convolution in attention
    ("input", "attention/out/kernel", (3, 3, 6, 4), (2,), 6),
    (-1, "layers/bias", (7, 5), (1,), 5),
    ("kernel", "conv/kernel", (3, 2, 6, 4), (2, 3), 24),
    ("kernel", "conv/kernel", (5, 6, 4), (1, 2), 24),
    ("kernel", "conv/kernel", (3, 2, 2, 6, 4), (3, 4), 24),
    (0, "bias", (5,), (0,), 5),
    ((), "bias", (5,), (), 1),
    ((), "scale", (), (), 1),
    (1, "weight", (6, 4), (1,), 4),
    (-1, "weight", (6, 4), (1,), 4),
    ((0, 1), "attention/out/kernel", (2, 3, 6), (0, 1), 6),
    ((2, 0), "stacked/kernel", (2, 3, 6), (0, 2), 12),
    ((0, -2), "stacked/kernel", (7, 3, 3, 6, 4), (0, 3), 42),
    (np.int64(1), "weight", (6, 4), (1,), 4),
    ([0, 1], "weight", (6, 4), (0, 1), 24),
]


@pytest.mark.parametrize(("groups", "path", "shape", "axes", "number"), LAYOUTS)
def test_layout_gives_the_axes_and_number_of_groups(groups, path, shape, axes, number):
    resolved = GroupLasso(groups).resolve(path, shape)
    assert resolved.groups == axes
    # Set one entry and see which group is alive.
    x = np.zeros(shape)
    index = tuple(size - 1 for size in shape)
    x[index] = 1
    support = np.asarray(resolved.support(jnp.asarray(x)))
    assert support.size == number
    assert support.shape == tuple(size if axis in axes else 1 for axis, size in enumerate(shape))
    assert np.argwhere(support).tolist() == [[index[axis] if axis in axes else 0 for axis in range(len(shape))]]
    assert resolved.sizes(shape) * number == np.prod(shape, dtype=int)
    np.testing.assert_allclose(resolved.weights(shape), np.sqrt(np.prod(shape, dtype=int) / number), rtol=1e-15)
    # After `resolve` the path has no effect.
    assert resolved.resolve("other/path", shape) == resolved
    assert resolved.inner_axes(len(shape)) == tuple(axis for axis in range(len(shape)) if axis not in axes)


@pytest.mark.parametrize(
    ("group_weight", "expected"), [("sqrt_size", 12**0.5), ("sqrt_layer_size", 60**0.5), (0.0, 0.0), (2, 2.0)]
)
def test_group_weight(group_weight, expected):
    regularizer = GroupLasso((2,), group_weight)
    np.testing.assert_allclose(regularizer.weights((2, 3, 5, 2)), expected, rtol=1e-15)
    assert hash(regularizer) == hash(dataclasses.replace(regularizer))


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ("rows", ValueError, r"`groups` must be a known name or axes, got 'rows'; use one of 'input', 'output'"),
        ((0, 0), ValueError, r"`groups` must not name an axis twice, got \(0, 0\)"),
        (1.0, TypeError, r"`groups` must be a name or axes, got 1.0"),
        (None, TypeError, r"`groups` must be a name or axes, got None"),
        ((0, 1.0), TypeError, r"`groups` must be a name or whole-number axes, got \(0, 1.0\)"),
        ((True,), TypeError, r"`groups` must be a name or whole-number axes, got \(True,\)"),
        (("input",), TypeError, r"`groups` must be a name or whole-number axes, got \('input',\)"),
    ],
)
def test_groups_are_refused_by_name(groups, error, message):
    with pytest.raises(error, match=message):
        GroupLasso(groups)


@pytest.mark.parametrize(
    ("group_weight", "error", "message"),
    [
        (
            "size",
            ValueError,
            r"`group_weight` must be one of \('sqrt_size', 'sqrt_layer_size'\) or a number, got 'size'",
        ),
        (-1.0, ValueError, r"`group_weight` must be finite and at least 0, got -1.0"),
        (float("inf"), ValueError, r"`group_weight` must be finite and at least 0, got inf"),
        (float("nan"), ValueError, r"`group_weight` must be finite and at least 0, got nan"),
        (None, TypeError, r"`group_weight` must be one of .* or a Python number, got None"),
        (True, TypeError, r"`group_weight` must be a real number or a schedule, got True"),
        (jnp.float32(1), TypeError, r"`group_weight` must be one of .* or a Python number, got "),
    ],
)
def test_group_weight_is_refused_by_name(group_weight, error, message):
    with pytest.raises(error, match=message):
        GroupLasso(group_weight=group_weight)


@pytest.mark.parametrize(
    ("groups", "path", "shape", "message"),
    [
        ("input", "bias", (5,), r"`groups=\"input\"` must go to a leaf of two axes or more, but 'bias' has 1; leave"),
        ("input", "layers/up/bias", (7, 5), r"must go to a kernel, but 'layers/up/bias' of shape \(7, 5\) is a"),
        ("output", "layers/norm/scale", (7, 5), r"is a bias or a scale, of one layer or of many; leave it out"),
        ("output", "scale", (), r"`groups=\"output\"` must go to a leaf of two axes or more, but 'scale' has 0"),
        ("heads", "bias", (5,), r"`groups=\"heads\"` must go to a leaf of two axes or more, but 'bias' has 1"),
        ("kernel", "bias", (5,), r"`groups=\"kernel\"` must go to a leaf of two axes or more, but 'bias' has 1"),
        ("heads", "dense/kernel", (6, 4), r"`groups=\"heads\"` must go to a kernel of three axes under query, key"),
        ("heads", "conv/kernel", (5, 6, 4), r"`groups=\"heads\"` .*, got 'conv/kernel' with 3; name the axes"),
        ("heads", "query/kernel", (6, 4), r"`groups=\"heads\"` .*, got 'query/kernel' with 2"),
        (
            "kernel",
            "dense/kernel",
            (6, 4),
            r"`groups=\"kernel\"` must go to a conv.* 'dense/kernel' has 2",
        ),
        (
            2,
            "dense/kernel",
            (6, 4),
            r"`groups=\(2,\)` must be axes of .* 'dense/kernel', which has 2; use .*-2 to 1",
        ),
        ((0, -3), "dense/kernel", (6, 4), r"`groups=\(0, -3\)` must be axes of the leaf 'dense/kernel'"),
        (0, "scale", (), r"`groups=\(0,\)` must be axes of the leaf 'scale', which has 0"),
        (
            (0, -2),
            "dense/kernel",
            (6, 4),
            r"`groups=\(0, -2\)` must not name an axis twice, but does .*'dense/kernel'",
        ),
    ],
)
def test_layout_that_does_not_fit_a_leaf_is_refused_by_name(groups, path, shape, message):
    with pytest.raises(ValueError, match=message):
        GroupLasso(groups).resolve(path, shape)
