"""The model builders of RMDA and RAMDA against the papers' formulas in NumPy, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import adaptive_dual_averaging, dual_averaging
from ramda_jax.builders.adaptive_dual_averaging import metric_of
from ramda_jax.numerics import cbrt_for_step
from tests.reference.dual_averaging import trajectory
from tests.tiny import array

pytestmark = pytest.mark.covering

METHODS = ("rmda", "ramda")
NUM_STEPS = 12
SHAPES = {"bias": (5,), "layer": {"kernel": (7, 5), "scalar": ()}}


def is_shape(node):
    return isinstance(node, tuple)


def random_tree(rng, dtypes=None, scale=1.0):
    dtypes = (
        {"bias": jnp.float32, "layer": {"kernel": jnp.float32, "scalar": jnp.float32}} if dtypes is None else dtypes
    )
    return jax.tree.map(
        lambda shape, dtype: array(scale * rng.standard_normal(shape), dtype), SHAPES, dtypes, is_leaf=is_shape
    )


def run_of_inputs(seed, dtypes=None, scale=1.0):
    """Random parameters and gradients for every step, because a builder must accept any."""
    rng = np.random.default_rng(seed)
    parameters = [random_tree(rng, dtypes) for _ in range(NUM_STEPS)]
    gradients = [random_tree(rng, dtypes, scale) for _ in range(NUM_STEPS)]
    return parameters, gradients


def tables(seed):
    """Learning rates and eps of the steps."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.01, 1, NUM_STEPS), 10.0 ** rng.uniform(-6, -1, NUM_STEPS)


def schedule(table):
    return lambda step: jnp.asarray(table)[step]


def make(method, learning_rate, eps=1e-6, restarts=(), anchor_dtype=None):
    if method == "rmda":
        return dual_averaging(learning_rate, restarts, anchor_dtype)
    return adaptive_dual_averaging(learning_rate, eps, restarts, anchor_dtype)


def run(builder, parameters, gradients, jit=True):
    """(model, state) after every step."""
    update = jax.jit(builder.update) if jit else builder.update
    state = builder.init(parameters[0])
    results = []
    for params, grads in zip(parameters, gradients, strict=True):
        model, state = update(grads, state, params)
        results.append((model, state))
    return results


def assert_close(actual, expected, **tolerance):
    np.testing.assert_allclose(np.asarray(actual).astype(np.float64), expected, **tolerance)


def check_run(method, results, parameters, gradients, learning_rates, restarts, epsilons, tolerance_of):
    """Compares all sums and models of a run; `tolerance_of` maps a leaf's dtype to its relative tolerance."""
    leaves = [jax.tree.leaves(tree) for tree in gradients], [jax.tree.leaves(tree) for tree in parameters]
    for number in range(len(leaves[0][0])):
        expected = trajectory(
            method,
            [tree[number] for tree in leaves[0]],
            [tree[number] for tree in leaves[1]],
            learning_rates,
            restarts,
            epsilons,
        )
        tolerance = tolerance_of(leaves[1][0][number].dtype)
        for k, (step, (model, state)) in enumerate(zip(expected, results, strict=True)):

            def leaf(tree, number=number):
                return jax.tree.leaves(tree)[number]

            assert int(state.model_step) == k + 1
            assert int(state.stage_step) == step.t
            assert_close(state.step_size_sum, step.alpha, rtol=tolerance)
            # Terms of a sum may cancel, so the tolerance is relative to the size of the terms.
            assert_close(leaf(state.grad_sum), step.V, rtol=tolerance, atol=tolerance * step.alpha)
            assert_close(leaf(state.anchor), step.W0, rtol=0)
            assert_close(leaf(model.linear), step.V, rtol=tolerance, atol=tolerance * step.alpha)
            assert_close(leaf(model.anchor), step.W0, rtol=0)
            assert_close(np.broadcast_to(leaf(model.metric), step.V.shape), step.metric, rtol=tolerance)
            assert_close(model.weight, step.weight, rtol=tolerance)
            if method == "ramda":
                assert_close(leaf(state.grad_sq_sum), step.U, rtol=tolerance)


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize("restarts", [(), (4,), (1, 2, 7), (NUM_STEPS,)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_builder_follows_the_papers_formulas_with_schedules_and_restarts(x64, method, restarts, jit):
    dtypes = {"bias": jnp.float64, "layer": {"kernel": jnp.float64, "scalar": jnp.float64}}
    parameters, gradients = run_of_inputs(1, dtypes)
    learning_rates, epsilons = tables(2)
    builder = make(method, schedule(learning_rates), schedule(epsilons), restarts)
    results = run(builder, parameters, gradients, jit)
    check_run(
        method, results, parameters, gradients, learning_rates, restarts, epsilons, tolerance_of=lambda dtype: 1e-14
    )


@pytest.mark.parametrize("method", METHODS)
def test_builder_follows_the_papers_formulas_with_numbers_in_float32(method):
    parameters, gradients = run_of_inputs(3)
    results = run(make(method, 0.3, 1e-3, (5,)), parameters, gradients)
    learning_rates, epsilons = np.full(NUM_STEPS, 0.3), np.full(NUM_STEPS, 1e-3)
    check_run(method, results, parameters, gradients, learning_rates, (5,), epsilons, tolerance_of=lambda dtype: 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_builder_keeps_every_leafs_own_precision_in_a_mixed_tree(x64, method):
    dtypes = {"bias": jnp.bfloat16, "layer": {"kernel": jnp.float64, "scalar": jnp.float32}}
    parameters, gradients = run_of_inputs(4, dtypes)
    learning_rates, epsilons = tables(5)
    results = run(make(method, schedule(learning_rates), schedule(epsilons), (5,)), parameters, gradients)
    check_run(
        method,
        results,
        parameters,
        gradients,
        learning_rates,
        (5,),
        epsilons,
        # bfloat16 numbers are summed in float32, and step sizes are rounded to float32.
        tolerance_of=lambda dtype: 1e-14 if dtype == jnp.float64 else 1e-6,
    )
    model, state = results[-1]
    sums = [state.grad_sum, model.linear, *([state.grad_sq_sum] if method == "ramda" else [])]
    for tree in (*sums, model.metric):
        assert tree["bias"].dtype == jnp.float32
        assert tree["layer"]["kernel"].dtype == jnp.float64
        assert tree["layer"]["scalar"].dtype == jnp.float32
    assert state.step_size_sum.dtype == jnp.float64
    assert jax.tree.map(lambda x: x.dtype, state.anchor) == jax.tree.map(jnp.dtype, dtypes)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("method", METHODS)
def test_sums_of_half_precision_gradients_do_not_stall(method, dtype):
    # With s_t = 1 the sum counts the steps. bfloat16 would stop at 256, float16 at 2048.
    builder = make(method, lambda step: 1 / jnp.sqrt(step + 1.0))
    params = {"kernel": jnp.zeros((2, 3), dtype)}
    grads = {"kernel": jnp.ones((2, 3), dtype)}

    def step(state, _):
        return builder.update(grads, state, params)[1], None

    state = jax.jit(lambda state: jax.lax.scan(step, state, length=4_000)[0])(builder.init(params))
    assert state.grad_sum["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(state.grad_sum["kernel"], 4_000, rtol=1e-5)
    np.testing.assert_allclose(state.step_size_sum, 4_000, rtol=1e-5)
    if method == "ramda":
        np.testing.assert_allclose(state.grad_sq_sum["kernel"], 4_000, rtol=1e-5)
        np.testing.assert_allclose(state.quadratic_model().metric["kernel"], 4_000 ** (1 / 3), rtol=1e-5)


@pytest.mark.parametrize("size", [6e-8, 1e-4, 3e3], ids=["denormal", "tiny", "huge"])
def test_squares_of_float16_gradients_neither_vanish_nor_overflow(size):
    grads = jnp.full((2, 3), size, jnp.float16)
    value = float(grads[0, 0])
    assert value > 0
    assert float(jnp.square(grads)[0, 0]) in (0.0, float("inf"))
    builder = adaptive_dual_averaging(0.5, eps=1e-30)
    params = jnp.ones((2, 3), jnp.float16)
    model, state = builder.update(grads, builder.init(params), params)
    np.testing.assert_allclose(state.grad_sum, 0.5 * value, rtol=1e-6)
    np.testing.assert_allclose(state.grad_sq_sum, 0.5 * value**2, rtol=1e-6)
    np.testing.assert_allclose(model.metric, (0.5 * value**2) ** (1 / 3), rtol=1e-5)


@pytest.mark.parametrize("size", [1e-4, 3e3])
def test_sums_do_not_lose_float16_gradients_times_small_step_sizes(size):
    # 1e-6 * 1e-4 is zero in float16.
    grads = jnp.full((3,), size, jnp.float16)
    builder = dual_averaging(1e-6)
    _, state = builder.update(grads, builder.init(jnp.ones(3, jnp.float16)), jnp.ones(3, jnp.float16))
    np.testing.assert_allclose(state.grad_sum, 1e-6 * float(grads[0]), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_restart_is_lazy(method):
    parameters, gradients = run_of_inputs(6)
    restarted = run(make(method, 0.3, 1e-3, restarts=(5,)), parameters, gradients)
    straight = run(make(method, 0.3, 1e-3), parameters, gradients)
    # After the stage's last step the state is still the stage's, bit for bit, and gives the stage's model.
    for number in range(5):
        jax.tree.map(np.testing.assert_array_equal, restarted[number], straight[number])
    model, state = restarted[4]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.quadratic_model(), model)
    assert int(state.stage_step) == 5
    # The next stage is a run of its own from its first parameters on. Only the count of all steps continues.
    fresh = run(make(method, 0.3, 1e-3), parameters[5:], gradients[5:])
    for (_, state), (_, expected) in zip(restarted[5:], fresh, strict=True):
        jax.tree.map(np.testing.assert_array_equal, state, expected._replace(model_step=expected.model_step + 5))
    first = restarted[5][1]
    assert int(first.stage_step) == 1
    jax.tree.map(np.testing.assert_array_equal, first.anchor, parameters[5])


@pytest.mark.parametrize("method", METHODS)
def test_schedules_count_on_over_restarts(method):
    seen = [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    builder = make(method, schedule(seen), schedule(seen), restarts=(2, 4))
    params = {"kernel": jnp.ones((2, 2))}
    results = run(builder, [params] * 6, [params] * 6)
    # With gradients of one, V is alpha, and alpha after a stage's first step is its learning rate.
    root = np.sqrt(2.0)
    expected = [1.0, 1.0 + root * 0.5, 0.25, 0.25 + root * 0.125, 0.0625, 0.0625 + root * 0.03125]
    np.testing.assert_allclose([float(state.step_size_sum) for _, state in results], expected, rtol=1e-6)
    if method == "ramda":
        np.testing.assert_allclose([float(state.epsilon) for _, state in results], seen, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_state_gives_the_same_model_that_the_step_gave(method):
    parameters, gradients = run_of_inputs(7)
    for model, state in run(make(method, 0.3, 1e-3, restarts=(5,)), parameters, gradients, jit=False):
        jax.tree.map(np.testing.assert_array_equal, state.quadratic_model(), model)


@pytest.mark.parametrize("method", METHODS)
def test_fresh_state_gives_a_model_whose_minimiser_is_the_anchor(method):
    params = random_tree(np.random.default_rng(8))
    model = make(method, 0.3).init(params).quadratic_model()
    for leaf_model, leaf in zip(model.leaves(), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(leaf_model.center, leaf)
    assert float(model.weight) == 0


@pytest.mark.parametrize("method", METHODS)
def test_zero_learning_rate_moves_nothing_whatever_the_gradients(method):
    parameters, gradients = run_of_inputs(9)
    for model, _ in run(make(method, 0.0), [parameters[0]] * NUM_STEPS, gradients):
        for leaf_model, leaf in zip(model.leaves(), jax.tree.leaves(parameters[0]), strict=True):
            np.testing.assert_array_equal(leaf_model.center, leaf)


@pytest.mark.parametrize("method", METHODS)
def test_scan_gives_the_same_states_as_single_steps(method):
    parameters, gradients = run_of_inputs(10)
    builder = make(method, 0.3, 1e-3, restarts=(5,))
    stacked = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *parameters),
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients),
    )

    def step(state, inputs):
        params, grads = inputs
        return builder.update(grads, state, params)[1], None

    scanned, _ = jax.lax.scan(step, builder.init(parameters[0]), stacked)
    expected = run(builder, parameters, gradients)[-1][1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), scanned, expected)


@pytest.mark.parametrize("method", METHODS)
def test_anchor_shares_no_buffer_with_the_parameters(method):
    params = random_tree(np.random.default_rng(11))
    state = make(method, 0.3).init(params)

    def pointers(tree):
        return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]

    assert not set(pointers(state.anchor)) & set(pointers(params))


@pytest.mark.parametrize("method", METHODS)
def test_anchor_dtype_rounds_the_first_parameters_of_each_stage_and_nothing_else(method):
    dtypes = {"bias": jnp.float16, "layer": {"kernel": jnp.float32, "scalar": jnp.float32}}
    parameters, gradients = run_of_inputs(12, dtypes)

    def rounded(params):
        # Leaves that are as narrow keep their dtype.
        return params | {"layer": jax.tree.map(lambda p: p.astype(jnp.bfloat16), params["layer"])}

    builder = make(method, 0.3, 1e-3, restarts=(5,), anchor_dtype=jnp.bfloat16)
    found = run(builder, parameters, gradients)
    jax.tree.map(np.testing.assert_array_equal, builder.init(parameters[0]).anchor, rounded(parameters[0]))
    # The sums are those of a run with the anchors in full, and the models those of a run from rounded parameters.
    plain = make(method, 0.3, 1e-3, restarts=(5,))
    in_full = run(plain, parameters, gradients)
    nearby = run(plain, [jax.tree.map(lambda r, p: r.astype(p.dtype), rounded(p), p) for p in parameters], gradients)
    for number, (model, state) in enumerate(found):
        first = parameters[5 if number >= 5 else 0]
        assert jax.tree.map(lambda x: x.dtype, state.anchor) == jax.tree.map(lambda x: x.dtype, rounded(first))
        jax.tree.map(np.testing.assert_array_equal, state.anchor, rounded(first))
        without = [given._replace(anchor=None) for given in (state, in_full[number][1])]
        for one, other in (without, (model, nearby[number][0])):
            jax.tree.map(lambda a, b: assert_close(a, np.asarray(b, float), rtol=1e-6, atol=1e-6), one, other)


@pytest.mark.parametrize("method", METHODS)
def test_nan_gradient_shows_in_the_sums(method):
    params = {"kernel": jnp.ones((2, 2))}
    grads = {"kernel": jnp.array([[jnp.nan, 1.0], [1.0, 1.0]])}
    builder = make(method, 0.3)
    _, state = builder.update(grads, builder.init(params), params)
    np.testing.assert_array_equal(np.isnan(state.grad_sum["kernel"]), [[True, False], [False, False]])


@pytest.mark.parametrize("method", METHODS)
def test_update_ignores_extra_args_and_asks_for_params(method):
    params = {"kernel": jnp.ones((2, 2))}
    builder = make(method, 0.3)
    assert isinstance(builder, optax.GradientTransformationExtraArgs)
    state = builder.init(params)
    builder.update(params, state, params, value=1.0)
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        builder.update(params, state)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("restarts", [[3, 8], np.array([3, 8]), (np.int64(3), 8)], ids=repr)
def test_restarts_may_be_any_sequence_of_whole_numbers(method, restarts):
    parameters, gradients = run_of_inputs(12)
    actual = run(make(method, 0.3, 1e-3, restarts), parameters, gradients)[-1]
    expected = run(make(method, 0.3, 1e-3, (3, 8)), parameters, gradients)[-1]
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("restarts", "error", "message"),
    [
        ((0, 5), ValueError, "positive and increasing"),
        ((5, 5), ValueError, "positive and increasing"),
        ((5, 3), ValueError, "positive and increasing"),
        ((-1,), ValueError, "positive and increasing"),
        ((2.0,), TypeError, "whole numbers"),
        ((True,), TypeError, "whole numbers"),
        (5, TypeError, "sequence of step counts"),
    ],
)
def test_wrong_restarts_are_refused(method, restarts, error, message):
    with pytest.raises(error, match=message):
        make(method, 0.3, restarts=restarts)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), np.float32(-1)])
def test_wrong_learning_rate_is_refused(method, value):
    with pytest.raises(ValueError, match="`learning_rate` must be finite and at least 0"):
        make(method, value)


@pytest.mark.parametrize("value", [0.0, -1e-6, float("nan"), float("inf")])
def test_wrong_eps_is_refused(value):
    with pytest.raises(ValueError, match="`eps` must be finite and above 0"):
        make("ramda", 0.3, eps=value)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64, jnp.bool_])
def test_parameters_that_are_no_real_numbers_are_refused_by_path(method, dtype):
    params = {"layer": {"kernel": jnp.ones((2, 2)), "table": jnp.ones((2, 2), dtype)}}
    with pytest.raises(TypeError, match="'layer/table'"):
        make(method, 0.3).init(params)


def test_without_regularizer_ramda_steps_to_the_center_of_the_reference_model(x64):
    dtypes = {"bias": jnp.float64, "layer": {"kernel": jnp.float64, "scalar": jnp.float64}}
    _, gradients = run_of_inputs(13, dtypes)
    params = random_tree(np.random.default_rng(14), dtypes)
    learning_rates, epsilons = tables(15)
    averagings = np.random.default_rng(16).uniform(0.1, 1, NUM_STEPS)
    optimizer = ramda_jax.ramda(
        schedule(learning_rates), averaging=schedule(averagings), eps=schedule(epsilons), restarts=(5,)
    )
    state = optimizer.init(params)
    visited = []
    for grads in gradients:
        visited.append(params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    visited.append(params)
    for leaf in range(3):
        path = [jax.tree.leaves(tree)[leaf] for tree in visited]
        steps = trajectory(
            "ramda", [jax.tree.leaves(tree)[leaf] for tree in gradients], path, learning_rates, (5,), epsilons
        )
        for k, step in enumerate(steps):
            center = step.W0 - step.V / step.metric
            expected = (1 - averagings[k]) * np.asarray(path[k]) + averagings[k] * center
            np.testing.assert_allclose(path[k + 1], expected, rtol=1e-13, atol=1e-13)


def test_the_metric_of_nvidias_gpus_is_that_of_others(monkeypatch):
    def as_on_a_gpu(*args, default, **platforms):
        return platforms.get("cuda", default)(*args)

    squares, epsilon = np.logspace(-30, 30, 61, dtype=np.float32), jnp.float32(0.25)
    usual = metric_of(jnp.asarray(squares), epsilon)
    monkeypatch.setattr(jax.lax, "platform_dependent", as_on_a_gpu)
    found = metric_of.__wrapped__(jnp.asarray(squares), epsilon, cbrt_for_step)
    # Quickly compiled, the operation itself is wrong by 7e-7 on CPUs.
    np.testing.assert_allclose(found, usual, rtol=2e-6)
