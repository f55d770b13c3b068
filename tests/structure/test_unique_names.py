"""Names are keys: functions that store values by name refuse trees in which two leaves have one name."""

import jax
import jax.numpy as jnp
import optax
import pytest

import ramda_jax
from ramda_jax import compaction, metrics
from ramda_jax.compaction import LeafPlan, Plan
from ramda_jax.inspection.states import eval_params
from ramda_jax.structure import assign, assignment, named_leaves

LEAF = jnp.ones((2, 2))
TWINS = {"a": {"b": LEAF}, "a/b": 2 * LEAF}
UNIQUE = {"a": {"b": LEAF}}
TWINS_NAMED = r"\['a'\]\['b'\] and \['a/b'\] are both named 'a/b'"
L1 = ramda_jax.L1()


def net(params, x):
    return x @ params["a"]["b"] @ params["a/b"]


def traced():
    return compaction.trace_dims(lambda params, x: x @ params["a"]["b"], UNIQUE, LEAF)


METHODS = {
    "ramda": ramda_jax.ramda(0.1),
    "rmda": ramda_jax.rmda(0.1),
    "prox_sgd": ramda_jax.prox_sgd(0.1),
    "prox_adamw": ramda_jax.prox_adamw(0.1),
    "prox_ssi": ramda_jax.prox_ssi(0.1),
    "proximal_point": ramda_jax.proximal_point(L1, 0.1),
    "freeze_structure": compaction.freeze_structure(UNIQUE),
}
USES = {
    **{name: lambda method=method: jax.eval_shape(method.init, TWINS) for name, method in METHODS.items()},
    "assign": lambda: assign(L1, TWINS),
    "describe": lambda: ramda_jax.describe(L1, TWINS),
    "support": lambda: metrics.support(L1, TWINS),
    "group_sparsity": lambda: metrics.group_sparsity(L1, TWINS),
    "numerical_rank": lambda: metrics.numerical_rank(L1, TWINS),
    "check_last": lambda: ramda_jax.check_last(optax.sgd(0.1), TWINS),
    "eval_params": lambda: eval_params(ramda_jax.ramda(0.1).init(UNIQUE), TWINS),
    "freeze_structure of twins": lambda: compaction.freeze_structure(TWINS),
    "freeze_structure by regularizer": lambda: compaction.freeze_structure(TWINS, L1),
    "keep_group_weights": lambda: compaction.keep_group_weights(L1, TWINS),
    "trace_dims": lambda: compaction.trace_dims(net, TWINS, LEAF),
    "compact_model": lambda: compaction.compact_model(net, LEAF, variables=TWINS),
    "plan_compaction": lambda: compaction.plan_compaction(traced(), TWINS),
    "couple": lambda: compaction.couple(traced(), TWINS),
    "low_rank_plan": lambda: compaction.low_rank_plan(TWINS),
    "save_compact": lambda: compaction.save_compact("nowhere", Plan({}, (), {}), TWINS),
}


@pytest.mark.parametrize("name", USES)
def test_every_use_of_names_as_keys_refuses_twins(name):
    with pytest.raises(ValueError, match=TWINS_NAMED):
        USES[name]()


def test_a_tree_of_regularizers_or_overrides_with_twins_is_refused():
    with pytest.raises(ValueError, match=TWINS_NAMED):
        assignment({"a": {"b": L1}, "a/b": None})
    with pytest.raises(ValueError, match=TWINS_NAMED):
        compaction.trace_dims(
            lambda params, x: x @ params["a"]["b"],
            UNIQUE,
            LEAF,
            overrides={"a": {"b": (None, None)}, "a/b": ("frozen", None)},
        )


def test_arguments_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"\[0\]\['a'\]\['b'\] and \[0\]\['a/b'\] are both named '0/a/b'"):
        compaction.trace_dims(lambda w, x: x["a"]["b"] @ w, LEAF, TWINS)


def given_to(spec, params):
    return {path for path, _, resolved in assign(spec, params) if resolved is not None}


def test_a_trees_subtree_is_told_from_a_key_with_its_path_in_it():
    params = {"a": {"w": LEAF}, "a/b": {"c": LEAF}, "": LEAF, "x": {"y": {"z": LEAF}}, "x/y": {"u": LEAF}}
    assert given_to({"a": L1, "a/b": {"c": None}}, params) == {"a/w"}
    assert given_to({"x": {"y": L1}, "a": None}, params) == {"x/y/z"}
    assert given_to({"": L1, "a": {"w": None}}, params) == {"''"}


def test_a_vector_under_the_empty_key_is_a_bias_and_no_bare_array():
    assert given_to(L1, {"": jnp.ones(3)}) == set()
    assert given_to(L1, jnp.ones(3)) == {""}


def test_a_states_leaf_belongs_where_its_container_says_and_not_to_a_leaf_that_looks_like_its_path():
    # "0/mu/kernel" ends with "mu/kernel", but is Adam's mu of "kernel".
    leaf_plans = {"mu/kernel": LeafPlan((3, 2), ((0,), None)), "kernel": LeafPlan((3, 2), ((1, 2), None))}
    params = {"kernel": jnp.ones((3, 2)), "mu": {"kernel": jnp.ones((3, 2))}}
    small = compaction.compact(Plan(leaf_plans, (), {}), optax.adam(0.1).init(params))
    expected = {"kernel": (2, 2), "mu": {"kernel": (1, 2)}}
    assert jax.tree.map(jnp.shape, small[0].mu) == jax.tree.map(jnp.shape, small[0].nu) == expected
    # Other leaves beside the parameters make no difference.
    beside = compaction.compact(Plan(leaf_plans, (), {}), {"other": jnp.ones(2), **params})
    assert {name: jnp.shape(leaf) for name, leaf in named_leaves(beside)} == {
        "kernel": (2, 2),
        "mu/kernel": (1, 2),
        "other": (2,),
    }


def test_couple_refuses_two_leaves_that_are_one_of_the_trace():
    dims = compaction.trace_dims(lambda v, x: x @ v["params"]["b"], {"params": {"b": LEAF}}, LEAF)
    with pytest.raises(compaction.CompactionError, match="'b' and 'params/b' both are 'params/b'"):
        compaction.couple(dims, {"b": LEAF, "params": {"b": LEAF}})


def test_saving_twins_raises_the_error_that_saving_promises(tmp_path):
    plan = Plan({"a/b": LeafPlan((3, 2), (None, None))}, (), {})
    with pytest.raises(compaction.CompactionError, match=TWINS_NAMED):
        compaction.save_compact(tmp_path / "model", plan, TWINS)
    assert not (tmp_path / "model").exists()
