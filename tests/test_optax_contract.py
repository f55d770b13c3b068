"""The properties that Optax demands of its optimizers, for every factory of the library.

`tests/README.md` lists these properties and their tests, made from the marks on the tests. One tree has a leaf for each
regularizer and one without: leaves do not affect each other, so one run tests them all. Optimizers are made once for
all tests, and `tiny.advance` compiles a step of each once.
"""

import functools
import inspect
import re
import tomllib
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import L1, GroupLasso, NuclearNorm
from ramda_jax.structure import named_leaves
from tests import tiny
from tests.factories import FACTORIES, Factory, factory_id

pytestmark = pytest.mark.covering


def prox_rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    regularizer=None,
    strength: ramda_jax.typing.StrengthSpec | None = None,
    *,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    solver=None,
):
    """`prox_gen` with RMSProp, as a user's own factory."""

    def metric(state):
        return jax.tree.map(lambda nu: jnp.sqrt(nu + 1e-8), state.nu)

    rms = optax.scale_by_rms(decay=0.9, eps=1e-8)
    return ramda_jax.prox_gen(
        learning_rate, regularizer, strength, transform=rms, metric=metric, weight_decay=weight_decay, solver=solver
    )


EVERY = [*FACTORIES, Factory(prox_rmsprop, 0.02, averages=False)]
every_factory = pytest.mark.parametrize("factory", EVERY, ids=factory_id)
#: For tests that depend on the chain and not on its numbers: ProxSGD and ProxSSI are chains of the same parts as
#: ProxAdamW.
every_chain = pytest.mark.parametrize(
    "factory",
    [pytest.param(f, marks=pytest.mark.slow if f.name in ("prox_sgd", "prox_ssi") else ()) for f in EVERY],
    ids=factory_id,
)

REGULARIZERS = {"lasso/kernel": L1(), "group/kernel": GroupLasso(), "nuclear/kernel": NuclearNorm()}
#: Without the regularizer whose solver takes seconds to compile.
FEWER = {path: regularizer for path, regularizer in REGULARIZERS.items() if path != "nuclear/kernel"}
#: The fields of states that are trees with the parameters' shapes.
PARAMS_SHAPED = re.compile(r"\.(grad_sum|grad_sq_sum|anchor|ema|mu|nu)\b")
SHAPES = {
    "group": {"kernel": (2, 2, 4, 3)},
    "lasso": {"kernel": (4, 3)},
    "nuclear": {"kernel": (3, 3)},
    "plain": {"bias": (3,)},
}


make_params = functools.partial(tiny.normal_tree, SHAPES)
TARGETS = jax.tree.map(lambda p: 2 * p, make_params(seed=1))
# Half of the groups should become zero.
TARGETS["group"]["kernel"] *= jnp.array([1.0, 0.2, 1.0, 0.2])[:, None]


def gradient(params):
    """The gradient of half the squared distance to `TARGETS`."""
    return jax.tree.map(lambda p, target: p - target.astype(p.dtype), params, TARGETS)


@functools.cache
def make(factory, all_regularizers=False, strength=0.1, averaging=0.5):
    """The optimizer that tests share, with the cheaper regularizers or with all."""
    return factory(REGULARIZERS if all_regularizers else FEWER, strength, averaging=averaging)


def train(optimizer, params=None, num_steps=10):
    return tiny.train(optimizer, gradient, make_params() if params is None else params, num_steps)


def kernels(params, paths=FEWER):
    """Maps paths to NumPy arrays in float32."""
    leaves = dict(named_leaves(params))
    return {path: np.asarray(leaves[path], np.float32) for path in paths}


# The interface.


@every_chain
@pytest.mark.contract("extra arguments are taken")
def test_takes_extra_arguments(factory):
    optimizer = make(factory)
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)
    params = make_params()
    state = optimizer.init(params)
    expected = optimizer.update(gradient(params), state, params)
    actual = optimizer.update(gradient(params), state, params, value=jnp.ones([]), unheard_of="text")
    chex.assert_trees_all_equal(actual, expected)


@every_chain
@pytest.mark.contract("update without params is refused")
def test_update_without_params_is_refused(factory):
    optimizer = make(factory, all_regularizers=True)
    with pytest.raises(ValueError, match="requires the current value of parameters"):
        optimizer.update(make_params(), optimizer.init(make_params()))


@every_chain
@pytest.mark.contract("`optax.tree.map_params`")
def test_map_params_finds_exactly_what_is_shaped_like_the_parameters(factory):
    optimizer = make(factory, all_regularizers=True)
    state = optimizer.init(make_params())
    chex.assert_trees_all_equal(optax.tree.map_params(optimizer, lambda v: v, state), state)
    kinds = optax.tree.map_params(optimizer, lambda v: True, state, transform_non_params=lambda v: False)
    flat, _ = jax.tree_util.tree_flatten_with_path(kinds)
    names = {jax.tree_util.keystr(path): kind for path, kind in flat}
    assert names == {name: PARAMS_SHAPED.search(name) is not None for name in names}
    assert any(names.values()) and not all(names.values())
    # With a tree like the parameters, as for assigning shardings.
    specs = jax.tree.map(lambda p: str(p.shape), make_params())
    placed = optax.tree.map_params(optimizer, lambda v, spec: spec, state, specs, transform_non_params=lambda v: "-")
    for (path, spec), (_, leaf) in zip(
        jax.tree_util.tree_flatten_with_path(placed)[0],
        jax.tree_util.tree_flatten_with_path(state)[0],
        strict=True,
    ):
        assert spec == (str(leaf.shape) if PARAMS_SHAPED.search(jax.tree_util.keystr(path)) else "-")


@every_chain
@pytest.mark.parametrize("params", [{}, (), {"a": None}, {"a": ()}, jnp.ones([]), {"a": jnp.ones([])}], ids=repr)
@pytest.mark.contract("trees without leaves, scalars")
def test_trees_without_leaves_and_of_scalars_work(factory, params):
    for regularizer, strength in [(None, None), (GroupLasso(), 0.1), (NuclearNorm(), 0.1)]:
        optimizer = factory(regularizer, strength)
        state = optimizer.init(params)
        updates, new_state = optimizer.update(params, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes((updates, new_state), (params, state))


@every_chain
@pytest.mark.contract("abstract `init`")
def test_init_works_on_shapes(factory):
    optimizer = make(factory, all_regularizers=True)
    params = make_params()
    state = optimizer.init(params)
    shapes = jax.eval_shape(optimizer.init, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, state)
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(optimizer.init(abstract), state)


@every_chain
@pytest.mark.contract("no recompilation")
def test_second_step_and_fresh_state_do_not_recompile(factory):
    optimizer = make(factory)
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(1)
        return tiny.apply_step(optimizer, gradient(params), state, params, loss=jnp.ones([]))

    for seed in range(2):
        params = make_params(seed=seed)
        state = optimizer.init(params)
        for _ in range(2):
            params, state = step(params, state)
    params, state = step(make_params(), jax.jit(optimizer.init)(make_params()))
    assert len(traces) == 1


@every_chain
@pytest.mark.parametrize("regularizer", [GroupLasso(), NuclearNorm()], ids=["group_lasso", "nuclear"])
@pytest.mark.contract("no recompilation")
def test_without_jit_a_step_compiles_nothing_anew(factory, regularizer, caplog):
    if isinstance(regularizer, NuclearNorm) and factory.name != "ramda":
        pytest.skip("the nuclear norm's solver is the same for all")
    params = {name: {"kernel": jnp.full((4, 3), value)} for name, value in (("first", 1.0), ("twin", 2.0))}
    params["other"] = {"kernel": jnp.ones((2, 2, 4, 3)) if isinstance(regularizer, GroupLasso) else jnp.ones((3, 3))}
    optimizer = factory({".*/kernel": regularizer}, 0.1)
    grads, state = jax.tree.map(lambda p: 2 * p, params), optimizer.init(params)

    def one_step():
        _, new_state = optimizer.update(grads, state, params)
        ramda_jax.eval_params(new_state, params)
        return new_state

    assert tiny.compiled(lambda: jax.jit(lambda x: x + 1)(1.0), caplog)  # a new program is seen
    state = one_step()
    state = one_step()
    assert not tiny.compiled(one_step, caplog)


def cast(params, dtype):
    if dtype != "mixed":
        return jax.tree.map(lambda p: p.astype(dtype), params)
    return {
        name: jax.tree.map(lambda p, dtype=dtype: p.astype(dtype), layer)
        for (name, layer), dtype in zip(params.items(), [jnp.float32, jnp.float64] * 2, strict=True)
    }


def with_growing_average(factory):
    settings = {"restarts": (2,)} if factory.averages else {}
    return factory(REGULARIZERS, 0.1, averaging=ramda_jax.sqrt_growth(0.5), **settings)


@every_chain
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "mixed"])
@pytest.mark.contract("stable avals")
def test_avals_are_stable_in_every_dtype(factory, dtype):
    """Tracing is enough, because `cond` and `scan` refuse changes of shape, dtype or weak type."""
    with jax.enable_x64(dtype in ("float64", "mixed")):
        params = cast(make_params(), dtype)
        optimizer = with_growing_average(factory)

        def both(params, state):
            value = jnp.ones([], jnp.float16)  # another dtype of the loss must not affect the results
            branch = functools.partial(optimizer.update, gradient(params), state, params, value=value)
            cond = jax.lax.cond(params["plain"]["bias"][0] > 0, branch, lambda: (params, state))
            step = lambda carry, _: (optimizer.update(gradient(carry[0]), carry[1], carry[0]), None)  # noqa: E731
            return cond, jax.lax.scan(step, (params, state), length=2)[0]

        state = optimizer.init(params)
        for result in jax.eval_shape(both, params, state):
            chex.assert_trees_all_equal_shapes_and_dtypes(result, (params, state))
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


@pytest.mark.slow
@every_factory
@pytest.mark.parametrize("dtype", ["float16", "float64", "mixed"])
@pytest.mark.contract("stable avals")
def test_steps_and_restarts_are_finite_in_every_dtype(factory, dtype):
    with jax.enable_x64(dtype in ("float64", "mixed")):
        params, state = train(with_growing_average(factory), cast(make_params(), dtype), 4)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((params, state)))


@every_chain
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.contract("updates in the parameters' dtype, sums in at least float32")
def test_updates_have_the_dtype_of_the_parameters_and_sums_at_least_float32(factory, dtype):
    params = make_params()
    grads = cast(gradient(params), dtype)
    for number in (np.float64, np.float16, np.asarray):
        optimizer = factory.make(number(0.125), REGULARIZERS, number(0.125))
        updates, _ = jax.eval_shape(optimizer.update, grads, jax.eval_shape(optimizer.init, params), params)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    with jax.enable_x64(True):
        optimizer = factory.make(jnp.asarray(0.125, jnp.float64), REGULARIZERS, jnp.asarray(0.125, jnp.float64))
        state = jax.eval_shape(optimizer.init, params)
        updates, new_state = jax.eval_shape(optimizer.update, grads, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes((updates, new_state), (params, state))
        # Conversely, wide gradients with narrow parameters.
        narrow = cast(params, dtype)
        state = jax.eval_shape(optimizer.init, narrow)
        updates, new_state = jax.eval_shape(optimizer.update, cast(params, "float64"), state, narrow)
        chex.assert_trees_all_equal_shapes_and_dtypes((updates, new_state), (narrow, state))
    # Of the arrays with parameters' shapes only the anchor has the parameters' dtype, because sums in half precision
    # would stall.
    shapes = {leaf.shape for leaf in jax.tree.leaves(narrow)}
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.shape in shapes}
    assert dtypes <= {jnp.dtype(dtype), jnp.dtype("float32")} and jnp.dtype("float32") in dtypes


# The numbers.


@every_factory
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.contract("zeros exact and positive")
def test_what_the_solver_zeroes_is_exactly_and_positively_zero_after_apply_updates(factory, dtype):
    optimizer = make(factory, strength=1.2, averaging=1.0)
    # ProxSSI takes many steps, because its metric starts far below its limit, and the weight of its psi far above.
    trained = train(optimizer, make_params(dtype), 1500)
    start = make_params(dtype)
    early, later = (start, optimizer.init(start)), trained
    for _ in range(2):  # eager steps, from the start and from the trained state
        early, later = (tiny.apply_step(optimizer, gradient(p), s, p) for p, s in (early, later))
    for params, state in (trained, early, later):
        values = kernels(params)
        for path in FEWER:
            assert not np.signbit(values[path][values[path] == 0]).any()
        radii = np.asarray(optax.tree.get(state, "radii")["group/kernel"])
        assert tiny.alive(values["group/kernel"], -2) == (radii != 0).reshape(-1).tolist()
    for params, _ in (trained, later):
        values = kernels(params)
        assert (values["lasso/kernel"] == 0).any() and (values["lasso/kernel"] != 0).any()
        groups = tiny.alive(values["group/kernel"], -2)
        assert any(groups) and not all(groups)
        # A group is zero or not as a whole.
        assert (values["group/kernel"] != 0).sum() == 12 * sum(groups)


@every_factory
@pytest.mark.parametrize("strength", [None, 0.0])
@pytest.mark.contract("without a regularizer: the same as at strength 0, and convergence")
def test_converges_without_regularizer_on_four_problems(factory, strength):
    """One run has all four, because a method without a regularizer moves each entry separately."""
    tall = jnp.array([[1.0, 2.0], [3.0, -1.0]])

    def parabola(x):
        return jnp.sum((x - jnp.array([1.0, -1.0, 1.0])) ** 2)

    def rosenbrock(x):
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    def matrix(x):
        return jnp.sum((tall @ x - tall) ** 2)

    def mixed(x):
        return jnp.sum((x[1] @ tall - jnp.ones((2, 2)) @ tall) ** 2) + jnp.sum((x[0] - x[1][0]) ** 2)

    problems = {"parabola": parabola, "rosenbrock": rosenbrock, "matrix": matrix, "mixed": mixed}
    solutions = {
        "parabola": jnp.array([1.0, -1.0, 1.0]),
        "rosenbrock": jnp.ones(2),
        "matrix": jnp.eye(2),
        "mixed": (jnp.ones(2), jnp.ones((2, 2))),
    }
    start = jax.tree.map(jnp.zeros_like, solutions) | {"parabola": jnp.array([-1.0, 10.0, 1.0])}
    rate = {"ramda": 1e-2, "rmda": 1e-2, "prox_sgd": 1e-3}.get(factory.name, 3e-3)

    def slopes(params):
        return {name: jax.grad(problem)(params[name]) for name, problem in problems.items()}

    optimizer = factory(None if strength is None else L1(), strength, learning_rate=rate, averaging=0.1)
    params, state = tiny.train(optimizer, slopes, start, 30_000)
    chex.assert_trees_all_close(params, solutions, rtol=3e-2, atol=3e-2)
    assert jax.tree.structure(optax.tree.map_params(optimizer, lambda v: v, state)) == jax.tree.structure(state)


@every_factory
@pytest.mark.contract("closed-form solutions and support")
def test_converges_to_the_closed_form_with_its_support(factory):
    """Half the squared distance to T plus strength psi has the minimiser prox(T)."""
    strength = 1.2
    rate, num_steps = factory.learning_rate, 5000
    if not factory.averages:
        # Methods that divide by the root of recent squared gradients need decreasing steps. ProxSSI's psi is too strong
        # until the average of squares has forgotten its start.
        num_steps = 10_000 if factory.name == "prox_ssi" else 3000
        rate = optax.cosine_decay_schedule(factory.learning_rate, num_steps, 1e-4)
    optimizer = factory(REGULARIZERS, strength, learning_rate=rate, averaging=1.0)
    params, state = train(optimizer, num_steps=num_steps)
    leaves, targets = dict(named_leaves(params)), dict(named_leaves(TARGETS))
    for path, regularizer in REGULARIZERS.items():
        regularizer = regularizer.resolve(path, leaves[path].shape)
        expected = regularizer.prox(targets[path], strength)
        np.testing.assert_allclose(leaves[path], expected, atol=4e-3)
        if path == "nuclear/kernel":
            ranks = [np.linalg.matrix_rank(w, tol=1e-3) for w in (leaves[path], expected)]
            assert ranks[0] == ranks[1] < 3
        else:
            np.testing.assert_array_equal(leaves[path] == 0, expected == 0)
            assert (expected == 0).any() and (expected != 0).any()
    np.testing.assert_allclose(params["plain"]["bias"], TARGETS["plain"]["bias"], atol=4e-3)
    assert ramda_jax.solver_info(state).converged


@every_factory
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_numbers_that_optax_would_round_to_the_parameters_dtype_are_warned_of(factory, dtype):
    """`optax.inject_hyperparams` casts all numbers to the parameters' dtype, and 0.999 is 1 in bfloat16."""
    params = {"kernel": jnp.ones((3, 2), dtype)}
    with pytest.warns(
        UserWarning, match=rf"should be of float32 or wider, got {dtype}.*`hyperparam_dtype=jnp.float32`"
    ):
        optax.inject_hyperparams(factory.make)(0.1, strength=0.1).init(params)
    wide = optax.inject_hyperparams(factory.make, hyperparam_dtype=jnp.float32)(0.1, strength=0.1)
    assert {leaf.dtype for leaf in wide.init(params).hyperparams.values()} == {jnp.dtype("float32")}


@every_chain
@pytest.mark.contract("`inject_hyperparams`")
def test_inject_hyperparams(factory):
    settings = {"averaging": 0.5} if factory.averages else {}
    schedules = {name: optax.constant_schedule(value) for name, value in settings.items()}
    expected, expected_state = train(make(factory))
    # No argument has to be declared static.
    inject = optax.inject_hyperparams(factory.make)
    injected = inject(optax.constant_schedule(factory.learning_rate), regularizer=FEWER, strength=0.1, **schedules)
    params, state = train(injected)
    # Injected decays such as b2 are in float32, and plain ones are Python floats, so 1 - b2 has a relative difference
    # of 5e-5.
    tolerance = 1e-5 if factory.averages or factory.name in ("prox_sgd", "prox_rmsprop") else 1e-4
    chex.assert_trees_all_close(params, expected, atol=tolerance, rtol=tolerance)
    inner = state.inner_state
    for mine, theirs in [(inner[0], expected_state[0]), (inner[2], expected_state[2])]:
        chex.assert_trees_all_close(mine, theirs, atol=tolerance, rtol=tolerance)
    chex.assert_trees_all_close(inner[1].radii, expected_state[1].radii, atol=tolerance, rtol=tolerance)
    # Set a strength by hand: all regularized leaves become zero, and nothing is compiled again.
    state.hyperparams["strength"] = jnp.asarray(1e4, jnp.float32)
    programs = tiny.advance._cache_size()
    params, state = tiny.advance(injected, gradient, params, state, 10)
    assert tiny.advance._cache_size() == programs
    for value in kernels(ramda_jax.eval_params(state, params)).values():
        np.testing.assert_array_equal(value, 0)


@every_chain
@pytest.mark.contract("schedules equal constants")
def test_scalar_array_and_constant_schedule_are_the_same(factory):
    parameters = inspect.signature(factory.make).parameters
    for name in ("learning_rate", "averaging", "eps", "weight_decay"):
        if name in parameters and not (name == "eps" and factory.name != "ramda"):
            assert parameters[name].annotation is optax.ScalarOrSchedule, name
    assert parameters["strength"].annotation == (ramda_jax.typing.StrengthSpec | None)
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters.values())
    values = {"learning_rate": factory.learning_rate, "strength": 0.1}
    values |= {"averaging": 0.5} if factory.averages else {}
    expected, _ = train(make(factory))
    for convert in (jnp.asarray, optax.constant_schedule):
        optimizer = factory.make(regularizer=FEWER, **{name: convert(v) for name, v in values.items()})
        actual, _ = train(optimizer)
        chex.assert_trees_all_equal(actual, expected)


@every_factory
@pytest.mark.contract("learning rate 0")
def test_learning_rate_zero_moves_no_bit(factory):
    def now_and_then(step):
        return jnp.where(step % 2 == 0, 0.1, 0.0)

    for regularizer, strength in [(None, None), (FEWER, now_and_then)]:
        optimizer = factory(regularizer, strength, learning_rate=0.0, averaging=0.3)
        params, _ = train(optimizer, num_steps=3)
        chex.assert_trees_all_equal(params, make_params())


@every_chain
@pytest.mark.contract("donation")
def test_parameters_and_fresh_state_are_donated_together(factory):
    optimizer = make(factory)
    step = jax.jit(lambda p, s: optimizer.update(gradient(p), s, p), donate_argnums=(0, 1))
    params = make_params()
    state = optimizer.init(params)
    # Copy the results, because the new state's anchor is the old state's array.
    expected = jax.tree.map(np.array, optimizer.update(gradient(params), state, params))
    updates, state = step(params, state)
    chex.assert_trees_all_close((updates, state), expected, rtol=1e-5, atol=1e-5)
    step(optax.apply_updates(make_params(), updates), state)  # and again


@every_chain
@pytest.mark.contract("None leaves")
def test_none_leaves_pass_through(factory):
    optimizer, params = make(factory), make_params() | {"frozen": None}
    grads = gradient(make_params()) | {"frozen": None}
    updates, state = jax.eval_shape(optimizer.update, grads, jax.eval_shape(optimizer.init, params), params)
    assert updates["frozen"] is None
    assert jax.eval_shape(ramda_jax.eval_params, state, params)["frozen"] is None
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


@every_chain
@pytest.mark.contract("states found and set by name")
def test_states_are_found_and_set_by_name(factory):
    """`optax.tree.get` finds states and fields, and `set` sets fields, inside inject, MultiSteps and partition."""
    settings = {"averaging": 0.5} if factory.averages else {}
    inject = optax.inject_hyperparams(factory.make)
    injected = inject(factory.learning_rate, regularizer=REGULARIZERS, strength=0.1, **settings)
    assert "strength" in injected.init(make_params()).hyperparams
    labels = {"group": "ours", "lasso": "ours", "nuclear": "ours", "plain": "theirs"}
    optimizer = optax.MultiSteps(optax.partition({"ours": injected, "theirs": optax.adam(0.1)}, labels), 2)
    state = optimizer.init(make_params())
    model = {"ramda": "AdaptiveDualAveragingState", "rmda": "DualAveragingState"}.get(
        factory.name, "PreconditionedState"
    )
    fields = ["model_step", "proximal_step", "radii", "averaging_step"]
    for name in (model, "ProximalPointState", "IterateAveragingState"):
        assert type(optax.tree.get(state, name)).__name__ == name
    for name in fields:
        assert optax.tree.get(state, name) is not None
    changed = optax.tree.set(state, proximal_step=jnp.asarray(7, jnp.int32))
    assert int(optax.tree.get(changed, "proximal_step")) == 7
    assert int(optax.tree.get(changed, "model_step")) == 0
    # No field has a name from Optax's states, so that neither shadows the other.
    own = set(type(optax.tree.get(state, model))._fields) | {"radii", "strength", "info", "problem"}
    assert not own & {"count", "mu", "nu", "trace", "learning_rate", "hyperparams", "inner_state"}


@every_chain
@pytest.mark.contract("`vmap`")
def test_vmap_over_parameters_is_a_loop(factory):
    # RAMDA and RMDA cover the nuclear norm's iterations and its closed form. The rest is the same in the other methods.
    optimizer = make(factory, all_regularizers=factory.averages)
    batch = [make_params(seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batch)
    states = jax.jit(jax.vmap(optimizer.init))(stacked)
    advance = jax.vmap(lambda p, s: tiny.advance(optimizer, gradient, p, s, 5))
    actual, states = jax.jit(advance)(stacked, states)
    for i, params in enumerate(batch):
        expected, state = train(optimizer, params, 5)
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], actual), expected, rtol=1e-4, atol=1e-5)
        structured = ramda_jax.eval_params(jax.tree.map(lambda x, i=i: x[i], states), expected)
        np.testing.assert_array_equal(
            structured["lasso"]["kernel"] == 0, ramda_jax.eval_params(state, expected)["lasso"]["kernel"] == 0
        )


@pytest.mark.contract("examples run, no deprecation")
def test_examples_are_run_and_warnings_are_errors():
    """pytest's settings: it runs the docstrings of the package and fails at any warning."""
    root = Path(__file__).parents[1]
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--doctest-modules" in settings["addopts"] and "ramda_jax" in settings["testpaths"]
    assert settings["filterwarnings"] == ["error"]
    for name in ("ramda", "rmda", "prox_sgd", "prox_adamw", "prox_ssi", "prox_gen", "eval_params", "solver_info"):
        assert ">>> " in getattr(ramda_jax, name).__doc__
    # The package uses only the public interface of Optax and JAX.
    for path in (root / "ramda_jax").rglob("*.py"):
        assert not re.search(r"(import|from) \S*\._src|optax\._src|jax\._src", path.read_text()), path


# Tests of Optax's own battery that are not in the list.


@every_chain
@pytest.mark.contract("`MultiSteps`")
def test_first_micro_step_of_multisteps_does_nothing(factory):
    optimizer = optax.MultiSteps(make(factory), 4)
    params = make_params()
    state = optimizer.init(params)
    updates, _ = optimizer.update(gradient(params), state, params)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
