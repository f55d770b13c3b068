"""Which indices belong together, by brute force."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from ramda_jax.compaction.tracing.union_find import ALWAYS
from ramda_jax.compaction.tracing.widths import group_nodes


@hypothesis.given(
    axes=st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=5),
    reasons=st.lists(st.sampled_from(["", "", "why"]), min_size=10, max_size=10),
)
def test_nodes_are_grouped_by_the_exact_set_of_axes_they_occur_on(axes, reasons):
    groups = group_nodes([np.array(nodes, np.int64) for nodes in axes], lambda nodes: [reasons[i] for i in nodes])
    expected = {}
    # Groups in the order of their first axis, and of their first node on it.
    for axis in axes:
        for node in sorted(set(axis) - {ALWAYS}):
            where = tuple(number for number, nodes in enumerate(axes) if node in nodes)
            expected.setdefault((where, reasons[node]), set()).add(node)
    assert [group.tolist() for group in groups] == [sorted(nodes) for nodes in expected.values()]
