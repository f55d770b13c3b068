"""The indices that belong together, compared with brute force, and the inputs' indices that are read."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from ramda_jax.compaction import plan_compaction, trace_dims
from ramda_jax.compaction.tracing.labels.nodes import Nodes
from ramda_jax.compaction.tracing.labels.union_find import ALWAYS
from ramda_jax.compaction.tracing.widths import group_nodes


@hypothesis.given(
    axes=st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=5),
    reasons=st.lists(st.sampled_from(["", "", "why"]), min_size=10, max_size=10),
)
def test_nodes_are_grouped_by_the_exact_set_of_axes_they_occur_on(axes, reasons):
    groups = group_nodes([np.array(nodes, np.int64) for nodes in axes], lambda nodes: [reasons[i] for i in nodes], 10)
    expected = {}
    # The groups are ordered by their first axis, and by their first node on it.
    for axis in axes:
        for node in sorted(set(axis) - {ALWAYS}):
            where = tuple(number for number, nodes in enumerate(axes) if node in nodes)
            expected.setdefault((where, reasons[node]), set()).add(node)
    assert [group.tolist() for group in groups] == [sorted(nodes) for nodes in expected.values()]


class Counted(dict):
    """Products that count how often they are iterated over."""

    walks = 0

    def __iter__(self):
        self.walks += 1
        return super().__iter__()

    def keys(self):
        self.walks += 1
        return super().keys()

    def values(self):
        self.walks += 1
        return super().values()


def test_an_axis_is_looked_up_without_going_over_all_products():
    """A model with a billion parameters has a hundred thousand products, on hundreds of axes."""
    rng = np.random.default_rng(0)
    roots = np.arange(30)
    roots[5:8] = 4
    products = {node: frozenset(rng.permutation(20)[: node % 4].tolist()) for node in range(20, 30)}
    nodes, kept = Nodes(roots, Counted(products)), rng.random(30) < 0.7
    for label in (rng.integers(0, 30, 12) for _ in range(50)):
        expected = [(i, node) for i, root in enumerate(roots[label]) for node in sorted(products.get(root, {root}))]
        assert sorted(zip(*map(np.ndarray.tolist, nodes.of(label)), strict=True)) == sorted(expected)
        alive = [all(kept[node] for node in products.get(root, {root})) for root in roots[label]]
        assert nodes.mask(label, kept).tolist() == alive
    assert nodes.products.walks <= 3


def test_the_table_has_free_widths_first_and_folds_what_was_never_free():
    def function(params, x):
        x = jax.lax.conv_general_dilated(x, params["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        h = jax.nn.softmax(x @ params["a"], axis=-1)
        return jnp.tanh(h @ params["b"]) @ params["c"]

    shapes = {"kernel": (3, 2, 5), "a": (5, 6), "b": (6, 7), "c": (7, 2), "other": (4,)}
    text = str(trace_dims(function, {name: jnp.ones(shape) for name, shape in shapes.items()}, jnp.ones((1, 8, 2))))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines == [
        "width size members readers frozen because of",
        "d0 5 kernel[2] a[0]",
        "d2 7 b[1] c[0]",
        "d1 6 a[1] b[0] reduce_max runs over it",
        "never free, the model's output: d3",
        "never free, a convolution slides over it: d4",
        "never free, the model's input: d5",
        "never free, a leaf that the function does not use: d6",
    ]


def test_heads_and_the_sizes_of_their_values_on_one_fused_axis_are_two_widths():
    def fused(params, x):
        q, k, v = jnp.split((x @ params["qkv"]).reshape(len(x), 4, 9), 3, axis=-1)
        y = jnp.einsum("nts,snh->tnh", jnp.einsum("tnh,snh->nts", q, k), v)
        return y.reshape(len(x), -1) @ params["out"]

    dims = trace_dims(fused, {"qkv": jnp.ones((5, 36)), "out": jnp.ones((12, 2))}, jnp.ones((3, 5)))
    # Only queries and keys read each other's sizes.
    free = {width.size: width for width in dims.widths if not width.reason and width.readers}
    assert set(free) == {4, 3}
    [reader] = free[4].readers
    assert str(reader) == "out[0]" and reader.index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    [reader] = free[3].readers
    assert reader.index.tolist() == [0, 1, 2] * 4


def test_an_input_whose_entries_an_equation_mixes_counts_as_read():
    """Only a sum over all inputs, which is added to the output, reads the last two inputs."""
    params = {"kernel": jnp.ones((4, 3)).at[2:].set(0)}
    x = jnp.ones((2, 4))
    for function, unread in (
        (lambda p, x: x @ p["kernel"], {"0[1]": (2, 3)}),
        (lambda p, x: x @ p["kernel"] + x.sum(axis=1, keepdims=True), {}),
    ):
        plan = plan_compaction(trace_dims(function, params, x), params)
        assert plan.unread_inputs == unread
