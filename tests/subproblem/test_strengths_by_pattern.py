"""A mapping of patterns as strength: the leaves of a pattern share a lambda, and the lambdas are independent."""

import functools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import GroupLasso, Target, compaction, metrics
from tests.factories import FACTORIES, factory_id
from tests.tiny import advance

RNG = np.random.default_rng(0)
STEPS = 600
SCALES = {"first": 1.0, "second": 30.0}
TRUTH = {
    name: {
        "kernel": jnp.asarray(scale * RNG.normal(size=(40, 3)) * np.logspace(-2, 0, 40)[:, None], jnp.float32),
        "bias": jnp.zeros(3),
    }
    for name, scale in SCALES.items()
}
PARAMS = jax.tree.map(jnp.zeros_like, TRUTH)


def gradient(params):
    return jax.tree.map(lambda w, truth: w - truth, params, TRUTH)


@functools.cache
def trained(make, num_steps=20):
    optimizer = make()
    return advance(optimizer, gradient, PARAMS, optimizer.init(PARAMS), num_steps)


def both():
    return ramda_jax.ramda(0.1, GroupLasso(), {"first": 0.02, "": optax.linear_schedule(0.3, 0.6, 10)}, averaging=0.5)


def apart():
    methods = {
        "first": ramda_jax.ramda(0.1, GroupLasso(), 0.02, averaging=0.5),
        "second": ramda_jax.ramda(0.1, GroupLasso(), optax.linear_schedule(0.3, 0.6, 10), averaging=0.5),
    }
    return optax.partition(methods, {"first": "first", "second": "second"})


def test_each_pattern_has_its_strength():
    """An optimizer with two strengths equals two optimizers with one strength each."""
    params, state = trained(both)
    wanted, other = trained(apart)
    for path, leaf in jax.tree.leaves_with_path(params):
        np.testing.assert_allclose(leaf, dict(jax.tree.leaves_with_path(wanted))[path], rtol=2e-6, atol=1e-7)
    zeros = {name: int(jnp.sum(jnp.all(params[name]["kernel"] == 0, axis=1))) for name in params}
    assert 0 < zeros["first"] < 40
    assert 0 < zeros["second"] < 40
    strengths = optax.tree.get(state, "strength")
    assert {pattern: float(value) for pattern, value in strengths.items()} == {
        "first": np.float32(0.02),
        "": np.float32(0.6),
    }
    mine, theirs = ramda_jax.eval_params(state, params), ramda_jax.eval_params(other, wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7), mine, theirs)


TARGETS = {"^first": Target(0.5, hold=500), "^second": Target(0.8, hold=500)}


@pytest.mark.parametrize("method", ["ramda", "rmda"])
def test_each_pattern_reaches_its_target(method):
    settings = ramda_jax.stages(0.1, factor=0.3, total_steps=STEPS)
    optimizer = getattr(ramda_jax, method)(regularizer=GroupLasso(), strength=TARGETS, **settings)
    params, state = advance(optimizer, gradient, PARAMS, optimizer.init(PARAMS), STEPS)
    for pattern, target in TARGETS.items():
        kernel = params[pattern[1:]]["kernel"]
        share = float(jnp.mean(jnp.all(kernel == 0, axis=1)))
        assert abs(share - target.share) <= 1 / 40 + 1e-6
        assert float(optax.tree.get(state, "strength")[pattern].share) == pytest.approx(share, abs=0.03)


def test_a_target_and_numbers_go_together():
    strength = {"first": Target(0.5, hold=500), "second": 0.0}
    optimizer = ramda_jax.ramda(
        regularizer=GroupLasso(), strength=strength, **ramda_jax.stages(0.1, factor=0.3, total_steps=STEPS)
    )
    params, _ = advance(optimizer, gradient, PARAMS, optimizer.init(PARAMS), STEPS)
    assert int(jnp.sum(jnp.all(params["first"]["kernel"] == 0, axis=1))) in (19, 20, 21)
    assert bool(jnp.all(params["second"]["kernel"] != 0))


def test_stages_reach_the_targets_in_a_mapping():
    settings = ramda_jax.stages(0.1, total_steps=STEPS)
    for method in (ramda_jax.ramda, ramda_jax.rmda):
        # Without the stages a target would not know when to hold lambda.
        method(regularizer=GroupLasso(), strength={"first": Target(0.5), "second": Target(0.8)}, **settings)
    ramda_jax.ramda_then_hold(0.1, GroupLasso(), {"first": Target(0.5), "": 0.1}, total_steps=STEPS).init(PARAMS)


@pytest.mark.parametrize("factory", FACTORIES, ids=factory_id)
def test_every_method_takes_a_mapping(factory):
    optimizer = factory(GroupLasso(), strength={"first": 0.01, "second": 0.1})
    state = jax.eval_shape(optimizer.init, PARAMS)
    _, after = jax.eval_shape(optimizer.update, PARAMS, state, PARAMS)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )


def wrapped():
    return optax.MultiSteps(
        optax.partition({"ours": both(), "other": optax.sgd(0.1)}, {"first": "ours", "second": "ours", "x": "other"}), 2
    )


def test_wrappers_hide_leaves_and_keep_the_strengths():
    params = PARAMS | {"x": jnp.ones(3)}
    optimizer = wrapped()
    state = optimizer.init(params)
    stored = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
    assert jax.tree.structure(stored) == jax.tree.structure(state)
    _, after = jax.eval_shape(optimizer.update, params, state, params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    # A pattern may match only leaves that a mask hides.
    masked = optax.masked(both(), {"first": False, "second": True})
    jax.eval_shape(masked.init, PARAMS)


def test_the_certificate_sees_each_leafs_own_weight():
    params, state = trained(both)
    certificate = metrics.certificate(state, params)
    wanted = metrics.certificate(*reversed(trained(apart)))
    for path, margin in certificate.margin.items():
        np.testing.assert_allclose(margin, wanted.margin[path], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("strength", "error", "message"),
    [
        ({"first": 0.1}, ValueError, r"Every regularized leaf must have a strength, .* matches 'second/kernel'; add"),
        ({"": 0.1, "first": 0.2}, ValueError, "pattern 'first' is the first match of no regularized leaf.*; fix"),
        ({"first": 0.1, "": 0.1, "bias": 0.2}, ValueError, "pattern 'bias' is the first match of no"),
    ],
)
def test_patterns_that_do_not_fit_the_leaves_are_refused(strength, error, message):
    optimizer = ramda_jax.ramda(0.1, GroupLasso(), strength)
    with pytest.raises(error, match=message):
        optimizer.init(PARAMS)


@pytest.mark.parametrize(
    ("strength", "error", "message"),
    [
        ({}, ValueError, r"A mapping of strengths must have a pattern, got \{\}; use"),
        ({"(": 0.1}, ValueError, "regular expression"),
        ({3: 0.1}, ValueError, "A pattern must be a regular expression, got 3"),
        ({None: 0.1}, ValueError, "A pattern must be a regular expression, got None"),
        ({"first": -0.1}, ValueError, "`strength` must be finite and at least 0, got -0.1"),
        ({"first": "many"}, TypeError, "`strength` must be a real number or a schedule, got 'many'"),
        ({"first": {"second": 0.1}}, TypeError, "`strength` must be a real number or a schedule, got {'second'"),
        ({"first": Target(0.5)}, ValueError, "A `Target` must know when to hold its lambda"),
    ],
)
def test_what_is_no_strength_is_refused_in_a_mapping_too(strength, error, message):
    with pytest.raises(error, match=message):
        ramda_jax.proximal_point(GroupLasso(), strength)


@pytest.mark.parametrize("strength", [Target(0.5), {"": Target(0.5)}, 0.1])
@pytest.mark.parametrize("restarts", [5, None, "ab", (3, 2), (1.5,)])
def test_bad_restarts_are_refused_by_name_whatever_the_strength(strength, restarts):
    for method in (ramda_jax.ramda, ramda_jax.rmda):
        with pytest.raises((TypeError, ValueError), match=r"`restarts` must .*; use increasing step counts"):
            method(0.1, GroupLasso(), strength, restarts=restarts)


def test_a_target_asks_zeros_only_of_its_own_leaves():
    regularizers = {"first/kernel": GroupLasso(), "second/kernel": ramda_jax.NuclearNorm()}
    fitting = {"first": Target(0.5, hold=5), "second": 0.1}
    optimizer = ramda_jax.ramda(0.1, regularizers, fitting)
    state = jax.eval_shape(optimizer.init, PARAMS)
    jax.eval_shape(optimizer.update, PARAMS, state, PARAMS)
    for strength in (fitting | {"second": Target(0.5, hold=5)}, {"": Target(0.5, hold=5)}):
        with pytest.raises(ValueError, match="zeros grow with their weight, got NuclearNorm"):
            jax.eval_shape(ramda_jax.ramda(0.1, regularizers, strength).init, PARAMS)
    with pytest.raises(ValueError, match="zeros grow with their weight, got NuclearNorm"):
        ramda_jax.ramda(0.1, regularizers, Target(0.5, hold=5))


def test_a_state_of_other_patterns_is_refused():
    one, other = both(), ramda_jax.ramda(0.1, GroupLasso(), 0.1)
    swapped = ramda_jax.ramda(0.1, GroupLasso(), {"second": 0.1, "first": 0.1})
    for optimizer, before, message in (
        (one, other, r"got one for all leaves in the state and the patterns \['first', ''\]"),
        (other, one, r"got the patterns \['first', ''\] in the state and one for all leaves"),
        (swapped, one, r"got the patterns \['first', ''\] in the state and the patterns \['second', 'first'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(optimizer.update, PARAMS, jax.eval_shape(before.init, PARAMS), PARAMS)
    first, middle, last = both().init(PARAMS)
    broken = middle._replace(strength={"first": jnp.zeros(2), "": jnp.zeros([])})
    with pytest.raises(ValueError, match=r"`strength\['first'\]` must be one number, .* of shape \(2,\)"):
        one.update(PARAMS, (first, broken, last), PARAMS)
    short = middle._replace(strength={"first": jnp.zeros([])})
    with pytest.raises(ValueError, match=r"`strength` must be a dict by the patterns \['first', ''\], got"):
        one.update(PARAMS, (first, short, last), PARAMS)


@pytest.mark.slow
def test_each_width_of_a_coupling_has_its_target():
    def net(params, x):
        return jax.nn.relu(jax.nn.relu(x @ params["a"]) @ params["b"]) @ params["c"]

    shapes = {"a": (5, 8), "b": (8, 6), "c": (6, 3)}
    # The rows have many different sizes.
    goal = {name: jnp.ones(shape) * jnp.logspace(-2, 0, shape[0])[:, None] for name, shape in shapes.items()}
    params = jax.tree.map(lambda leaf: leaf + 0.1, goal)
    coupling = compaction.couple_model(net, jnp.ones((2, 5)), variables=params)
    strength = {"coupled/d1": Target(0.5, of="groups", hold=350), "coupled/d2": Target(0.34, of="groups", hold=350)}
    regularizer = coupling.regularizer()
    optimizer = coupling.wrap(ramda_jax.ramda(0.1, regularizer, strength, averaging=1.0))

    def towards(params):
        return jax.tree.map(lambda w, wanted: w - wanted, params, goal)

    trained_params, _ = advance(optimizer, towards, params, optimizer.init(params), 400)
    zeros = {name: int(jnp.sum(jnp.all(leaf == 0, axis=1))) for name, leaf in trained_params.items()}
    assert abs(zeros["b"] - 4) <= 1
    assert abs(zeros["c"] - 2) <= 1
