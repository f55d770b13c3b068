"""A strength that training finds for a given share of zeros; once held it is an ordinary lambda."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import GroupLasso, Target, metrics
from tests.regularizers.cases import CASES
from tests.tiny import advance, apply_step

GROUPS, WIDTH, STEPS = 60, 4, 800
ENDS, HOLD = (200, 300, 400), 600
RNG = np.random.default_rng(0)
# The groups' sizes span two decades, so the share of zeros depends on the strength over decades.
TRUTH = jnp.asarray(RNG.normal(size=(GROUPS, WIDTH)) * np.logspace(-2, 0, GROUPS)[:, None], jnp.float32)
PARAMS = {"kernel": jnp.zeros((GROUPS, WIDTH)), "bias": jnp.zeros(WIDTH)}


def gradient(params, key=None):
    """The gradient of a quadratic, with noise if there is a key."""
    noise = 0.0 if key is None else 0.1 * jax.random.normal(key, TRUTH.shape)
    return {"kernel": params["kernel"] - TRUTH + noise, "bias": params["bias"]}


@functools.partial(jax.jit, static_argnums=(0, 3))
def noisy(optimizer, params, state, num_steps, key):
    """The last (params, state), and (params, strength) after each step."""

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(gradient(params, key), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, optax.tree.get(state, "strength"))

    return jax.lax.scan(step, (params, state), jax.random.split(key, num_steps))


METHODS = {
    "ramda": lambda target: ramda_jax.ramda(
        regularizer=GroupLasso(), strength=target, **ramda_jax.stages(0.1, factor=0.3, total_steps=STEPS)
    ),
    "rmda": lambda target: ramda_jax.rmda(
        regularizer=GroupLasso(), strength=target, **ramda_jax.stages(0.3, factor=0.3, total_steps=STEPS)
    ),
    "prox_adamw": lambda target: ramda_jax.prox_adamw(
        0.003, GroupLasso(), Target(target.share, total_steps=STEPS, hold=HOLD)
    ),
}


@pytest.mark.slow_except("ramda")
@pytest.mark.parametrize("method", METHODS)
def test_the_share_at_the_end_is_the_one_asked_for_whatever_the_start(method):
    wanted = 0.7
    optimizer = METHODS[method](Target(wanted))
    starts = jnp.array([1e-7, 1e-4, 1e-1, 1e2])

    def run(start, key):
        state = optimizer.init(PARAMS)
        strength = optax.tree.get(state, "strength")
        state = optax.tree.set(state, strength=strength._replace(next=start))
        (params, _), (_, found) = noisy(optimizer, PARAMS, state, STEPS, key)
        return metrics.group_sparsity(GroupLasso(), params), found

    shares, found = jax.vmap(run)(starts, jax.random.split(jax.random.key(0), len(starts)))
    # The share may differ by a group or two, because the sizes of some groups are next to the strength.
    np.testing.assert_allclose(shares, wanted, atol=2.5 / GROUPS if method == "prox_adamw" else 1.5 / GROUPS)
    assert (found.current[:, 0] == starts).all()
    assert (found.current[:, HOLD:] == found.current[:, HOLD, None]).all()  # lambda is held
    assert (found.current[:, 1] != found.current[:, HOLD]).all()
    assert np.ptp(np.log(found.current[:, -1])) < 0.7  # starts over nine decades end near one value


def test_held_at_a_restart_the_run_is_that_of_the_number_bit_by_bit():
    target = Target(0.7, hold=ENDS[-1])
    found = METHODS["ramda"](target)
    (params, state), _ = noisy(found, PARAMS, found.init(PARAMS), ENDS[-1], jax.random.key(0))
    strength = float(optax.tree.get(state, "strength").next)
    number = METHODS["ramda"](strength)
    proximal = optax.tree.get(state, "ProximalPointState")
    as_number = [
        part._replace(strength=jnp.float32(strength), problem=number.init(PARAMS)[1].problem)
        if part is proximal else part for part in state
    ]  # fmt: skip
    (params_of_number, ours), _ = noisy(found, params, state, 100, jax.random.key(1))
    (other, theirs), _ = noisy(number, params, tuple(as_number), 100, jax.random.key(1))
    chex.assert_trees_all_equal(params_of_number, other)
    chex.assert_trees_all_equal(ramda_jax.eval_params(ours, params_of_number), ramda_jax.eval_params(theirs, other))


def test_held_inside_a_stage_the_weight_of_psi_tends_to_that_of_the_number():
    # lambda is held while it still moves by some per cent a step.
    optimizer = ramda_jax.ramda(0.1, GroupLasso(), Target(0.7, start=1e-6, hold=80), averaging=1.0)
    carry = PARAMS, optimizer.init(PARAMS)
    differences = []
    for num_steps in (80, 200, 2000, 20_000):
        (params, state) = advance(optimizer, gradient, *carry, num_steps)
        carry = params, state
        model, strength = (optax.tree.get(state, name) for name in ("AdaptiveDualAveragingState", "strength"))
        differences.append(abs(float(strength.weight / (model.step_size_sum * strength.current)) - 1))
    assert differences[0] > 0.5 > differences[1] > differences[2] > differences[3]
    assert differences[3] < 1e-3


def test_eval_params_is_the_steps_own_solution():
    optimizer = ramda_jax.ramda(0.05, GroupLasso(), Target(0.7, total_steps=STEPS), averaging=1.0)
    (params, state), _ = noisy(optimizer, PARAMS, optimizer.init(PARAMS), 300, jax.random.key(0))
    structured = ramda_jax.eval_params(state, params)
    np.testing.assert_array_equal(structured["kernel"] == 0, params["kernel"] == 0)
    np.testing.assert_allclose(structured["kernel"], params["kernel"], rtol=1e-5, atol=1e-6)
    assert 0 < np.mean(np.asarray(params["kernel"]) == 0) < 1


def test_a_share_that_rises_is_followed_to_the_step_that_holds():
    """As before a phase with held zeros: lambda may move to the end, where the share must be met."""
    rising = optax.linear_schedule(0.2, 0.8, STEPS // 4)
    target = Target(rising, start=0.01, hold=STEPS - 1, total_steps=STEPS)
    optimizer = ramda_jax.ramda(0.1, GroupLasso(), target, averaging=1.0)
    _, (trajectory, strength) = noisy(optimizer, PARAMS, optimizer.init(PARAMS), STEPS, jax.random.key(0))
    shares = np.mean(np.asarray(trajectory["kernel"]) == 0, axis=(1, 2))
    # lambda lags behind the rising share, and has caught up by the end.
    assert shares[STEPS // 8] < 0.6
    two_groups = 2.5 / GROUPS
    assert abs(shares[-1] - 0.8) < two_groups
    # With an averaging of 1 the parameters are W_hat, whose share the state has: no average that lags behind.
    np.testing.assert_allclose(strength.share, shares, atol=1e-6)


COSTS = {"kernel": np.arange(1.0, GROUPS + 1)[:, None]}


@pytest.mark.parametrize("name", ["ramda", "rmda", "prox_adamw"])
def test_the_share_is_met_in_the_step_that_is_to_be_exact_whatever_the_gradient_does(name):
    averaging = {} if name == "prox_adamw" else {"averaging": 1.0}
    shares = {}
    for exact_at in (None, 20, 21):
        target = Target(0.6, start=0.01, hold=15, exact_at=exact_at, total_steps=100)
        optimizer = getattr(ramda_jax, name)(0.1, GroupLasso(), target, **averaging)
        step = jax.jit(functools.partial(apply_step, optimizer))
        params, state = PARAMS, optimizer.init(PARAMS)
        shares[exact_at] = []
        for count in range(23):
            # All groups get a large gradient in two steps, and revive.
            truth = 30 * TRUTH[::-1] if count in (20, 21) else TRUTH
            params, state = step({"kernel": params["kernel"] - truth, "bias": params["bias"]}, state, params)
            shares[exact_at].append(float(optax.tree.get(state, "strength").share))
            assert np.mean(np.asarray(params["kernel"]) == 0) == pytest.approx(shares[exact_at][-1], abs=1e-6)
    for exact_at in (20, 21):
        assert shares[exact_at][:exact_at] == shares[None][:exact_at]
        assert 0.6 <= shares[exact_at][exact_at] + 1e-6 <= 0.6 + 1 / GROUPS + 2e-6
        assert not 0.5 < shares[None][exact_at] < 0.7  # the case is one in which the share would be missed


@pytest.mark.slow_except("weights")
@pytest.mark.parametrize("of", ["weights", "groups", COSTS], ids=["weights", "groups", "costs"])
def test_the_share_is_of_weights_of_groups_or_of_costs(of):
    tree = {"kernel": jnp.zeros((GROUPS, WIDTH)), "wide": jnp.zeros((GROUPS, 4 * WIDTH))}
    truth = {"kernel": TRUTH, "wide": jnp.tile(0.3 * TRUTH, 4)}
    regularizer = {"kernel": GroupLasso()} if isinstance(of, dict) else GroupLasso()
    optimizer = ramda_jax.ramda(
        regularizer=regularizer, strength=Target(0.6, of), **ramda_jax.stages(0.1, total_steps=STEPS),
    )  # fmt: skip
    start = optimizer.init(tree)
    params, state = advance(optimizer, lambda p: jax.tree.map(jnp.subtract, p, truth), tree, start, STEPS)
    zero = {name: np.all(np.asarray(leaf) == 0, axis=1) for name, leaf in params.items()}
    if of == "weights":
        share = (np.sum(zero["kernel"]) + 4 * np.sum(zero["wide"])) / (5 * GROUPS)
    elif of == "groups":
        share = (np.sum(zero["kernel"]) + np.sum(zero["wide"])) / (2 * GROUPS)
    else:
        share = np.sum(zero["kernel"] * COSTS["kernel"][:, 0]) / np.sum(COSTS["kernel"])
    one_group = np.max(COSTS["kernel"]) / np.sum(COSTS["kernel"]) if isinstance(of, dict) else 0.02
    assert abs(share - 0.6) < one_group
    assert float(optax.tree.get(state, "strength").share) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda target: optax.chain(optax.clip_by_global_norm(10.0), METHODS["ramda"](target)),
        lambda target: optax.inject_hyperparams(ramda_jax.ramda)(
            regularizer=GroupLasso(), strength=target, **ramda_jax.stages(0.1, total_steps=STEPS)
        ),
        lambda target: optax.partition(
            {"ours": METHODS["ramda"](target), "theirs": optax.sgd(0.1)}, {"kernel": "ours", "bias": "theirs"}
        ),
        lambda target: optax.MultiSteps(METHODS["ramda"](target), 2).gradient_transformation(),
    ],
    ids=["chain", "inject_hyperparams", "partition", "MultiSteps"],
)
def test_a_target_goes_through_optaxs_wrappers(wrap):
    optimizer = wrap(Target(0.5))
    params, state = advance(optimizer, gradient, PARAMS, optimizer.init(PARAMS), 300)
    structured = ramda_jax.eval_params(state, params)
    assert abs(float(metrics.group_sparsity(GroupLasso(), {"kernel": structured["kernel"]})) - 0.5) < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_no_two_arrays_of_a_fresh_state_are_one_so_that_it_may_be_donated(method):
    leaves = jax.tree.leaves((PARAMS, METHODS[method](Target(0.5)).init(PARAMS)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


WITH_ZEROS = [
    name for name, case in CASES.items() if case.regularizer.zeroing_weight(jnp.ones(case.shape), 1.0) is not None
]


@pytest.mark.parametrize("name", WITH_ZEROS)
def test_the_zeroing_weight_is_the_border_of_the_solutions_zeros(name, x64):
    case = CASES[name]
    regularizer = case.regularizer.resolve("kernel", case.shape)
    rng = np.random.default_rng(1)
    rhs, metric = rng.normal(size=case.shape), np.exp(rng.normal(size=case.shape))
    solver = ramda_jax.default_solver(regularizer, "diagonal")
    border = regularizer.zeroing_weight(rhs, metric)
    assert border.shape == regularizer.support(rhs).shape

    def solution(weight):
        model = ramda_jax.QuadraticModel(-jnp.asarray(rhs), jnp.zeros(case.shape), jnp.asarray(metric), weight)
        return solver.solve(model, regularizer, ramda_jax.Context(start=jnp.zeros(case.shape)))

    for index in np.ndindex(border.shape):
        if border[index] == 0:  # zero for any weight, such as a negative entry under `non_negative`
            assert not bool(regularizer.support(solution(jnp.asarray(1e-9)).value)[index])
            continue
        for scale, is_zero in ((1 + 1e-6, True), (1 - 1e-6, False)):
            value = solution(jnp.asarray(scale * border[index])).value
            assert not bool(regularizer.support(value)[index]) == is_zero


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Target(1.0), r"`share` must be above 0 and below 1, got 1.0; use"),
        (lambda: Target(0.9, of="flops"), r"`of` must be 'weights', 'groups' or a mapping of costs, got 'flops'; use"),
        (lambda: Target(0.9, start=0.0), r"`start` must be finite and above 0"),
        (lambda: ramda_jax.ramda(0.1, GroupLasso(), Target(0.9)), r"must know when to hold its lambda, .*; use"),
        (lambda: ramda_jax.ramda(0.1, None, Target(0.9, hold=5)), r"must be given with a regularizer, got None; use"),
        (
            lambda: ramda_jax.ramda(0.1, ramda_jax.NuclearNorm(), Target(0.9, hold=5)),
            r"regularizers whose zeros grow with their weight, got NuclearNorm.*; use",
        ),
    ],
)
def test_what_a_target_cannot_be_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_target_holds_in_the_middle_of_a_last_stage_of_known_length_else_at_its_start():
    assert Target(0.9, total_steps=100).held_from() == 50
    assert Target(0.9, ends=(40, 60), total_steps=100).held_from() == 80
    assert Target(0.9, ends=(40, 60)).held_from() == 60
    assert Target(0.9, ends=(40, 60), hold=7).held_from() == 7
    ends = ramda_jax.stages(0.1, total_steps=100)["restarts"]
    assert Target(0.9).within(ends).stage_lengths() == (25, 12, 13, 50)
    assert Target(0.9).within(ends).held_from() == 75


@pytest.mark.parametrize(
    "shapes",
    [{"bias": (3,)}, {"kernel": (0, 3)}, {"kernel": (3, 0)}, {"kernel": (0, 3), "other": (4, 3)}, {"kernel": ()}],
    ids=str,
)
def test_a_target_with_nothing_to_zero_moves_what_is_left_and_its_share_is_a_number(shapes):
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    optimizer = ramda_jax.ramda(0.1, GroupLasso(), Target(0.5, hold=2), averaging=1.0)
    params, state = advance(optimizer, lambda params: params, params, optimizer.init(params), 3)
    strength = optax.tree.get(state, "strength")
    assert np.isfinite(jax.tree.leaves(strength)).all() and float(strength.share) == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_the_state_of_a_number_is_refused_by_a_target_and_the_other_way_round():
    target = ramda_jax.ramda(0.1, GroupLasso(), Target(0.5, hold=2))
    number = ramda_jax.ramda(0.1, GroupLasso(), 0.5)
    for optimizer, other, found in ((target, number, "a number's"), (number, target, "a target's")):
        with pytest.raises(ValueError, match=f"must be one of this optimizer's strength, got {found} in the state"):
            optimizer.update(PARAMS, other.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"of": {"kernel": np.zeros((4, 1))}}, ValueError, "Some cost must be above 0"),
        ({"of": {}}, ValueError, "Some cost must be above 0"),
        (
            {"of": {"kernel": np.full((4, 1), np.nan)}},
            ValueError,
            "Costs must be finite and at least 0, got .*'kernel'; use",
        ),
        ({"of": {"kernel": -np.ones((4, 1))}}, ValueError, "Costs must be finite and at least 0"),
        ({"of": {"kernel": "many"}}, TypeError, "Costs must be arrays of real numbers, got <U4 at 'kernel'; use"),
        ({"of": {"kernel": np.ones(4, bool)}}, TypeError, "Costs must be arrays of real numbers, got bool"),
        (
            {"ends": (100,), "total_steps": 50},
            ValueError,
            r"`ends` must be below `total_steps`, got \(100,\) and 50; use",
        ),
        ({"hold": 50, "total_steps": 50}, ValueError, "`hold` must be below `total_steps`, got 50 and 50; use"),
        ({"exact_at": 50, "total_steps": 50}, ValueError, "`exact_at` must be below `total_steps`, got 50 and 50; use"),
        ({"exact_at": 1.5}, TypeError, "`exact_at` must be a whole number, got 1.5; use an int"),
    ],
)
def test_costs_and_steps_that_say_nothing_are_refused_by_name(settings, error, message):
    with pytest.raises(error, match=message):
        Target(0.5, **settings)
    Target(
        0.5, of={"kernel": jnp.ones((4, 1), jnp.bfloat16), "other": np.arange(4)}, ends=(10,), hold=49, total_steps=50
    )
