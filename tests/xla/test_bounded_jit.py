"""Programs are compiled once for a signature, and at most `size` of them are kept."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from ramda_jax.subproblem.running import at_once, batches
from ramda_jax.xla.bounded_jit import BoundedJit

pytestmark = pytest.mark.usefixtures("quick_collections")


def num_programs():
    gc.collect()
    return len(jax.local_devices()[0].client.live_executables())


def test_a_signature_is_compiled_once_and_all_that_differs_makes_another():
    traces = []
    add = BoundedJit(lambda number, x: traces.append(number) or x + number, num_static=1, size=20)
    for _ in range(2):
        for number in (1, 2):
            for x in (jnp.ones(2), jnp.ones(3), jnp.ones(2, jnp.int32)):
                assert add(number, x).tolist() == (np.asarray(x) + number).tolist()
                assert add(number, x).dtype == (x + number).dtype
    assert len(traces) == len(add) == 6


def test_what_was_not_used_for_longest_goes_and_comes_back_right():
    traces = []
    add = BoundedJit(lambda number, x: traces.append(number) or x + number, num_static=1, size=3)
    for number in (0, 1, 2, 0, 3, 0, 2, 1):
        assert float(add(number, 1.0)) == number + 1
    # 3 replaced 1, and later 1 replaced 3.
    assert traces == [0, 1, 2, 3, 1]
    assert len(add) == 3


def test_programs_that_go_are_freed():
    add = BoundedJit(lambda number, x: x * number + number, num_static=1, size=4)
    before = num_programs()
    for number in range(20):
        add(number, 1.0)
    assert 0 < num_programs() - before <= 4


@pytest.mark.slow
def test_eager_steps_with_many_regularizers_keep_few_programs_and_right_values(monkeypatch):
    params = {"kernel": jnp.array([[3.0, 4.0], [0.1, 0.1]])}
    programs = at_once.PROGRAMS
    assert programs.size >= 100  # enough for the leaves of any network
    monkeypatch.setattr(programs, "size", 2)

    def stepped(weight):
        optimizer = ramda_jax.ramda(0.1, ramda_jax.GroupLasso(group_weight=weight), 0.1)
        return optimizer.update(params, optimizer.init(params), params)[0]["kernel"]

    first = [np.asarray(stepped(1.0)), np.asarray(stepped(2.0))]
    before = num_programs()
    for weight in (3.0, 4.0, 5.0, 6.0):
        stepped(weight)
    assert len(programs) == 2
    assert num_programs() <= before
    np.testing.assert_array_equal(stepped(1.0), first[0])
    assert not np.array_equal(*first)


@pytest.mark.slow_except("SecularNewton")
@pytest.mark.parametrize(
    "solver", [ramda_jax.ProximalGradient(), ramda_jax.SecularNewton()], ids=lambda s: type(s).__name__
)
def test_an_eager_step_in_a_scalar_metric_makes_no_new_program(solver):
    """It also has the same values, and with weight 0 exactly the bits of the center."""
    params = {"kernel": jnp.array([[3.0, 4.0], [0.1, 0.1]])}
    optimizer = ramda_jax.rmda(0.1, ramda_jax.GroupLasso(), 0.1, solver=solver)
    state = optimizer.init(params)
    for _ in range(2):
        updates, _ = optimizer.update(params, state, params)
    before = num_programs()
    optimizer.update(params, state, params)
    assert num_programs() == before
    jitted, _ = jax.jit(optimizer.update)(params, state, params)
    np.testing.assert_allclose(updates["kernel"], jitted["kernel"], rtol=1e-6)
    at_zero = ramda_jax.rmda(0.1, ramda_jax.GroupLasso(), 0.0, solver=solver)
    plain = ramda_jax.rmda(0.1)
    for one, other in zip(
        *(
            jax.tree.leaves(optimizer.update(params, optimizer.init(params), params)[0])
            for optimizer in (at_zero, plain)
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_eager_proxes_of_many_regularizers_keep_few_programs_and_right_values(monkeypatch):
    programs = batches.solve_leaf.programs
    monkeypatch.setattr(programs, "size", 2)
    x, metric = jnp.array([[3.0, 4.0], [0.1, 0.1]]), jnp.array([[1.0, 2.0], [1.0, 2.0]])

    def prox(weight):
        return np.asarray(ramda_jax.prox(ramda_jax.GroupLasso(group_weight=weight), x, 0.1, metric))

    first = prox(1.0)
    for weight in (3.0, 4.0, 5.0, 6.0):
        prox(weight)
    assert len(programs) == 2
    np.testing.assert_array_equal(prox(1.0), first)
    assert not np.array_equal(prox(6.0), first)
