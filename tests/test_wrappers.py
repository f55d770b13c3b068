"""Optax's wrappers around our methods: those that keep zeros, and those that are known not to."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import L1, GroupLasso
from tests import tiny
from tests.tiny import array

TARGET = {
    "body": {"bias": jnp.ones(3), "kernel": jnp.zeros((5, 3)).at[0].set(2.0)},
    "head": {"kernel": jnp.zeros((3, 2)).at[1].set(-2.0)},
}
LABELS = {"body": "ours", "head": "theirs"}
FROZEN = {"body": False, "head": True}
ONLY_BODY = {"body": True, "head": False}


def make_params():
    return tiny.normal_tree(jax.tree.map(jnp.shape, TARGET))


def gradient(params):
    return jax.tree.map(lambda p, t: p - t, params, TARGET)


OURS = ramda_jax.rmda(0.5, GroupLasso(), 0.1, averaging=1.0)


def method(regularizer=None):
    return OURS if regularizer is None else ramda_jax.rmda(0.5, regularizer, 0.1, averaging=1.0)


def given(optimizer, **extra_args):
    """The optimizer, with these extra arguments in each call of `update`."""
    return optax.GradientTransformationExtraArgs(optimizer.init, functools.partial(optimizer.update, **extra_args))


def train(optimizer, num_steps=40, params=None, gradient=gradient, run=tiny.train):
    return run(optimizer, gradient, make_params() if params is None else params, num_steps)


def alive(params):
    return {layer: tiny.alive(params[layer]["kernel"]) for layer in ("body", "head")}


STRUCTURED = {"body": [True] + [False] * 4, "head": [False, True, False]}

KEEP = {
    "chain": lambda: optax.chain(optax.clip_by_global_norm(10.0), method()),
    "named_chain": lambda: optax.named_chain(("clip", optax.clip(5.0)), ("ours", method())),
    "partition of ours": lambda: optax.partition({"ours": method(), "theirs": method()}, LABELS),
    "nested": lambda: optax.partition(
        {"all": optax.chain(optax.partition({"ours": method(), "theirs": method()}, LABELS))}, lambda tree: "all"
    ),
    "MultiSteps": lambda: optax.MultiSteps(method(), 2).gradient_transformation(),
    "MultiSteps, skip_not_finite": lambda: optax.MultiSteps(
        method(), 2, should_skip_update_fn=optax.skip_not_finite
    ).gradient_transformation(),
    "apply_if_finite": lambda: optax.apply_if_finite(method(), 3),
    "conditionally_transform": lambda: optax.conditionally_transform(method(), lambda step: step >= 0),
    "conditionally_mask": lambda: optax.conditionally_mask(method(), lambda step: step % 2 == 0),
    "inject_hyperparams": lambda: optax.inject_hyperparams(ramda_jax.rmda)(
        0.5, regularizer=GroupLasso(), strength=0.1, averaging=1.0
    ),
    "snapshot": lambda: optax.chain(optax.snapshot("before", lambda updates: updates), method()),
    "monitor": lambda: optax.chain(
        optax.monitor({"norm": optax.measure_with_ema(optax.tree.norm, decay=0.9)}), method()
    ),
    "zero_nans": lambda: optax.chain(optax.zero_nans(), method()),
}


@pytest.mark.parametrize("name", KEEP)
@pytest.mark.contract("chains, `apply_if_finite`, conditions, snapshots")
def test_wrappers_keep_exact_zeros(name):
    # The monitor's state gets its measurements in the first step, so its structure changes.
    run = tiny.train_step_by_step if name == "monitor" else tiny.train
    params, state = train(KEEP[name](), num_steps=300, run=run)
    assert alive(params) == STRUCTURED
    assert alive(ramda_jax.eval_params(state, params)) == STRUCTURED


@pytest.mark.contract("chains, `apply_if_finite`, conditions, snapshots")
def test_apply_if_finite_rejects_a_nan_whole():
    optimizer = optax.apply_if_finite(method(), 3)
    params, state = train(optimizer, 3)
    grads = gradient(params)
    grads["body"]["kernel"] = grads["body"]["kernel"].at[2, 1].set(jnp.nan)
    updates, new_state = jax.jit(optimizer.update)(grads, state, params)
    chex.assert_trees_all_equal(optax.apply_updates(params, updates), params)
    chex.assert_trees_all_equal(new_state.inner_state, state.inner_state)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_without_a_guard_a_nan_stays_in_its_group_for_good(bad):
    """As the docstring of `ramda` says, the sums never forget."""
    params, state = train(method(), 3)
    grads = gradient(params)
    grads["body"]["kernel"] = grads["body"]["kernel"].at[2, 1].set(bad)
    update = jax.jit(method().update)
    updates, state = update(grads, state, params)
    params = optax.apply_updates(params, updates)
    for _ in range(2):
        finite = jnp.isfinite(params["body"]["kernel"])
        assert not finite[2, 1] and finite[jnp.array([0, 1, 3, 4])].all()
        assert all(jnp.isfinite(leaf).all() for leaf in (params["head"]["kernel"], params["body"]["bias"]))
        updates, state = update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)


@pytest.mark.slow
@pytest.mark.contract("`MultiSteps`")
def test_multisteps_is_one_step_on_the_mean_gradient():
    optimizer = optax.MultiSteps(method(), 3, should_skip_update_fn=optax.skip_not_finite)
    params = make_params()
    state = optimizer.init(params)
    rng = np.random.default_rng(1)
    draws = [jax.tree.map(lambda p: array(rng.normal(size=p.shape), jnp.float32), params) for _ in range(3)]
    poisoned = jax.tree.map(lambda g: g.at[0].set(jnp.nan), draws[0])
    update = jax.jit(optimizer.update)
    for grads in (draws[0], poisoned, draws[1]):  # the poisoned gradient is skipped
        updates, state = update(grads, state, params)
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    updates, state = update(draws[2], state, params)
    mean = jax.tree.map(lambda *g: sum(g) / 3, *draws)
    expected, _ = method().update(mean, method().init(params), params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.contract("`masked` and `partition`")
def test_partition_and_masked_leave_other_groups_alone():
    sgd, _ = train(optax.sgd(0.1))
    alone, _ = train(method())
    by_prefix = optax.partition({"ours": method(), "theirs": optax.sgd(0.1)}, LABELS)

    def label(tree):
        return jax.tree.map_with_path(lambda path, _: LABELS[path[0].key], tree)

    by_function = optax.partition({"ours": method({"body/kernel": GroupLasso()}), "theirs": optax.sgd(0.1)}, label)
    # The other part is updated by another optimizer, or not at all.
    masked = optax.chain(
        optax.masked(method({"kernel": GroupLasso()}), ONLY_BODY), optax.masked(optax.set_to_zero(), FROZEN)
    )
    params, _ = train(masked)
    chex.assert_trees_all_equal(params["body"], alone["body"])
    chex.assert_trees_all_equal(params["head"], make_params()["head"])
    for optimizer in (by_prefix, by_function):
        params, state = train(optimizer)
        chex.assert_trees_all_equal(params["head"], sgd["head"])
        chex.assert_trees_all_equal(params["body"], alone["body"])
        model = optax.tree.get(state, "DualAveragingState")
        assert isinstance(jax.tree.leaves(model.grad_sum, is_leaf=lambda x: isinstance(x, optax.MaskedNode))[-1],
                          optax.MaskedNode)  # fmt: skip


FREEZE = {
    "freeze after": lambda: optax.chain(method(), optax.freeze(FROZEN)),
    "selective_transform": lambda: optax.selective_transform(method(), freeze_mask=FROZEN),
    "set_to_zero": lambda: optax.partition({"ours": method(), "theirs": optax.set_to_zero()}, LABELS),
}


@pytest.mark.parametrize("name", FREEZE)
@pytest.mark.contract("freezing")
def test_frozen_leaves_keep_every_bit(name):
    params, _ = train(FREEZE[name]())
    chex.assert_trees_all_equal(params["head"], make_params()["head"])
    assert alive(params)["body"] == STRUCTURED["body"]


@pytest.mark.contract("freezing")
def test_freezing_before_does_not_freeze():
    params, _ = train(optax.chain(optax.freeze(FROZEN), method()))
    assert not np.array_equal(params["head"]["kernel"], make_params()["head"]["kernel"])


@pytest.mark.contract("`flatten`")
def test_flatten_fits_elementwise_regularizers_only():
    params, _ = train(optax.flatten(method(L1())))
    expected, _ = train(method({".*": L1()}))
    chex.assert_trees_all_close(params, expected, rtol=1e-5, atol=1e-6)
    assert (params["body"]["kernel"] == 0).any()
    with pytest.raises(ValueError, match="must go to a leaf of two axes or more, but '' has 1"):
        optax.flatten(method()).init(make_params())


@pytest.mark.contract("SAM; what cannot keep zeros")
def test_sam_in_opaque_mode_keeps_zeros():
    optimizer = optax.contrib.sam(method(), optax.sgd(0.01), opaque_mode=True)
    params, _ = train(given(optimizer, grad_fn=lambda params, _: gradient(params)))
    assert alive(params) == STRUCTURED


@pytest.mark.contract("SAM; what cannot keep zeros")
def test_sam_in_transparent_mode_keeps_zeros():
    def gradient_with_a_pull(params):  # moves only the adversarial point off zero
        return jax.tree.map(lambda g: g + 0.01, gradient(params))

    optimizer = optax.contrib.sam(method(), optax.sgd(0.01))
    by_step = {"gradient": gradient_with_a_pull, "run": tiny.train_step_by_step}
    adversarial, state = train(optimizer, num_steps=81, **by_step)
    assert alive(adversarial) != STRUCTURED
    assert alive(state.cache) == STRUCTURED
    params, state = train(optimizer, num_steps=82, **by_step)
    assert alive(params) == alive(ramda_jax.eval_params(state, params)) == STRUCTURED


LOSE = {
    "scale": lambda: optax.chain(method(), optax.scale(0.5)),
    "clip": lambda: optax.chain(method(), optax.clip(1e-3)),
    "reduce_on_plateau": lambda: optax.chain(
        method(), optax.contrib.reduce_on_plateau(factor=0.5, patience=1, cooldown=0)
    ),
    "schedule_free": lambda: optax.contrib.schedule_free(method(), learning_rate=0.5),
    "mechanize": lambda: optax.contrib.mechanize(method()),
}


@pytest.mark.parametrize("name", LOSE)
@pytest.mark.contract("SAM; what cannot keep zeros")
def test_what_rescales_or_averages_after_us_loses_zeros(name):
    """This is a known limit: such wrappers cannot keep the structure, and `check_last` finds them."""
    params, _ = train(given(LOSE[name](), value=1.0), num_steps=30)
    plain, _ = train(method(), num_steps=30)
    assert alive(plain) == STRUCTURED
    assert alive(params) != STRUCTURED


@pytest.mark.contract("SAM; what cannot keep zeros")
def test_lookahead_loses_zeros_in_its_slow_parameters():
    optimizer = optax.lookahead(method(), sync_period=3, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(make_params())
    params, _ = train(optimizer, 30, params, gradient=lambda params: gradient(params.fast))
    assert alive(params.slow) != STRUCTURED


def test_apply_every_is_another_method():
    """`apply_every` passes zero gradients between its steps, and a proximal step shrinks on these too."""
    optimizer = optax.chain(optax.apply_every(4), method())
    params = make_params()
    updates, _ = optimizer.update(gradient(params), optimizer.init(params), params)
    assert np.any(np.asarray(updates["body"]["kernel"]) != 0)
