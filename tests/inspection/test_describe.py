"""The table of leaves, regularizers and solvers agrees with what the optimizer does."""

import jax
import jax.numpy as jnp
import pytest

import ramda_jax
from ramda_jax import GroupLasso, describe

PARAMS = {
    "attention": {
        name: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32), "bias": jax.ShapeDtypeStruct(shape[1:], jnp.float32)}
        for name, shape in {"query": (8, 2, 4), "key": (8, 2, 4), "value": (8, 2, 4), "out": (2, 4, 8)}.items()
    },
    "conv": {"kernel": jax.ShapeDtypeStruct((3, 3, 4, 8), jnp.float32)},
    "dense": {"kernel": jax.ShapeDtypeStruct((16, 10), jnp.float32)},
}


def cells(table):
    """Maps each leaf to its other cells, which are separated by two spaces or more."""
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.splitlines()]
    return {line[0]: line[1:] for line in lines}


# The groups' name, a pattern, and for each leaf (group axes, number of groups, size of a group).
LAYOUTS = [
    (
        "input",
        "kernel",
        {
            "attention/query/kernel": ("(0,)", 8, 8),
            "attention/key/kernel": ("(0,)", 8, 8),
            "attention/value/kernel": ("(0,)", 8, 8),
            "attention/out/kernel": ("(0, 1)", 8, 8),
            "conv/kernel": ("(2,)", 4, 72),
            "dense/kernel": ("(0,)", 16, 10),
        },
    ),
    (
        "output",
        "kernel",
        {
            "attention/query/kernel": ("(1, 2)", 8, 8),
            "attention/out/kernel": ("(2,)", 8, 8),
            "conv/kernel": ("(3,)", 8, 36),
            "dense/kernel": ("(1,)", 10, 16),
        },
    ),
    (
        "heads",
        "attention/.*kernel",
        {
            "attention/query/kernel": ("(1,)", 2, 32),
            "attention/key/kernel": ("(1,)", 2, 32),
            "attention/value/kernel": ("(1,)", 2, 32),
            "attention/out/kernel": ("(0,)", 2, 32),
        },
    ),
    ("kernel", "conv/kernel", {"conv/kernel": ("(2, 3)", 32, 9)}),
    ((0, 1), "conv|dense", {"conv/kernel": ("(0, 1)", 9, 32), "dense/kernel": ("(0, 1)", 160, 1)}),
]


@pytest.mark.parametrize(("groups", "pattern", "expected"), LAYOUTS)
def test_describe_counts_the_groups_of_every_layout(groups, pattern, expected):
    table = cells(describe({pattern: GroupLasso(groups)}, PARAMS))
    for leaf, (axes, number, size) in expected.items():
        _, regularizer, *row, solver = table[leaf]
        assert row == [axes, str(number), str(size), f"{size**0.5:.4g}"]
        assert (regularizer, solver) == ("GroupLasso", "SecularNewton")
    # The total counts the groups of all leaves with groups.
    shown = [row for leaf, row in table.items() if len(row) == 7 and leaf != "leaf" and row[1] != "-"]
    assert set(expected) <= set(table)
    assert table["total"][2] == str(sum(int(row[3]) for row in shown))


def test_describe_names_every_leaf_and_adds_up_the_entries():
    text = describe(GroupLasso(group_weight=0.25), PARAMS)
    table = cells(text)
    assert list(table)[:1] == ["leaf"]
    assert list(table)[-1] == "total"
    assert len(text.splitlines()) == 10 + 2
    assert table["attention/out/bias"] == ["(4, 8)", "-", "-", "-", "-", "-", "-"]
    assert table["dense/kernel"][5] == "0.25"
    # Regularized: 4 attention kernels of 64 entries, a convolution of 288 and a dense layer of 160. Not regularized: 3
    # biases of 8 and one of 32.
    assert table["total"] == ["760 entries", "704 regularized", "52"]
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_describe_agrees_with_the_optimizers_state():
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), PARAMS)
    state = ramda_jax.proximal_point(GroupLasso(), 1.0).init(params)
    table = cells(describe(GroupLasso(), params))
    assert {leaf: radii.size for leaf, radii in state.radii.items()} == {
        leaf: int(row[3]) for leaf, row in table.items() if leaf not in ("leaf", "total") and row[1] != "-"
    }


def test_describe_names_the_solver_of_the_method():
    kinds = {ramda_jax.rmda: "ClosedForm", ramda_jax.prox_sgd: "ClosedForm", ramda_jax.prox_adamw: "SecularNewton"}
    for method, solver in kinds.items():
        assert cells(describe(GroupLasso(), PARAMS, method))["dense/kernel"][-1] == solver
    with pytest.raises(TypeError, match="`method` must be one of this library's methods, got 'rmda'; use"):
        describe(GroupLasso(), PARAMS, "rmda")


def test_describe_names_the_solver_that_was_given():
    given = {"dense/kernel": ramda_jax.ProximalGradient(), "conv": None}
    table = cells(describe({"dense/kernel|conv": GroupLasso()}, PARAMS, solver=given))
    assert (table["dense/kernel"][-1], table["conv/kernel"][-1]) == ("ProximalGradient", "SecularNewton")
    with pytest.raises(ValueError, match="The solvers' pattern 'dens/' matches no regularized leaf"):
        describe({"dense": GroupLasso()}, PARAMS, solver={"dens/": None})


def test_describe_of_nothing_of_an_array_and_of_none():
    assert cells(describe(None, {}))["total"] == ["0 entries", "0 regularized", "0"]
    assert cells(describe(None, PARAMS))["total"] == ["760 entries", "0 regularized", "0"]
    assert cells(describe(GroupLasso(0), jnp.zeros(5)))["(the array)"][:5] == ["(5,)", "GroupLasso", "(0,)", "5", "1"]


def test_describe_warns_where_a_leaf_is_one_single_group():
    params = {"column": jnp.zeros((1, 4)), "depthwise": jnp.zeros((3, 3, 1, 8)), "row": jnp.zeros((4, 1))}
    lines = describe(GroupLasso(), params).splitlines()
    assert [line for line in lines if "single" in line] == [
        "column is one single group, which goes as a whole or not at all: name its axes"
    ]
    assert cells("\n".join(lines))["depthwise"][2:5] == ["(3,)", "8", "9"]
    # A single group of one entry needs no warning.
    assert "single" not in describe(GroupLasso(), {"number": jnp.zeros((1, 1))})


def test_describe_raises_what_init_would():
    with pytest.raises(ValueError, match="'dens/' matches no leaf"):
        describe({"dens/": GroupLasso()}, PARAMS)
