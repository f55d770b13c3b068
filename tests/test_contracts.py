"""The design's contracts 1 to 4 and 6, for every factory: exact, pure, unaliased, by path, strict about input."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import ramda_jax
from ramda_jax import GroupLasso, ProximalGradient, SecularNewton
from tests.factories import FACTORIES, factory_id

every_factory = pytest.mark.parametrize("factory", FACTORIES, ids=factory_id)


def make_params(dtype=jnp.float32, seed=0):
    """Two kernels whose first rows have a target and whose others have none, and a bias."""
    rng = np.random.default_rng(seed)
    return {
        "conv": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 4, 5)), dtype), "bias": jnp.zeros(5, dtype)},
        "dense": {"kernel": jnp.asarray(rng.normal(size=(6, 3)), dtype), "bias": jnp.ones(3, dtype)},
    }


def loss(params):
    """Pulls the first input group of each kernel to 2 and all else to 0."""
    conv, dense = params["conv"], params["dense"]
    pull = jnp.sum((conv["kernel"] - jnp.zeros((3, 3, 4, 5)).at[:, :, 0].set(2.0)) ** 2)
    pull += jnp.sum((dense["kernel"] - jnp.zeros((6, 3)).at[0].set(2.0)) ** 2)
    return (pull + jnp.sum((conv["bias"] - 1) ** 2) + jnp.sum((dense["bias"] - 1) ** 2)) / 2


def step(optimizer, params, state):
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


def run(optimizer, params, steps=20, jit=True):
    one_step = jax.jit(lambda p, s: step(optimizer, p, s)) if jit else lambda p, s: step(optimizer, p, s)
    state = optimizer.init(params)
    for _ in range(steps):
        params, state = one_step(params, state)
    return params, state


def supports(params):
    return {k: np.asarray(v) for k, v in ramda_jax.metrics.support(GroupLasso(), params).items()}


# Contract 1: exact structure.


@every_factory
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_what_the_solver_zeroes_is_exactly_zero_after_apply_updates(factory, dtype, jit):
    # So many for ProxSSI, whose metric starts far below its limit and which settles last.
    params, state = run(factory(GroupLasso(), 0.1), make_params(dtype), steps=60, jit=jit)
    radii = optax.tree.get(state, "radii")
    assert sorted(radii) == ["conv/kernel", "dense/kernel"]
    for path, alive in supports(params).items():
        np.testing.assert_array_equal(alive, np.asarray(radii[path]) != 0)
        assert alive.reshape(-1)[0] and not alive.reshape(-1)[1:].any()
    zeros = np.asarray(params["dense"]["kernel"][1:], np.float32)
    assert not np.signbit(zeros).any()


@every_factory
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_eval_params_is_structured_while_the_iterate_is_not(factory, dtype):
    if not factory.averages:
        pytest.skip("its c is 1: eval_params is params")
    params, state = run(factory(GroupLasso(), 0.1, averaging=0.2), make_params(dtype))
    structured = ramda_jax.eval_params(state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(structured, params)
    for alive in supports(params).values():
        assert alive.all()
    for alive in supports(structured).values():
        assert alive.reshape(-1)[0] and not alive.reshape(-1)[1:].any()


@every_factory
def test_learning_rate_zero_changes_no_bit(factory):
    for regularizer, strength in [(None, None), (GroupLasso(), 0.1)]:
        optimizer = factory(regularizer, strength, averaging=0.3, learning_rate=0.0)
        start = make_params()
        params, _ = run(optimizer, start, steps=3)
        chex.assert_trees_all_equal(params, start)


@every_factory
def test_strength_zero_is_the_method_without_regularizer_bit_by_bit(factory):
    with_zero, _ = run(factory(GroupLasso(), 0.0, averaging=0.3), make_params())
    without, _ = run(factory(averaging=0.3), make_params())
    chex.assert_trees_all_equal(with_zero, without)


# Contract 2: pure and stable.


@every_factory
def test_second_step_does_not_recompile(factory):
    optimizer = factory(GroupLasso(), 0.1)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def one_step(params, state):
        return step(optimizer, params, state)

    for seed in range(2):
        params = make_params(seed=seed)
        state = optimizer.init(params)
        for _ in range(3):
            params, state = one_step(params, state)


@every_factory
@pytest.mark.parametrize("regularizer", [GroupLasso(), ramda_jax.NuclearNorm()], ids=["group_lasso", "nuclear"])
def test_without_jit_a_step_compiles_nothing_anew(factory, regularizer, caplog):
    if isinstance(regularizer, ramda_jax.NuclearNorm) and factory.name != "ramda":
        pytest.skip("one will do for the solver that is not by groups")
    optimizer, params = factory({".*/kernel": regularizer}, 0.1), make_params()
    params["other"] = {"kernel": params["dense"]["kernel"] + 1}  # in one batch with its equal
    grads, state = jax.grad(lambda params: optax.tree.norm(params, squared=True))(params), optimizer.init(params)

    def one_step():
        _, new_state = optimizer.update(grads, state, params)
        ramda_jax.eval_params(new_state, params)
        return new_state

    def compiled(function):
        caplog.clear()
        with jax.log_compiles():
            function()
        return [record.message for record in caplog.records if record.message.startswith("Compiling")]

    assert compiled(lambda: jax.jit(lambda x: x + 1)(1.0))  # what is new is seen
    state = one_step()
    state = one_step()
    assert not compiled(one_step)


@every_factory
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "mixed"])
def test_avals_are_stable_under_scan_and_cond(factory, dtype):
    with jax.enable_x64(dtype in ("float64", "mixed")):
        params = make_params(jnp.float32 if dtype == "mixed" else dtype)
        if dtype == "mixed":
            params["dense"] = jax.tree.map(lambda p: p.astype(jnp.float64), params["dense"])
        optimizer = (
            factory(GroupLasso(), 0.1, averaging=ramda_jax.sqrt_growth(0.5), restarts=(2,))
            if (factory.averages)
            else factory(GroupLasso(), 0.1)
        )
        state = optimizer.init(params)

        def update(params, state):
            grads = jax.tree.map(lambda p: p * 0.1, params)
            updates, state = optimizer.update(grads, state, params)
            return updates, state

        # Tracing is enough here: `cond` refuses branches that differ in shape, dtype or weak type.
        updates, new_state = jax.eval_shape(
            lambda flag: jax.lax.cond(flag, lambda: update(params, state), lambda: (params, state)), True
        )
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)

        def body(carry, _):
            params, state = carry
            updates, state = update(params, state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(body, (params, state), length=4)
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(params))


@every_factory
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_updates_have_the_parameters_dtype_and_sums_at_least_float32(factory, dtype):
    optimizer = factory(GroupLasso(), 0.1)
    params = make_params(jnp.float32)
    grads = jax.tree.map(lambda p: p.astype(dtype), params)
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    chex.assert_trees_all_equal_dtypes(updates, params)
    half = jax.tree.map(lambda p: p.astype(dtype), params)
    state = optimizer.init(half)
    anchors = {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.shape == (3, 3, 4, 5)}
    assert anchors <= {jnp.dtype(dtype), jnp.dtype("float32")} and jnp.dtype("float32") in anchors


@every_factory
def test_inject_hyperparams_needs_no_static_args(factory):
    settings = {"averaging": 0.5} if factory.averages else {}
    make = optax.inject_hyperparams(factory.make)
    injected = make(factory.learning_rate, regularizer=GroupLasso(), strength=0.1, **settings)
    assert "strength" in injected.init(make_params()).hyperparams
    plain = factory(GroupLasso(), 0.1, averaging=0.5)
    expected, _ = run(plain, make_params())
    params, state = run(injected, make_params())
    # Injected decays such as b2 are float32 where plain ones are Python's floats: 1 - b2 differs by 5e-5 of itself.
    chex.assert_trees_all_close(params, expected, atol=1e-4)
    state.hyperparams["strength"] = jnp.asarray(1e4)
    params, state = jax.jit(lambda p, s: step(injected, p, s))(params, state)
    # Every group of the structured point (or, with c = 1, of the iterate) is gone at such a strength.
    structured = ramda_jax.eval_params(state, params)
    assert not any(alive.any() for alive in supports(structured).values())


@every_factory
def test_schedules_equal_constants(factory):
    constants = {"strength": 0.1, "averaging": 0.5} if factory.averages else {"strength": 0.1}
    schedules = {name: optax.constant_schedule(value) for name, value in constants.items()}
    rate = factory.learning_rate
    expected, _ = run(factory.make(rate, GroupLasso(), **constants), make_params())
    scheduled, _ = run(factory.make(optax.constant_schedule(rate), GroupLasso(), **schedules), make_params())
    chex.assert_trees_all_equal(scheduled, expected)
    arrays = {name: jnp.asarray(value) for name, value in constants.items()}
    from_arrays, _ = run(factory.make(jnp.asarray(rate), GroupLasso(), **arrays), make_params())
    chex.assert_trees_all_equal(from_arrays, expected)


# Contract 3: nothing aliased.


@every_factory
def test_parameters_and_fresh_state_can_be_donated_together(factory):
    optimizer = factory(GroupLasso(), 0.1)
    expected, _ = run(optimizer, make_params(), steps=2)
    params = make_params()
    donating = jax.jit(lambda p, s: step(optimizer, p, s), donate_argnums=(0, 1))
    params, state = donating(params, optimizer.init(params))
    params, state = donating(params, state)
    chex.assert_trees_all_equal(params, expected)


# Contract 4: resolved by path.


@every_factory
def test_masked_and_partition_regularize_only_what_they_see(factory):
    labels = {"conv": "structured", "dense": "plain"}
    optimizer = optax.partition({"structured": factory(GroupLasso(), 0.1), "plain": optax.sgd(0.1)}, labels)
    params, _ = run(optimizer, make_params())
    alone, _ = run(factory(GroupLasso(), 0.1), make_params())
    chex.assert_trees_all_equal(params["conv"], alone["conv"])
    sgd, _ = run(optax.sgd(0.1), make_params())
    chex.assert_trees_all_close(params["dense"], sgd["dense"], rtol=1e-6)

    masked = optax.masked(
        factory({"conv/kernel": GroupLasso(), "dense/kernel": GroupLasso()}, 0.1), {"conv": True, "dense": False}
    )
    params, _ = run(
        optax.chain(masked, optax.masked(optax.set_to_zero(), {"conv": False, "dense": True})), make_params()
    )
    chex.assert_trees_all_equal(params["conv"], alone["conv"])
    chex.assert_trees_all_equal(params["dense"], make_params()["dense"])


@every_factory
def test_none_leaves_pass_through(factory):
    params = make_params() | {"frozen": None}
    optimizer = factory(GroupLasso(), 0.1)
    grads = jax.grad(loss)(make_params()) | {"frozen": None}
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    assert updates["frozen"] is None
    assert ramda_jax.eval_params(state, params)["frozen"] is None


class Net(nnx.Module):
    """A small net with a normalisation, whose scale and bias must stay unregularized."""

    def __init__(self, rngs):
        self.first = nnx.Linear(8, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.first(x))))


@every_factory
def test_nnx_optimizer_trains_to_structure(factory):
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, factory(GroupLasso(), 0.02), wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(0), (64, 8))
    y = jnp.stack([x[:, 0], jnp.abs(x[:, 0])], axis=1)

    @nnx.jit
    def train_step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
        optimizer.update(model, grads)

    for _ in range(60):
        train_step(model, optimizer)
    params = nnx.state(model, nnx.Param)
    alive = supports(params)
    assert sorted(alive) == ["first/kernel", "out/kernel"]
    assert alive["first/kernel"][0] and not alive["first/kernel"].all()
    structured = ramda_jax.eval_params(optimizer.opt_state, params)
    chex.assert_trees_all_equal(supports(structured), alive)
    assert ramda_jax.solver_info(optimizer.opt_state).converged


@every_factory
def test_linen_train_state_trains_to_structure(factory):
    net = linen.Dense(2)
    x = jax.random.normal(jax.random.key(0), (64, 8))
    params = net.init(jax.random.key(1), x)["params"]
    state = TrainState.create(apply_fn=net.apply, params=params, tx=factory(GroupLasso(), 0.02))

    @jax.jit
    def train_step(state):
        grads = jax.grad(lambda p: jnp.mean((state.apply_fn({"params": p}, x)[:, 0] - x[:, 0]) ** 2))(state.params)
        return state.apply_gradients(grads=grads)

    for _ in range(60):
        state = train_step(state)
    alive = supports(state.params)["kernel"]
    assert alive[0] and not alive[1:].any()


# Contract 6: bad input is refused by name.


@every_factory
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"strength": -1.0}, ValueError, "`strength` must be finite and at least 0, got -1.0; use"),
        ({"strength": float("nan")}, ValueError, "`strength` must be finite and at least 0, got nan; use"),
        ({"strength": None}, ValueError, "`strength` (lambda) must be given with the regularizer GroupLasso("),
        ({"strength": "big"}, TypeError, "`strength` must be a real number or a schedule, got 'big'; use"),
        ({"learning_rate": -0.1}, ValueError, "`learning_rate` must be finite and at least 0, got -0.1; use"),
        ({"averaging": 0.0}, ValueError, "`averaging` must be in (0, 1], got 0.0; use `averaging=1.0`"),
        ({"averaging": 1.5}, ValueError, "`averaging` must be in (0, 1], got 1.5; use `averaging=1.0`"),
        ({"averaging": np.float32(-1)}, ValueError, "`averaging` must be in (0, 1], got "),
        ({"regularizer": 3}, TypeError, "A regularizer must be a `Regularizer` or None, got 3 at ''; use"),
        ({"regularizer": {"a": "l1"}}, TypeError, "A regularizer must be a `Regularizer` or None, got 'l1' at 'a'"),
        ({"regularizer": {"(": GroupLasso()}}, ValueError, "A pattern must be a regular expression, got '('"),
        ({"solver": "newton"}, TypeError, "`solver` must be a `Solver` or None, got 'newton'; use"),
        ({"restarts": (5, 5)}, ValueError, "`restarts` must be positive and increasing, got (5, 5); use"),
        ({"restarts": (0,)}, ValueError, "`restarts` must be positive and increasing, got (0,); use"),
        ({"restarts": (1.5,)}, TypeError, "`restarts` must hold whole numbers, got 1.5 in (1.5,); use"),
    ],
)
def test_factory_refuses_bad_settings_by_name(factory, settings, error, message):
    if not factory.averages and settings.keys() & {"averaging", "restarts"}:
        pytest.skip("takes no such argument")
    settings = {"learning_rate": 0.1, "regularizer": GroupLasso(), "strength": 0.1} | settings
    with pytest.raises(error, match=re.escape(message)):
        factory.make(**settings)


def test_ramda_refuses_eps_of_zero():
    with pytest.raises(ValueError, match=re.escape("`eps` must be finite and above 0, got 0.0; use a small")):
        ramda_jax.ramda(0.1, eps=0.0)


@every_factory
@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"w": jnp.ones((2, 2), jnp.int32)}, TypeError, "real floating-point numbers, got dtype int32 at 'w'; train"),
        ({"w": jnp.ones((2, 2), jnp.complex64)}, TypeError, "got dtype complex64 at 'w'; train such leaves with"),
        ({"w": "text"}, TypeError, "got type str at 'w'"),
        ({"bias": jnp.ones((2, 2))}, ValueError, "given alone selects no leaf"),
    ],
)
def test_init_refuses_bad_parameters_by_name(factory, params, error, message):
    with pytest.raises(error, match=re.escape(message)):
        factory(GroupLasso(), 0.1).init(params)


@every_factory
@pytest.mark.parametrize(
    ("regularizer", "message"),
    [
        ({"kernle": GroupLasso()}, "The pattern 'kernle' matches no leaf. The paths are ['conv/bias', 'conv/kernel',"),
        ({"dense/kernel": GroupLasso((2,))}, "must be axes of the leaf 'dense/kernel', which has 2; use axes from"),
        ({"dense/kernel": GroupLasso("kernel")}, "must go to a convolution's kernel (spatial axes, in, out), but"),
        ({"bias": GroupLasso()}, "must go to a leaf of two axes or more, but 'conv/bias' has 1; leave it out"),
        ({"conv/kernel": GroupLasso((0, -4))}, "must not name an axis twice, but does on the leaf 'conv/kernel'"),
    ],
)
def test_init_refuses_a_regularizer_that_does_not_fit(factory, regularizer, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        factory(regularizer, 0.1).init(make_params())


@every_factory
def test_update_without_params_says_so(factory):
    optimizer = factory(GroupLasso(), 0.1)
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        optimizer.update(make_params(), optimizer.init(make_params()))


def test_closed_form_is_refused_for_group_lasso_in_ramda_but_not_in_rmda():
    ramda_jax.rmda(0.1, GroupLasso(), 0.1, solver=ramda_jax.ClosedForm())
    with pytest.raises(ValueError, match=re.escape("ClosedForm cannot solve GroupLasso(groups='input'")):
        ramda_jax.ramda(0.1, GroupLasso(), 0.1, solver=ramda_jax.ClosedForm())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GroupLasso("rows"), ValueError, "`groups` must be a known name or axes, got 'rows'; use one of"),
        (lambda: GroupLasso(1.5), TypeError, "`groups` must be a name or axes, got 1.5; use"),
        (lambda: GroupLasso((0, 0)), ValueError, "`groups` must not name an axis twice, got (0, 0); use"),
        (lambda: GroupLasso(group_weight="size"), ValueError, "`group_weight` must be one of ("),
        (lambda: GroupLasso(group_weight=-1.0), ValueError, "`group_weight` must be finite and at least 0, got -1.0"),
        (lambda: SecularNewton(max_steps=0), ValueError, "`max_steps` must be at least 1, got 0."),
        (
            lambda: ProximalGradient(max_steps=2.0),
            TypeError,
            "`max_steps` must be a whole number, got 2.0; use an int.",
        ),
        (lambda: ProximalGradient(rtol=-1e-8), ValueError, "`rtol` must be finite and at least 0, got -1e-08; use"),
        (lambda: ProximalGradient(stepsize="row"), ValueError, "`stepsize` must be 'block' or 'leaf', got 'row'."),
        (lambda: ProximalGradient(tolerance=jnp.ones([])), TypeError, "must be Python numbers or functions"),
        (lambda: ramda_jax.proximal_point("l1"), TypeError, "A regularizer must be a `Regularizer` or None"),
    ],
)
def test_parts_refuse_bad_settings_by_name(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


def test_proximal_point_without_a_model_builder_says_so():
    optimizer = optax.chain(optax.sgd(0.1), ramda_jax.proximal_point(GroupLasso(), 0.1))
    params = make_params()
    with pytest.raises(TypeError, match="must be given a `QuadraticModel`, got dict; put a model builder"):
        optimizer.update(params, optimizer.init(params), params)
