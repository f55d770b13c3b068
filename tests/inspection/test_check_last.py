"""The chains that `check_last` refuses and those that it accepts."""

import re

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import ramda_jax
from ramda_jax import GroupLasso, check_last
from tests.factories import FACTORIES, factory_id


def make_params(dtype=jnp.float32):
    return {
        "conv": {"kernel": jnp.zeros((3, 3, 2, 4), dtype)},
        "dense": {"bias": jnp.zeros(3), "kernel": jnp.ones((4, 3))},
    }


def method(**settings):
    return ramda_jax.rmda(0.1, GroupLasso(), 1e-4, **settings)


def injected():
    return optax.inject_hyperparams(ramda_jax.rmda)(0.1, regularizer=GroupLasso(), strength=optax.constant_schedule(1))


LABELS = {"conv": "ours", "dense": {"bias": "theirs", "kernel": "ours"}}
FROZEN = {"conv": True, "dense": {"bias": False, "kernel": False}}

RIGHT = {
    "alone": method,
    "clip before": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.scale(0.5), method()),
    "named_chain": lambda: optax.named_chain(("clip", optax.clip(1.0)), ("ours", method())),
    "partition": lambda: optax.partition({"ours": method(), "theirs": optax.adam(0.1)}, LABELS),
    "inject_hyperparams": injected,
    "MultiSteps": lambda: optax.MultiSteps(method(), 4),
    "MultiSteps of injected": lambda: optax.MultiSteps(injected(), 3).gradient_transformation(),
    "apply_if_finite": lambda: optax.apply_if_finite(method(), 2),
    "conditionally_transform": lambda: optax.conditionally_transform(method(), lambda step: step >= 0),
    "freeze after": lambda: optax.chain(method(), optax.freeze(FROZEN)),
    "two chains": lambda: optax.chain(optax.chain(optax.centralize(), optax.chain(method())), optax.identity()),
    "an end of a user's": lambda: optax.chain(
        ramda_jax.dual_averaging(0.1),
        ramda_jax.proximal_point(GroupLasso(), 0.1),
        ramda_jax.iterate_averaging(ramda_jax.sqrt_growth(0.01)),
    ),
}  # fmt: skip

WRONG = {
    "scale": lambda: optax.chain(method(), optax.scale(0.5)),
    "learning rate": lambda: optax.chain(method(), optax.scale_by_learning_rate(1e-3)),
    "clip": lambda: optax.chain(method(), optax.clip(1.0)),
    "clip_by_global_norm": lambda: optax.chain(method(), optax.clip_by_global_norm(1.0)),
    "clip_by_block_rms": lambda: optax.chain(method(), optax.clip_by_block_rms(1.0)),
    "weight decay": lambda: optax.chain(method(), optax.add_decayed_weights(1e-4)),
    "momentum": lambda: optax.chain(method(), optax.ema(0.9)),
    "Adam": lambda: optax.chain(method(), optax.scale_by_adam()),
    "schedule": lambda: optax.chain(method(), optax.scale_by_schedule(optax.linear_schedule(0.0, 1.0, 10))),
    "inside MultiSteps": lambda: optax.MultiSteps(optax.chain(method(), optax.scale(0.5)), 3),
    "inside partition": lambda: optax.partition(
        {"ours": optax.chain(method(), optax.clip(1.0)), "theirs": optax.adam(0.1)}, LABELS
    ),
    "around partition": lambda: optax.chain(
        optax.partition({"ours": method(), "theirs": optax.adam(0.1)}, LABELS), optax.clip(1.0)
    ),
    "with averaging": lambda: optax.chain(method(averaging=0.5), optax.scale(0.5)),
    "averaging": lambda: optax.chain(method(averaging=0.5), optax.scale(2.0)),
    "mechanize": lambda: optax.contrib.mechanize(method()),
    "schedule_free": lambda: optax.contrib.schedule_free(method(), learning_rate=0.1),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_keeps_the_structure_passes(name):
    check_last(RIGHT[name](), make_params())


@pytest.mark.parametrize("name", WRONG)
def test_what_changes_updates_after_ours_is_found(name):
    with pytest.raises(ValueError, match=r"Nothing may change the updates .* at \['conv/kernel'.*; put it before"):
        check_last(WRONG[name](), make_params())


@pytest.mark.slow_except("ramda")
@pytest.mark.parametrize("factory", FACTORIES, ids=factory_id)
def test_every_method_in_half_precision(factory):
    dtype = jnp.bfloat16
    check_last(factory(GroupLasso(), 0.1, averaging=0.1), make_params(dtype))
    with pytest.raises(ValueError, match="Nothing may change"):
        check_last(optax.chain(factory(GroupLasso(), 0.1, averaging=0.1), optax.scale(0.5)), make_params(dtype))


def test_wrappers_that_hand_on_no_arguments_are_refused_with_a_reason():
    params = optax.LookaheadParams.init_synced(make_params())
    with pytest.raises(
        ValueError, match=re.escape("does not pass on keyword arguments (as `optax.lookahead` does not)")
    ):
        check_last(optax.lookahead(method(), sync_period=5, slow_step_size=0.5), params)


@pytest.mark.parametrize(
    "optimizer", [optax.adam(0.1), optax.chain(method(), optax.set_to_zero())], ids=["adam", "zero"]
)
def test_an_optimizer_without_one_of_ours_is_refused(optimizer):
    with pytest.raises(ValueError, match="must be in the optimizer and answer, but in 64 steps"):
        check_last(optimizer, make_params())


def test_only_the_leaves_that_are_spoiled_are_named():
    halved = optax.masked(optax.scale(0.5), {"conv": False, "dense": {"bias": False, "kernel": True}})
    with pytest.raises(ValueError, match=re.escape("do not arrive at ['dense/kernel']; put")):
        check_last(optax.chain(method(), halved), make_params())


def test_what_begins_later_is_seen_in_later_steps_only():
    """These are the limits that the docstring of `check_last` names."""
    late = optax.chain(method(), optax.scale_by_schedule(optax.piecewise_constant_schedule(1.0, {5: 0.1})))
    check_last(late, make_params())
    with pytest.raises(ValueError, match="Nothing may change"):
        check_last(late, make_params(), num_steps=8)
    plateau = optax.chain(method(), optax.contrib.reduce_on_plateau(factor=0.5, patience=2))
    check_last(plateau, make_params(), value=1.0)
    with pytest.raises(ValueError, match="Nothing may change"):
        check_last(plateau, make_params(), num_steps=8, value=1.0)
    check_last(optax.chain(method(), optax.zero_nans(), optax.clip(1e4)), make_params())


@pytest.mark.parametrize(
    ("wrapper", "needed"),
    [
        (optax.contrib.reduce_on_plateau(0.5), "value"),
        (optax.polyak_sgd(), "value"),
        (optax.lbfgs(), "value and grad and value_fn"),
    ],
)
def test_an_argument_that_a_wrapper_needs_is_asked_for(wrapper, needed):
    with pytest.raises(TypeError, match=rf"must be given what .* got \{{\}} without {needed}; give it by name, as in"):
        check_last(optax.chain(wrapper, method()), make_params())


def test_another_type_error_stays_as_it_is():
    broken = optax.GradientTransformation(lambda params: (), lambda updates, state, params=None: len(3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"object of type 'int' has no len\(\)"):
        check_last(optax.chain(broken, method()), make_params())


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(TypeError, match="`optimizer` must be an Optax transformation, got 3; give"):
        check_last(3, make_params())
    with pytest.raises(TypeError, match="got dtype int32 at 'w'"):
        check_last(method(), {"w": jnp.ones((2, 2), int)})
    with pytest.raises(ValueError, match="`num_steps` must be at least 1, got 0"):
        check_last(method(), make_params(), num_steps=0)


@pytest.mark.slow
def test_the_mark_changes_no_state_but_the_steps_own():
    """`check_last` does not change an optimizer in use, which is a function of its arguments."""
    optimizer, params = method(averaging=1.0), make_params()
    state = optimizer.init(params)
    before = optimizer.update(params, state, params)
    check_last(optimizer, params)
    chex.assert_trees_all_equal(optimizer.update(params, state, params), before)
    assert jax.tree.structure(optimizer.init(params)) == jax.tree.structure(state)
