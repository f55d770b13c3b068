"""Two phases in one optimizer. The first equals the method bit for bit; the second is the tuner with the zeros held."""

import functools
import pickle

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ramda_jax
from ramda_jax import GroupLasso, Target, compaction, metrics
from ramda_jax.structure import named_leaves
from tests import tiny
from tests.tiny import array

SWITCH, TOTAL = 24, 40
REGULARIZER = GroupLasso()
SHAPES = {"first": {"kernel": (6, 5), "bias": (5,)}, "second": {"kernel": (5, 3), "bias": (3,)}}
TARGETS = tiny.normal_tree(SHAPES, seed=1)
# Half of the inputs of the first leaf should become zero.
TARGETS["first"]["kernel"] *= jnp.array([1.0, 0.05, 1.0, 0.05, 1.0, 0.05])[:, None]
PARAMS = tiny.normal_tree(SHAPES)


def gradient(params):
    """The gradient of half the squared distance to `TARGETS`."""
    return jax.tree.map(lambda p, target: p - target, params, TARGETS)


@functools.cache
def parts(averaging=1.0):
    method = ramda_jax.ramda(0.1, REGULARIZER, strength=0.05, averaging=averaging)
    tuner = optax.adam(optax.cosine_decay_schedule(0.05, TOTAL - SWITCH))
    return method, tuner, ramda_jax.hold_zeros(method, tuner, SWITCH, REGULARIZER)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, one), (_, other) in zip(named_leaves(a), named_leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=path)


def close(a, b):
    for (path, one), (_, other) in zip(named_leaves(a), named_leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-6, err_msg=path)


def eagerly(optimizer, num_steps):
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(num_steps):
        params, state = tiny.apply_step(optimizer, gradient(params), state, params)
    return params, state


def after(optimizer, num_steps, params=PARAMS, state=None):
    return tiny.advance(optimizer, gradient, params, optimizer.init(params) if state is None else state, num_steps)


@pytest.mark.slow_except("0.2")
@pytest.mark.parametrize("averaging", [1.0, 0.2])
def test_the_first_phase_is_the_method_s_own_to_the_bit(averaging):
    method, _, optimizer = parts(averaging)
    params, state = eagerly(optimizer, SWITCH - 1)
    plain, own = eagerly(method, SWITCH - 1)
    same(params, plain)
    same(state.method, own)
    assert int(state.hold_step) == SWITCH - 1
    # In a compiled program XLA may round differently.
    params, state = after(optimizer, SWITCH - 1)
    close((params, state.method), (plain, own))


@pytest.mark.parametrize("averaging", [1.0, 0.2])
def test_the_switch_goes_to_the_structured_point_of_the_method(averaging):
    method, _, optimizer = parts(averaging)
    params, state = after(optimizer, SWITCH)
    plain, own = after(method, SWITCH)
    structured = ramda_jax.eval_params(own, plain)
    close(params, structured)
    alive = metrics.support(REGULARIZER, structured)
    same(metrics.support(REGULARIZER, params), alive)
    assert 0 < sum(int((~mask).sum()) for mask in alive.values())
    # Until the next step the state is still the method's, so that a certificate can be computed.
    close(state.method, own)


def test_after_the_switch_it_is_the_tuner_with_the_zeros_held():
    _, tuner, optimizer = parts(0.2)
    start, state = after(optimizer, SWITCH)
    params, state = after(optimizer, TOTAL - SWITCH, start, state)
    held = optax.chain(tuner, compaction.freeze_structure(start, REGULARIZER))
    wanted, _ = after(held, TOTAL - SWITCH, start)
    close(params, wanted)
    for path, leaf in named_leaves(params):
        was = np.asarray(dict(named_leaves(start))[path])
        assert (np.asarray(leaf)[was == 0] == 0).all() and np.any(np.asarray(leaf) != was), path

    # The second phase does not shrink, so the nonzero entries have come nearer to their targets.
    def distance(params):
        return float(optax.tree.norm(jax.tree.map(lambda p, t: jnp.where(p == 0, 0, p - t), params, TARGETS)))

    assert distance(params) < 0.7 * distance(start)


def test_eval_params_is_the_parameters_after_the_switch_and_lambda_stays_readable():
    optimizer = ramda_jax.ramda_then_hold(0.1, REGULARIZER, Target(0.4, start=0.05), total_steps=TOTAL, switch=SWITCH)
    params, state = after(optimizer, SWITCH)
    found = float(optax.tree.get(state, "strength").current)
    params, state = after(optimizer, TOTAL - SWITCH, params, state)
    same(ramda_jax.eval_params(state, params), params)
    assert float(optax.tree.get(state, "strength").current) == found > 0


@pytest.mark.slow
def test_eager_steps_are_those_of_jit():
    _, _, optimizer = parts()
    params, state = eagerly(optimizer, SWITCH + 2)
    wanted, wanted_state = after(optimizer, SWITCH + 2)
    same(state.alive, wanted_state.alive)
    close((params, state), (wanted, wanted_state))


@pytest.mark.parametrize("stop", [SWITCH - 5, SWITCH, SWITCH + 5])
def test_a_checkpoint_of_either_phase_continues_as_if_undisturbed(stop):
    _, _, optimizer = parts()
    params, state = after(optimizer, stop)
    fresh = optimizer.init(PARAMS)
    leaves = pickle.loads(pickle.dumps([np.asarray(leaf) for leaf in jax.tree.leaves((params, state))]))
    restored = jax.tree.structure((PARAMS, fresh)).unflatten(map(jnp.asarray, leaves))
    same(after(optimizer, TOTAL - stop, *restored), after(optimizer, TOTAL - stop, params, state))
    again = flax.serialization.from_bytes(fresh, flax.serialization.to_bytes(state))
    same(jax.tree.map(jnp.asarray, again), state)


@pytest.mark.slow
def test_it_works_in_chains_wrappers_and_on_part_of_a_tree():
    _, _, optimizer = parts()
    wrapped = optax.chain(optax.clip_by_global_norm(1e6), optax.apply_if_finite(optimizer, 3))
    same(after(wrapped, TOTAL)[0], after(optimizer, TOTAL)[0])
    labels = {"first": "ours", "second": "other"}
    split = optax.partition({"ours": optimizer, "other": optax.sgd(0.1)}, labels)
    params, state = after(split, TOTAL)
    alive = metrics.support(REGULARIZER, {"first": params["first"]})["first/kernel"]
    assert 0 < int(alive.sum()) < 6
    same(ramda_jax.eval_params(state, params), params)
    ramda_jax.check_last(wrapped, PARAMS)
    with pytest.raises(ValueError, match="Nothing may change the updates"):
        ramda_jax.check_last(optax.chain(optimizer, optax.scale(0.5)), PARAMS)


@pytest.mark.slow
def test_the_state_may_be_donated_and_made_abstractly():
    optimizer = ramda_jax.ramda_then_hold(0.1, REGULARIZER, Target(0.4), total_steps=TOTAL)
    state = optimizer.init(PARAMS)
    step = jax.jit(
        lambda params, state: tiny.apply_step(optimizer, gradient(params), state, params), donate_argnums=(0, 1)
    )
    _, state = step(jax.tree.map(jnp.copy, PARAMS), state)
    abstract = jax.eval_shape(optimizer.init, PARAMS)
    same(
        jax.tree.map(lambda leaf: np.zeros(leaf.shape), abstract),
        jax.tree.map(lambda leaf: np.zeros(leaf.shape), state),
    )


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 6, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(6 * 16, 12, rngs=rngs)
        self.out = nnx.Linear(12, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv(x)).reshape(x.shape[0], -1)
        return self.out(nnx.relu(self.hidden(x)))


def test_ramda_then_hold_reaches_a_size_on_a_model_with_coupled_groups():
    model = Net(nnx.Rngs(0))
    rng = np.random.default_rng(0)
    images, labels = array(rng.normal(size=(64, 4, 4, 1)), jnp.float32), array(rng.integers(3, size=64))
    coupling = compaction.couple_model(model, images[:2], weight="saving")
    regularizer = coupling.regularizer()
    recipe = ramda_jax.ramda_then_hold(0.05, regularizer, Target(0.5, of="groups"), total_steps=160)
    optimizer = nnx.Optimizer(model, recipe, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(80):
        train_step(model, optimizer)
    alive = metrics.support(regularizer, nnx.state(model, nnx.Param))
    # Half of the 18 channels and units are alive, to within one.
    assert abs(sum(int(mask.sum()) for mask in alive.values()) - 9) <= 1
    for _ in range(80):
        train_step(model, optimizer)
    same(metrics.support(regularizer, nnx.state(model, nnx.Param)), alive)
    small = compaction.compact_model(model, images[:2])
    assert small.plan.num_params[1] < 0.5 * small.plan.num_params[0]


@pytest.mark.slow_except("given1-12.0-12")
@pytest.mark.parametrize(("given", "length", "hold"), [({}, 0.7 * SWITCH, None), ({"rise": 0.5}, 12.0, 12)])
def test_the_share_of_a_target_rises_in_late_stages_and_is_followed_to_the_switch(given, length, hold):
    settings = ramda_jax.stages(0.1, ends=(17, 20), factor=0.3, total_steps=SWITCH)
    # The share rises steeply at first, and reaches its end before lambda is held.
    length = length if hold is None else 0.8 * hold
    rising = Target(
        lambda step: 0.4 * (1 - jnp.maximum(1 - step / length, 0.0) ** 3),
        start=0.05,
        hold=SWITCH - 1 if hold is None else hold,
        exact_at=SWITCH - 1,
    )
    method = ramda_jax.ramda(regularizer=REGULARIZER, strength={"kernel": rising}, **settings)
    wanted = ramda_jax.hold_zeros(method, optax.adam(0.01), SWITCH, REGULARIZER)
    strength = {"kernel": Target(0.4, start=0.05, hold=hold)}
    recipe = ramda_jax.ramda_then_hold(
        0.1, REGULARIZER, strength, total_steps=TOTAL, switch=SWITCH, tuner=optax.adam(0.01), **given
    )
    close(after(recipe, TOTAL)[0], after(wanted, TOTAL)[0])


@pytest.mark.parametrize("rise", [0.7, 0])
def test_the_share_is_met_at_the_switch_also_if_large_groups_revive_just_before_it(rise):
    recipe = ramda_jax.ramda_then_hold(
        0.1, REGULARIZER, Target(0.5, of="groups", start=0.05), total_steps=TOTAL, switch=SWITCH, rise=rise
    )
    params, state = after(recipe, SWITCH - 2)
    step = jax.jit(functools.partial(tiny.apply_step, recipe))
    for _ in range(2):
        # All 11 groups get a large gradient.
        grads = jax.tree.map(lambda p, t: p - t, params, tiny.normal_tree(SHAPES, seed=2))
        params, state = step(jax.tree.map(lambda g: 30 * g, grads), state, params)
    assert sum(not any_alive for leaf in ("first", "second") for any_alive in tiny.alive(params[leaf]["kernel"])) == 6


@pytest.mark.slow
def test_a_share_rises_only_if_it_is_a_number():
    def found(strength, rise):
        recipe = ramda_jax.ramda_then_hold(0.1, REGULARIZER, strength, total_steps=TOTAL, switch=SWITCH, rise=rise)
        return after(recipe, SWITCH)[0]

    ramp = Target(optax.linear_schedule(0.1, 0.4, 10), start=0.05, hold=20)
    same(found(ramp, 0.7), found(ramp, 0))
    same(found(0.05, 0.7), found(0.05, 0))
    whole = Target(0.4, start=0.05)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (found(whole, 0.7), found(whole, 0))), strict=True))


def test_what_does_not_fit_is_refused():
    method, tuner, optimizer = parts()
    with pytest.raises(ValueError, match="`switch` must be at least 1"):
        ramda_jax.hold_zeros(method, tuner, 0)
    with pytest.raises(TypeError, match="`tuner` must be an Optax transformation"):
        ramda_jax.hold_zeros(method, None, 5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="whose structure is a rank"):
        ramda_jax.hold_zeros(method, tuner, 5, ramda_jax.NuclearNorm()).init(PARAMS)
    with pytest.raises(ValueError, match="whose structure is a rank"):
        compaction.freeze_structure(PARAMS, ramda_jax.NuclearNorm())
    with pytest.raises(ValueError, match="`switch` must be below `total_steps`, got 40 and 40"):
        ramda_jax.ramda_then_hold(0.1, REGULARIZER, 1e-3, total_steps=40, switch=40)
    with pytest.raises(ValueError, match=r"`rise` must be a number in \[0, 1\], got 2; use 0"):
        ramda_jax.ramda_then_hold(0.1, REGULARIZER, 1e-3, total_steps=40, rise=2)
    with pytest.raises(TypeError, match="about twice AdamW's best"):  # the rule of docs/tuning.md
        ramda_jax.ramda_then_hold(optax.constant_schedule(0.1), REGULARIZER, 1e-3, total_steps=40)
    state = optimizer.init(PARAMS)
    with pytest.raises(ValueError, match="params"):
        optimizer.update(PARAMS, state)
    with pytest.raises(ValueError, match="must be a `HoldZerosState`"):
        optimizer.update(PARAMS, state.method, PARAMS)


@pytest.mark.parametrize("regularizer", [ramda_jax.Box(-1.0, 1.0), ramda_jax.Binary()])
def test_only_zeros_are_held_and_not_what_is_at_a_bound_or_a_level(regularizer):
    params = {"kernel": jnp.array([[1.0, -1.0], [0.5, 0.0]])}
    optimizer = compaction.freeze_structure(params, regularizer)
    updates, _ = optimizer.update({"kernel": jnp.full((2, 2), 0.25)}, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["kernel"], [[0.25, 0.25], [0.25, 0.0]])
