"""JAX's debugging switches, which find silent faults, over all methods, regularizers and functions of a training run.

JAX refuses rank and dtype promotion, and finds leaked tracers, when a step is traced. So each program is traced once
under all of these switches. `OPTAX_PROMOTES` lists where Optax itself promotes.
"""

import gc
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax import metrics
from tests.factories import FACTORIES
from tests.regularizers.cases import CASES
from tests.tiny import apply_step

slow = pytest.mark.slow
#: Optax itself promotes in these: its Adam raises a float to an integer power, and its projection onto the simplex,
#: which the projection onto the l1 ball uses, divides floats by integers.
OPTAX_PROMOTES = ("prox_adamw", "prox_ssi", "Projection simplex", "Projection l1 ball")
#: Zero has no nearest point on the sphere, and Optax's projection of it is NaN.
NOT_AT_ZERO = ("Projection sphere",)
QUICK = ("ramda", "GroupLasso")


def pairs(wanted):
    """Pairs of a method and a regularizer. Only one pair is not slow."""
    return pytest.mark.parametrize(
        ("factory", "name"),
        [
            pytest.param(method, name, id=f"{method.name}-{name}", marks=() if (method.name, name) == QUICK else slow)
            for method, name in wanted
        ],
    )


@pytest.fixture(autouse=True)
def earlier_objects_left_out(quick_collections):
    """Limits the garbage collection and the search for tracers, in each check of leaks, to the test's objects."""
    gc.freeze()


every_pair = pairs([(factory, name) for factory in FACTORIES for name in CASES])


def make(factory, name, dtype=jnp.float32):
    """An optimizer with schedules and a growing average, and parameters: two layers of one shape."""
    case = CASES[name]
    settings = {"averaging": ramda_jax.sqrt_growth(0.5), "restarts": (2,)} if factory.averages else {}
    optimizer = factory({"kernel": case.regularizer}, optax.constant_schedule(0.1), **settings)
    numbers = np.random.default_rng(0)
    params = {
        layer: {"kernel": jnp.asarray(numbers.normal(size=case.shape), dtype), "bias": jnp.zeros(case.shape[-1], dtype)}
        for layer in ("first", "second")
    }
    return optimizer, params


def functions(factory, name):
    """Maps names to functions of (gradients, state, params) that a training run calls under `jit`.

    What does not depend on the method is there for the first method only.
    """
    optimizer, _ = make(factory, name)
    found = {
        "init": lambda grads, state, params: optimizer.init(params),
        "step": lambda grads, state, params: apply_step(optimizer, grads, state, params),
        "eval_params": lambda grads, state, params: ramda_jax.eval_params(state, params),
        "solver_info": lambda grads, state, params: ramda_jax.solver_info(state),
    }
    return found | (measures(name) if factory is FACTORIES[0] else {})


def measures(name):
    """The functions of `functions` that take a regularizer and no optimizer."""
    regularizer = {"kernel": CASES[name].regularizer}
    found = {
        "objective": lambda grads, state, params: metrics.objective(regularizer, params, 1.0, 0.1),
        "changed_groups": lambda grads, state, params: metrics.changed_groups(
            metrics.support(regularizer, params), metrics.support(regularizer, grads)
        ),
    }
    of_params = (
        metrics.group_sparsity, metrics.weighted_group_sparsity, metrics.kernel_sparsity, metrics.unstructured_sparsity,
        metrics.low_rank_level, metrics.numerical_rank, metrics.support,
    )  # fmt: skip
    return found | {
        measure.__name__: lambda grads, state, params, measure=measure: measure(regularizer, params)
        for measure in of_params
    }


@every_pair
def test_no_dtype_is_promoted(factory, name):
    """The parameters are in bfloat16, and the sums in float32."""
    optimizer, params = make(factory, name, jnp.bfloat16)
    state = jax.eval_shape(optimizer.init, params)
    failed, in_optax = {}, False
    for what, function in functions(factory, name).items():
        try:
            with jax.numpy_dtype_promotion("strict"):
                jax.eval_shape(function, params, state, params)
        except (TypeError, ValueError) as error:
            files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
            if "/optax/" in [file for file in files if "/jax/" not in file][-1]:
                in_optax = True
            else:
                failed[what] = str(error)[:200]
    assert failed == {}
    assert in_optax == (factory.name in OPTAX_PROMOTES or name in OPTAX_PROMOTES)


def compile_checked(function, *args):
    """Compiles a function; its trace promotes no rank, leaks no tracer and is well-formed, or the switches raise."""
    with jax.numpy_rank_promotion("raise"), jax.checking_leaks(), jax.enable_checks(True):
        traced = jax.jit(function).trace(*args)
    return traced.lower().compile()


@every_pair
def test_steps_promote_no_rank_leak_nothing_move_nothing_and_make_no_nan(factory, name):
    """One program has all functions. The first step has gradients of 0 at parameters of 0, and three more follow."""
    optimizer, params = make(factory, name)
    every = functions(factory, name)

    def step(grads, state, params):
        params, state = every["step"](grads, state, params)
        return params, state, [every[what](grads, state, params) for what in every if what not in ("init", "step")]

    init = compile_checked(optimizer.init, params)
    state = init(params)
    step = compile_checked(step, params, state, params)
    zeros = params if name in NOT_AT_ZERO else jax.tree.map(jnp.zeros_like, params)
    at_zero = init(zeros)
    with jax.transfer_guard("disallow"), jax.debug_nans(True):
        jax.block_until_ready(step(zeros, at_zero, zeros))
        for _ in range(3):
            params, state, _ = step(params, state, params)
        jax.block_until_ready(params)


@pytest.mark.slow
@pairs([(method, "GroupLasso") for method in FACTORIES[1:]] + [(FACTORIES[0], name) for name in CASES])
def test_eager_steps_make_no_nan_on_the_way(factory, name):
    optimizer, params = make(factory, name)
    for start in (params, params if name in NOT_AT_ZERO else jax.tree.map(jnp.zeros_like, params)):
        with jax.debug_nans(True), jax.numpy_rank_promotion("raise"):
            state = optimizer.init(start)
            updates, state = optimizer.update(start, state, start)
            structured = ramda_jax.eval_params(state, start)
            info = ramda_jax.solver_info(state)
            metrics.layer_table({"kernel": CASES[name].regularizer}, structured)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((updates, structured)))
        assert np.isfinite(info.residual)


def test_each_switch_finds_what_it_is_for():
    vector, matrix = jnp.ones(2), jnp.ones((2, 2))
    with pytest.raises(ValueError, match="rank"):
        compile_checked(jnp.add, vector, matrix)
    with pytest.raises(Exception, match="promotion"), jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(jnp.add, vector, vector.astype(jnp.bfloat16))
    log, sin = compile_checked(jnp.log, vector), compile_checked(jnp.sin, vector)
    with pytest.raises(Exception, match="nan"), jax.debug_nans(True):  # `jit` would raise FloatingPointError
        log(-vector)
    with pytest.raises(Exception, match="Disallowed host-to-device"), jax.transfer_guard("disallow"):
        sin(np.ones(2, np.float32))
    leaked = []
    with pytest.raises(Exception, match="Leaked"):
        compile_checked(lambda x: leaked.append(x) or x, vector)
