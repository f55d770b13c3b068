"""`eval_params` and `solver_info` find the structured point and the solver's report wherever the state is.

A `recorder` in the middle of the chain stores W_hat, the output of `proximal_point`. `eval_params` must compute the
same point from the sums, through every wrapper and at every step.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import ramda_jax
from ramda_jax import GroupLasso, ProximalGradient
from ramda_jax.structure import named_leaves
from tests import tiny
from tests.tiny import array

pytestmark = pytest.mark.covering

STRENGTH = 0.2
KERNELS = ("conv/kernel", "dense/kernel")


class RecorderState(NamedTuple):
    recorded: Any


def recorder():
    """Stores the point that passes through. It is a foreign transformation in the chain, as users may have."""

    def init(params):
        return RecorderState(jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None, **extra_args):
        del state, extra_args
        return updates, RecorderState(jax.tree.map(lambda w, p: w.astype(p.dtype), updates, params))

    return optax.GradientTransformationExtraArgs(init, update)


def recorded_ramda(
    regularizer=None, strength=STRENGTH, *, learning_rate=0.1, averaging=0.1, eps=1e-4, restarts=(), solver=None
):
    return optax.chain(
        ramda_jax.adaptive_dual_averaging(learning_rate, eps, restarts),
        ramda_jax.proximal_point(regularizer, strength, solver),
        recorder(),
        ramda_jax.iterate_averaging(averaging),
    )


def recorded_rmda(regularizer=None, strength=STRENGTH, *, learning_rate=0.3, averaging=0.1, restarts=(), solver=None):
    return optax.chain(
        ramda_jax.dual_averaging(learning_rate, restarts),
        ramda_jax.proximal_point(regularizer, strength, solver),
        recorder(),
        ramda_jax.iterate_averaging(averaging),
    )


def plain_ramda(regularizer=None, strength=STRENGTH, *, learning_rate=0.1, averaging=0.1, **settings):
    return ramda_jax.ramda(learning_rate, regularizer, strength, averaging=averaging, **settings)


def plain_rmda(regularizer=None, strength=STRENGTH, *, learning_rate=0.3, averaging=0.1, **settings):
    return ramda_jax.rmda(learning_rate, regularizer, strength, averaging=averaging, **settings)


RECORDED = {"ramda": recorded_ramda, "rmda": recorded_rmda}
PLAIN = {"ramda": plain_ramda, "rmda": plain_rmda}


def init_params(dtype=jnp.float32):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return array(0.2 * rng.standard_normal(shape), dtype)

    return {
        "conv": {"kernel": normal(2, 2, 3, 4)},
        "dense": {"bias": normal(5), "kernel": normal(6, 5)},
        "norm": {"scale": normal(4)},
    }


def gradients(params, step):
    """Noisy gradients of a quadratic that pulls the first input group of each kernel to 2 and all else to 0."""

    def gradient(path, leaf):
        rng = np.random.default_rng([step, leaf.size])
        target = np.zeros(leaf.shape)
        if leaf.ndim > 1:
            target[..., :1, :] = 2.0
        noise = 0.1 * rng.standard_normal(leaf.shape)
        return leaf - jnp.asarray(target - noise, leaf.dtype)

    return jax.tree_util.tree_map_with_path(gradient, params)


def by_path(tree):
    return {path: np.asarray(leaf) for path, leaf in named_leaves(tree)}


def recorded_points(state):
    """The recorded W_hat of all leaves in a state, by path."""
    result = {}
    for _, found in optax.tree.get_all_with_path(state, "RecorderState"):
        result.update(by_path(found.recorded))
    return result


def train(optimizer, params, num_steps=7, first=0):
    """Yields (params, state) after each of some jitted steps."""
    state = optimizer.init(params)
    step = jax.jit(functools.partial(tiny.apply_step, optimizer))
    for number in range(first, first + num_steps):
        params, state = step(gradients(params, number), state, params)
        yield params, state


def check_structured(structured, params, state, rtol=2e-6):
    """Checks that `structured` has the structure of params, and the recorded values with exactly the same zeros."""
    assert jax.tree.structure(structured) == jax.tree.structure(params)
    expected = by_path(params) | recorded_points(state)
    actual = by_path(structured)
    assert actual.keys() == expected.keys()
    for path, value in actual.items():
        assert value.dtype == by_path(params)[path].dtype
        np.testing.assert_array_equal(value == 0, expected[path] == 0, err_msg=path)
        np.testing.assert_allclose(
            value.astype(float), expected[path].astype(float), rtol=rtol, atol=rtol, err_msg=path
        )


def check_has_structure(structured, kernels=KERNELS):
    """Checks that in every regularized leaf some groups are zero and some are not."""
    values = by_path(structured)
    for path in kernels:
        alive = np.any(values[path] != 0, axis=tuple(a for a in range(values[path].ndim) if a != values[path].ndim - 2))
        assert alive.any() and not alive.all(), path


# Wrappers as users put them around our methods: each maps a factory to an optimizer.

ALL = GroupLasso("input")


def labels_by_layer(params):
    """Labels as a function of the tree: a static tree of labels does not fit the tree that nnx passes to `update`."""
    flat, treedef = jax.tree_util.tree_flatten_with_path(params)
    layers = {"conv": "first", "dense": "second"}
    return treedef.unflatten(
        [
            next((label for key, label in layers.items() if key in jax.tree_util.keystr(path)), "rest")
            for path, _ in flat
        ]
    )


def only_layer(layer):
    def mask(params):
        flat, treedef = jax.tree_util.tree_flatten_with_path(params)
        return treedef.unflatten([layer in jax.tree_util.keystr(path) for path, _ in flat])

    return mask


def injected(make):
    def factory(learning_rate, strength, averaging):
        return make(ALL, strength, learning_rate=learning_rate, averaging=averaging)

    return optax.inject_hyperparams(factory)(learning_rate=0.2, strength=STRENGTH, averaging=lambda step: 0.1)


def partitioned(make):
    return optax.partition(
        {
            "first": make(GroupLasso("input", group_weight=5.0)),
            "second": make({"kernel": GroupLasso((0,), group_weight=1.5)}, STRENGTH * 2),
            "rest": optax.adam(1e-2),
        },
        labels_by_layer,
    )


WRAPPERS = {
    "bare": lambda make: make(ALL),
    "nested chains": lambda make: optax.chain(
        optax.identity(), optax.chain(optax.chain(optax.clip(100.0), optax.chain(make(ALL))), optax.identity())
    ),
    "inject_hyperparams": injected,
    "partition": partitioned,
    "MultiSteps of partition": lambda make: optax.MultiSteps(partitioned(make), 2).gradient_transformation(),
    "chain of masked": lambda make: optax.chain(
        optax.masked(make(ALL), only_layer("dense")),
        optax.masked(make(GroupLasso(group_weight=5.0)), only_layer("conv")),
        optax.masked(optax.sgd(0.1), only_layer("norm")),
    ),
    "named_chain": lambda make: optax.named_chain(("z", optax.clip_by_global_norm(100.0)), ("a", make(ALL))),
    "apply_if_finite": lambda make: optax.apply_if_finite(make(ALL), 3),
}

every_wrapper = pytest.mark.parametrize("wrapper", WRAPPERS)
every_method = pytest.mark.parametrize("method", RECORDED)


def wrapped(method, wrapper):
    """A case. Wrappers treat all methods alike, so RMDA is quick only by itself and where states are merged."""
    is_quick = method == "ramda" or wrapper in ("bare", "partition")
    return pytest.param(method, wrapper, id=f"{method}-{wrapper}", marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize(("method", "wrapper"), [wrapped(m, w) for m in RECORDED for w in WRAPPERS])
@pytest.mark.contract("`eval_params`")
def test_eval_params_gives_the_steps_own_solution_through_wrappers(method, wrapper):
    optimizer = WRAPPERS[wrapper](RECORDED[method])
    for number, (params, state) in enumerate(train(optimizer, init_params())):
        structured = ramda_jax.eval_params(state, params)
        if number == 0 and wrapper.startswith("MultiSteps"):  # the first step only accumulates
            check_equal(structured, params)
            continue
        check_structured(structured, params, state)
    check_has_structure(structured)
    # The iterate itself has no zeros, because c_t is below 1.
    assert all((value != 0).all() for value in by_path(params).values())

    # Under jit the result is the same, with the same zeros.
    jitted = jax.jit(ramda_jax.eval_params)(state, params)
    check_structured(jitted, params, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7), jitted, structured)

    # `solver_info` finds the same states.
    for info in (ramda_jax.solver_info(state), jax.jit(ramda_jax.solver_info)(state)):
        assert bool(info.converged)
        assert (int(info.num_steps) > 0) == (method == "ramda")  # RMDA has a closed form
        assert 0 <= float(info.residual) < 1e-5


@pytest.mark.parametrize("wrapper", ["bare", "partition"])
@every_method
def test_eval_params_of_the_method_is_the_iterate_when_averaging_is_one(method, wrapper):
    def make(*args, **settings):
        return PLAIN[method](*args, averaging=1.0, **settings)

    optimizer = WRAPPERS[wrapper](make)
    *_, (params, state) = train(optimizer, init_params())
    structured = ramda_jax.eval_params(state, params)
    check_has_structure(structured)
    for path, value in by_path(structured).items():
        np.testing.assert_array_equal(value == 0, by_path(params)[path] == 0)
        np.testing.assert_allclose(value, by_path(params)[path], rtol=1e-5, atol=1e-6)


def check_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@every_wrapper
@every_method
def test_eval_params_before_the_first_step_is_params(method, wrapper):
    params = init_params()
    state = WRAPPERS[wrapper](PLAIN[method]).init(params)
    check_equal(ramda_jax.eval_params(state, params), params)
    moved = jax.tree.map(lambda p: 2 * p, params)
    check_equal(ramda_jax.eval_params(state, moved), moved)
    info = ramda_jax.solver_info(state)
    assert (int(info.num_steps), float(info.residual), bool(info.converged)) == (0, 0.0, True)


@pytest.mark.parametrize(
    ("dtype", "averaging"),
    [(jnp.float32, 1e-4), (jnp.float32, 0.5), (jnp.float32, 1.0), (jnp.bfloat16, 1e-2), (jnp.float16, 1.0)],
)
@every_method
def test_eval_params_is_exactly_structured_for_any_averaging_and_dtype(method, dtype, averaging):
    optimizer = RECORDED[method](ALL, averaging=averaging)
    for params, state in train(optimizer, init_params(dtype), num_steps=6):
        structured = ramda_jax.eval_params(state, params)
        # A half-precision entry may round differently in its last bit.
        check_structured(structured, params, state, rtol=max(2e-6, float(jnp.finfo(dtype).eps)))
    check_has_structure(structured)
    for path, alive in ramda_jax.metrics.support(ALL, structured).items():
        np.testing.assert_array_equal(alive, np.asarray(optax.tree.get(state, "radii")[path]) != 0)


@pytest.mark.parametrize("solver", [ramda_jax.SecularNewton(), ProximalGradient(max_steps=3_000, rtol=0.0)], ids=repr)
def test_eval_params_works_with_either_solver(solver):
    optimizer = recorded_ramda(ALL, solver=solver)
    *_, (params, state) = train(optimizer, init_params(), num_steps=5)
    structured = jax.jit(ramda_jax.eval_params)(state, params)
    check_structured(structured, params, state, rtol=1e-4)
    check_has_structure(structured)


@pytest.mark.parametrize(
    "tolerance", [None, ramda_jax.summable_tolerance(1e-2)], ids=["released rule", "condition (7)"]
)
def test_eval_params_with_inexact_proximal_gradient_is_structured_and_near_the_step(tolerance):
    # `eval_params` solves again, from the new parameters. It finds another point within the tolerance of the same
    # model.
    optimizer = recorded_ramda(ALL, solver=ProximalGradient(tolerance=tolerance))
    evaluate = jax.jit(ramda_jax.eval_params)
    for params, state in train(optimizer, init_params(), num_steps=6):
        structured = evaluate(state, params)
        for path, value in recorded_points(state).items():
            np.testing.assert_array_equal(by_path(structured)[path] == 0, value == 0)
            np.testing.assert_allclose(by_path(structured)[path], value, atol=0.05)
    check_has_structure(structured)


def test_eval_params_solves_anew_to_the_tolerance_of_the_last_step():
    # The tolerance is tight in the third step only. In other steps the first iteration is enough.
    def tolerance(step):
        return jnp.where(step == 2, 0.0, 1e3)

    optimizer = recorded_ramda(ALL, solver=ProximalGradient(max_steps=3_000, tolerance=tolerance))
    far = jax.tree.map(lambda p: p + 10, init_params())
    for number, (_, state) in enumerate(train(optimizer, init_params(), num_steps=4)):
        error = np.max(
            np.abs(
                jax.jit(ramda_jax.eval_params)(state, far)["dense"]["kernel"] - recorded_points(state)["dense/kernel"]
            )
        )
        assert (error < 1e-4) == (number == 2)


@every_method
def test_eval_params_around_restarts_is_that_of_the_step_just_taken(method):
    optimizer = RECORDED[method](ALL, restarts=(3, 4))
    for number, (params, state) in enumerate(train(optimizer, init_params())):
        assert int(optax.tree.get(state, "stage_step")) == (1, 2, 3, 1, 1, 2, 3)[number]
        check_structured(ramda_jax.eval_params(state, params), params, state)


@every_method
def test_eval_params_uses_the_strength_and_eps_of_the_last_step(method):
    # The schedules change at every step, so a model with the next step's numbers would have other zeros.
    def strength(step):
        return STRENGTH * jnp.where(step % 2 == 0, 0.1, 2.0)

    settings = {"eps": lambda step: 10.0 ** -(1 + step % 3)} if method == "ramda" else {}
    optimizer = RECORDED[method](ALL, strength, learning_rate=optax.exponential_decay(0.1, 1, 0.7), **settings)
    for params, state in train(optimizer, init_params()):
        check_structured(ramda_jax.eval_params(state, params), params, state)


@every_method
def test_eval_params_with_zero_strength_or_weight_is_the_center(method):
    for regularizer, strength in ((ALL, 0.0), (GroupLasso(group_weight=0.0), 1.0), (None, None)):
        for params, state in train(PLAIN[method](regularizer, strength, averaging=1.0), init_params(), num_steps=3):
            structured = ramda_jax.eval_params(state, params)
            for path, value in by_path(structured).items():
                assert (value != 0).all()
                np.testing.assert_allclose(value, by_path(params)[path], rtol=1e-5, atol=1e-6)


@every_method
def test_eval_params_where_every_group_is_zero(method):
    *_, (params, state) = train(RECORDED[method](ALL, 100.0), init_params(), num_steps=2)
    structured = ramda_jax.eval_params(state, params)
    check_structured(structured, params, state)
    assert all((by_path(structured)[path] == 0).all() for path in KERNELS)


@every_method
def test_zeros_of_groups_at_the_border_are_those_of_the_step(method):
    # ||rhs|| = weight up to a few units in the last place, so a second computation, jitted or not, may end on the other
    # side.
    rng = np.random.default_rng(0)
    shape = (2_000, 37)
    directions = rng.standard_normal(shape)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    wiggle = 1 + np.finfo(np.float32).eps * rng.integers(-3, 4, (len(directions), 1))
    rate, strength = 0.7, 1.3
    optimizer = PLAIN[method](GroupLasso(group_weight=1.0), strength, learning_rate=rate, averaging=0.5)
    # RAMDA's metric depends on the gradients. With anchor 0 it does not enter rhs = metric anchor - V.
    anchor = rng.standard_normal(shape).astype(np.float32) if method == "rmda" else np.zeros(shape, np.float32)
    first = rng.standard_normal(shape).astype(np.float32)
    alpha = rate * (1 + np.sqrt(2))
    target = np.sqrt(2) * anchor.astype(float) - strength * alpha * directions * wiggle
    second = ((target - rate * first) / (rate * np.sqrt(2))).astype(np.float32)
    for update in (optimizer.update, jax.jit(optimizer.update)):
        params = {"kernel": jnp.asarray(anchor)}
        state = optimizer.init(params)
        for grads in (first, second):
            updates, state = update({"kernel": jnp.asarray(grads)}, state, params)
            params = optax.apply_updates(params, updates)
        zero = np.asarray(optax.tree.get(state, "radii")["kernel"])[:, 0] == 0
        assert 0.1 < zero.mean() < 0.9
        for evaluate in (ramda_jax.eval_params, jax.jit(ramda_jax.eval_params)):
            structured = np.asarray(evaluate(state, params)["kernel"])
            np.testing.assert_array_equal((structured == 0).all(axis=1), zero)
            np.testing.assert_array_equal((structured == 0).any(axis=1), zero)


def test_eval_params_takes_params_from_anywhere_in_training():
    # If the state has radii, the result depends on the state alone, except for leaves of other optimizers.
    *_, (params, state) = train(recorded_ramda(ALL), init_params(), num_steps=3)
    expected = by_path(ramda_jax.eval_params(state, params))
    elsewhere = by_path(ramda_jax.eval_params(state, jax.tree.map(jnp.zeros_like, params)))
    for path, value in expected.items():
        np.testing.assert_array_equal(elsewhere[path], value)


def test_eval_params_merges_methods_of_both_kinds():
    optimizer = optax.partition(
        {"first": recorded_ramda(ALL), "second": recorded_rmda(ALL, averaging=0.3), "rest": optax.sgd(0.1)},
        labels_by_layer,
    )
    for params, state in train(optimizer, init_params()):
        structured = ramda_jax.eval_params(state, params)
        check_structured(structured, params, state)
        assert recorded_points(state).keys() == {"conv/kernel", "dense/bias", "dense/kernel"}
    check_has_structure(structured)
    check_equal(structured["norm"], params["norm"])


@pytest.mark.parametrize("names", ["abcd", "dcba", "bdac"])
def test_eval_params_finds_the_parts_in_a_named_chain_in_any_alphabetical_order(names):
    parts = [
        ramda_jax.adaptive_dual_averaging(0.1, 1e-4),
        ramda_jax.proximal_point(ALL, STRENGTH),
        recorder(),
        ramda_jax.iterate_averaging(0.1),
    ]
    optimizer = optax.named_chain(*zip(names, parts, strict=True))
    for params, state in train(optimizer, init_params()):
        structured = ramda_jax.eval_params(state, params)
        check_structured(structured, params, state)
    check_has_structure(structured)


@pytest.mark.parametrize("names", [("x", "y"), ("y", "x")])
def test_eval_params_keeps_methods_of_a_named_chain_apart(names):
    optimizer = optax.named_chain(
        (names[0], optax.masked(recorded_ramda(ALL), only_layer("conv"))),
        (names[1], optax.masked(recorded_rmda(GroupLasso(group_weight=3.0)), only_layer("dense"))),
        ("z", optax.masked(optax.sgd(0.1), only_layer("norm"))),
    )
    for params, state in train(optimizer, init_params()):
        structured = ramda_jax.eval_params(state, params)
        check_structured(structured, params, state)
    check_has_structure(structured)


@pytest.mark.parametrize("names", [("x", "y"), ("y", "x")])
def test_eval_params_keeps_methods_without_radii_apart(names):
    # Only the place of the states tells which leaves belong to which method.
    lasso = ramda_jax.L1()
    optimizer = optax.named_chain(
        (names[0], optax.masked(recorded_ramda(lasso), only_layer("conv"))),
        (names[1], optax.masked(recorded_rmda(lasso, 3 * STRENGTH), only_layer("dense"))),
        ("z", optax.masked(optax.sgd(0.1), only_layer("norm"))),
    )
    for params, state in train(optimizer, init_params(), num_steps=3):
        check_structured(ramda_jax.eval_params(state, params), params, state)


def test_eval_params_finds_parts_in_chains_of_chains():
    optimizer = optax.chain(
        optax.chain(optax.identity(), ramda_jax.adaptive_dual_averaging(0.1, 1e-4)),
        optax.chain(optax.chain(ramda_jax.proximal_point(ALL, STRENGTH), recorder()), ramda_jax.iterate_averaging(0.1)),
    )
    for params, state in train(optimizer, init_params()):
        structured = ramda_jax.eval_params(state, params)
        check_structured(structured, params, state)
    check_has_structure(structured)


def test_eval_params_after_a_rejected_nan_is_that_of_the_last_finite_step():
    optimizer = optax.apply_if_finite(recorded_ramda(ALL), 3)
    *_, (params, state) = train(optimizer, init_params(), num_steps=4)
    before = ramda_jax.eval_params(state, params)
    grads = jax.tree.map(lambda g: g.at[0].set(jnp.nan), gradients(params, 4))
    updates, state = jax.jit(optimizer.update)(grads, state, params)
    assert int(state.total_notfinite) == 1
    params = optax.apply_updates(params, updates)
    check_equal(ramda_jax.eval_params(state, params), before)


def test_eval_params_between_the_steps_of_multisteps_is_that_of_the_last_real_step():
    optimizer = optax.MultiSteps(recorded_ramda(ALL), 3).gradient_transformation()
    points = [ramda_jax.eval_params(state, params) for params, state in train(optimizer, init_params(), num_steps=8)]
    check_equal(points[0], init_params())
    check_equal(points[2], points[3])
    check_equal(points[3], points[4])
    assert not np.array_equal(points[5]["dense"]["kernel"], points[4]["dense"]["kernel"])


def test_eval_params_sees_hyperparameters_changed_by_hand():
    optimizer = optax.inject_hyperparams(recorded_ramda, static_args=("regularizer", "restarts", "solver"))(
        ALL, strength=STRENGTH, learning_rate=0.1, averaging=0.1, eps=1e-4
    )
    params = init_params()
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for step in range(4):
        state.hyperparams["strength"] = jnp.asarray(STRENGTH * (1 + step))
        updates, state = update(gradients(params, step), state, params)
        params = optax.apply_updates(params, updates)
        check_structured(ramda_jax.eval_params(state, params), params, state)


def test_eval_params_of_a_method_without_a_model_of_ours_is_params():
    # Proximal gradient descent as a user's own builder. It has no state and c = 1, so the structured point is params.
    def builder():
        def update(updates, state, params=None, **extra_args):
            metric = jax.tree.map(lambda g: jnp.ones([], g.dtype), updates)
            linear = jax.tree.map(lambda g: 0.5 * g, updates)
            return ramda_jax.QuadraticModel(linear, params, metric, jnp.asarray(0.5)), state

        return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

    optimizer = optax.chain(
        builder(), ramda_jax.proximal_point(ALL, STRENGTH * 4), recorder(), ramda_jax.iterate_averaging(1.0)
    )
    *_, (params, state) = train(optimizer, init_params())
    check_equal(ramda_jax.eval_params(state, params), params)
    check_has_structure(params)
    # Beside RAMDA in one tree, each method has its own structured point.
    both = optax.partition({"first": optimizer, "second": recorded_ramda(ALL), "rest": optimizer}, labels_by_layer)
    for params, state in train(both, init_params()):
        structured = ramda_jax.eval_params(state, params)
        check_equal(structured["conv"], params["conv"])
        check_equal(structured["norm"], params["norm"])
        expected = recorded_points(state)["dense/kernel"]
        np.testing.assert_array_equal(structured["dense"]["kernel"] == 0, expected == 0)
        np.testing.assert_allclose(structured["dense"]["kernel"], expected, rtol=2e-6, atol=2e-6)


def test_eval_params_leaves_a_builder_of_ours_before_a_users_own_step_alone():
    def own_step():
        def update(model, state, params=None, **extra_args):
            return jax.tree.map(lambda v, w0, m, w: w0 - v / m - w, *model[:3], params), state

        return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)

    optimizer = optax.partition(
        {
            "first": optax.chain(ramda_jax.adaptive_dual_averaging(0.1), own_step()),
            "second": ramda_jax.prox_sgd(0.1, ALL, STRENGTH),
            "rest": optax.sgd(0.1),
        },
        labels_by_layer,
    )
    *_, (params, state) = train(optimizer, init_params(), num_steps=2)
    check_equal(ramda_jax.eval_params(state, params), params)


# Flax.


class Network(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, kernel_size=(2, 2), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_bias=False, rngs=rngs)
        self.dense = nnx.Linear(6, 5, rngs=rngs)


@pytest.mark.parametrize(
    ("method", "wrapper"),
    [
        ("ramda", "bare"),
        pytest.param("rmda", "bare", marks=pytest.mark.slow),
        pytest.param("ramda", "inject_hyperparams", marks=pytest.mark.slow),
        ("ramda", "MultiSteps of partition"),
        pytest.param("ramda", "partition", marks=pytest.mark.slow),
        ("rmda", "partition"),
        pytest.param("ramda", "named_chain", marks=pytest.mark.slow),
        pytest.param("ramda", "apply_if_finite", marks=pytest.mark.slow),
    ],
)
@pytest.mark.contract("`eval_params`")
def test_eval_params_works_with_nnx_optimizer(method, wrapper):
    model = Network(nnx.Rngs(0))
    wrap = WRAPPERS[wrapper]
    optimizer = nnx.Optimizer(model, wrap(RECORDED[method]), wrt=nnx.Param)

    def params_of(model):
        return nnx.state(model, nnx.Param), nnx.as_pure(nnx.state(model, nnx.Param))

    raw, pure = params_of(model)
    for params in (raw, pure):
        check_equal(ramda_jax.eval_params(optimizer.opt_state, params), params)

    @nnx.jit
    def step(model, optimizer, grads):
        optimizer.update(model, grads)

    for number in range(6):
        grads = jax.tree.map(jnp.asarray, gradients(nnx.state(model, nnx.Param), number))
        step(model, optimizer, grads)
        raw, pure = params_of(model)
        if number == 0 and wrapper.startswith("MultiSteps"):
            continue
        state = nnx.as_pure(optimizer.opt_state)
        for params in (raw, pure):
            for given in (optimizer.opt_state, state):
                structured = ramda_jax.eval_params(given, params)
                check_structured(structured, params, state)
    check_has_structure(structured)
    assert math.isclose(
        float(ramda_jax.solver_info(optimizer.opt_state).residual), float(ramda_jax.solver_info(state).residual)
    )
    # The structured point can be put back into a network.
    evaluated = nnx.clone(model)
    nnx.update(evaluated, ramda_jax.eval_params(optimizer.opt_state, raw))
    np.testing.assert_array_equal(evaluated.dense.kernel[...], by_path(structured)["dense/kernel"])


@every_method
def test_eval_params_works_with_linen_train_state(method):
    params = {"params": init_params()}
    training = TrainState.create(apply_fn=None, params=params, tx=optax.chain(optax.clip(100.0), RECORDED[method](ALL)))
    check_equal(ramda_jax.eval_params(training.opt_state, training.params), params)
    step = jax.jit(lambda training, grads: training.apply_gradients(grads=grads))
    for number in range(6):
        training = step(training, gradients(training.params, number))
        structured = ramda_jax.eval_params(training.opt_state, training.params)
        check_structured(structured, training.params, training.opt_state)
    check_has_structure(structured, [f"params/{path}" for path in KERNELS])


# Errors.


@pytest.mark.parametrize(
    "state",
    [
        optax.adam(1e-3).init({"kernel": jnp.ones((2, 2))}),
        optax.EmptyState(),
        (),
        None,
        {"kernel": jnp.ones((2, 2))},
        ramda_jax.dual_averaging(0.1).init({"kernel": jnp.ones((2, 2))}),
    ],
    ids=["adam", "empty state", "tuple", "None", "params", "model builder alone"],
)
@pytest.mark.parametrize("function", [lambda s: ramda_jax.eval_params(s, {"kernel": 1.0}), ramda_jax.solver_info])
def test_state_without_one_of_ours_is_refused(function, state):
    with pytest.raises(ValueError, match="The state must contain one of ramda_jax, got none in a state of type"):
        function(state)


def test_params_that_lack_a_leaf_are_refused_by_path():
    params = init_params()
    state = plain_ramda(ALL).init(params)
    del params["dense"]["kernel"]
    with pytest.raises(ValueError, match=r"lacks \['dense/kernel'\]"):
        ramda_jax.eval_params(state, params)


# The solver's report.


def test_solver_info_sums_up_all_states_and_leaves():
    # With such small strengths all groups are alive, and the iterations are too few to converge.
    make = {
        "first": plain_ramda(ALL, 1e-3, solver=ProximalGradient(max_steps=9, tolerance=0.0)),
        "second": plain_ramda(ALL, 1e-3, solver=ProximalGradient(max_steps=2, tolerance=0.0)),
        "rest": plain_ramda({"scale": GroupLasso(0)}, 1e-3),
    }
    *_, (_, state) = train(optax.partition(make, labels_by_layer), init_params(), num_steps=2)
    info = ramda_jax.solver_info(state)
    assert int(info.num_steps) == 9
    assert not bool(info.converged)
    parts = [ramda_jax.solver_info(state.inner_states[label]) for label in make]
    assert [bool(part.converged) for part in parts] == [False, False, True]
    assert [int(part.num_steps) for part in parts][:2] == [9, 2]
    assert info.residual.shape == ()
    np.testing.assert_allclose(info.residual, np.sqrt(sum(float(part.residual) ** 2 for part in parts)), rtol=1e-6)
