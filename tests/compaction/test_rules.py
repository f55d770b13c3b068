"""The table of rules."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive

from ramda_jax.compaction import CompactionError, Rule, compact_model, trace_dims
from ramda_jax.compaction.tracing.jaxprs import CALLS
from ramda_jax.compaction.tracing.rules import RULES

#: Primitives that only one of the supported versions of JAX has.
OF_ONE_VERSION = {"closed_call": "0.10", "log2": "0.12", "one_minus_square": "0.12", "polynomial": "0.12"}


def test_every_row_is_of_a_primitive_that_jax_has():
    gc.unfreeze()  # frozen objects (see `conftest.py`) are not among the collector's objects
    names = {thing.name for thing in gc.get_objects() if isinstance(thing, Primitive)}
    assert {*RULES, *CALLS} - names <= OF_ONE_VERSION.keys()


def test_parameters_that_may_differ_are_parameters_of_the_primitive():
    """A misspelt name would refuse every small model, or have no effect."""

    def every(x, kernel):
        x = x.reshape(2, 3, 4)[:, 1:] + jax.lax.broadcasted_iota(jnp.float32, (2, 2, 4), 2)
        x = jax.lax.dynamic_slice(x, (jnp.int32(0),) * 3, (2, 1, 4))
        x = x + jnp.broadcast_to(jnp.split(x, 2, axis=0)[0], x.shape) + x[jnp.array([1, 0])]
        y = jnp.tile(jnp.pad(x, 1), 2) + jax.lax.empty((4, 3, 12), x.dtype)
        return y, jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))

    found = {}
    for equation in jax.make_jaxpr(every)(jnp.ones((2, 12)), jnp.ones((3, 4, 4))).jaxpr.eqns:
        bodies = [equation] if "jaxpr" not in equation.params else equation.params["jaxpr"].eqns
        found |= {equation.primitive.name: equation.params.keys() for equation in bodies}
    with_sizes = {name: rule.size_params for name, rule in RULES.items() if rule.size_params}
    assert with_sizes.keys() <= found.keys()
    for name, parameters in with_sizes.items():
        assert parameters <= found[name]


def test_a_convolution_of_a_form_without_a_rule_stays_and_the_rest_becomes_small():
    def function(params, x):
        image = jax.lax.conv_general_dilated(
            x, params["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), batch_group_count=2
        )
        return jnp.tanh(image @ params["in"]) @ params["out"]

    params = {"kernel": jnp.ones((3, 4, 6)), "in": jnp.ones((6, 5)), "out": jnp.ones((5, 2)).at[3:].set(0)}
    small = compact_model(function, jnp.ones((4, 3, 4)), variables=params, num_random=0)
    assert small.dims.opaque == {"conv_general_dilated": 1}
    assert jax.tree.map(jnp.shape, small.variables) == {"kernel": (3, 4, 6), "in": (6, 3), "out": (3, 2)}


PARAMS = {"in": jnp.ones((4, 6)), "out": jnp.ones((6, 2)).at[3:].set(0)}


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        # Labels of a wrong length, which the walk finds.
        (lambda walk, visit: [[label[:-1] for label in visit.inputs[0].labels]], AssertionError),
        (lambda walk, visit: visit.inputs[1].labels, IndexError),
    ],
    ids=["labels that do not fit", "an input that is not there"],
)
def test_a_broken_rule_is_an_error_and_not_a_model_that_is_refused(monkeypatch, labels, error):
    """The rule fails for the small model only, for which an error in the user's code is a refusal."""
    right = RULES["tanh"].labels

    def broken(walk, visit):
        return right(walk, visit) if visit.inputs[0].shape[-1] == 6 else labels(walk, visit)

    monkeypatch.setitem(RULES, "tanh", Rule(broken))
    with pytest.raises(error):
        compact_model(lambda p, x: jnp.tanh(x @ p["in"]) @ p["out"], jnp.ones((2, 4)), variables=PARAMS)


def test_an_assertion_of_the_users_model_is_a_refusal():
    def function(params, x):
        assert params["in"].shape == (4, 6), "only six"
        return jnp.tanh(x @ params["in"]) @ params["out"]

    with pytest.raises(CompactionError, match="the small model cannot be traced: AssertionError: only six"):
        compact_model(function, jnp.ones((2, 4)), variables=PARAMS)


def callback(x):
    result = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(lambda x: np.logaddexp(x, 0), result, x, vmap_method="expand_dims")


def with_callback(params, x):
    return callback(x @ params["in"]) @ params["out"]


def test_a_rule_of_the_users_is_followed_in_both_traces_and_in_the_proof():
    x = jnp.ones((2, 4))
    with pytest.raises(CompactionError, match="must map names of primitives to `Rule`s, got 'sin': 3"):
        trace_dims(with_callback, PARAMS, x, rules={"sin": 3})
    whole = compact_model(with_callback, x, variables=PARAMS, num_random=0)
    assert whole.dims.opaque == {"pure_callback": 1} and whole.plan.changes_nothing
    rule = Rule(lambda walk, visit: [visit.inputs[0].labels], frozenset({"result_avals"}))
    small = compact_model(with_callback, x, variables=PARAMS, rules={"pure_callback": rule}, num_random=1)
    assert jax.tree.map(jnp.shape, small.variables) == {"in": (4, 3), "out": (3, 2)}
    assert small.dims.opaque == small.refused == {}
    # If the rule does not name the parameters that depend on sizes, the proof refuses the difference.
    with pytest.raises(CompactionError, match="pure_callback has result_avals"):
        compact_model(
            with_callback, x, variables=PARAMS, rules={"pure_callback": Rule(rule.labels)}, num_random=0, strict=True
        )


def test_a_wrong_rule_is_seen_by_the_numbers():
    """The rule claims that entries are computed one by one along an axis that is sorted here."""
    rule = Rule(lambda walk, visit: [value.labels for value in visit.inputs])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)
    params = PARAMS | {"in": jnp.asarray(np.random.default_rng(1).normal(size=(4, 6)), jnp.float32)}
    with pytest.raises(CompactionError, match="outputs differ by"):
        compact_model(lambda p, x: jnp.sort(x @ p["in"]) @ p["out"], x, variables=params, rules={"sort": rule})
