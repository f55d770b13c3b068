"""The execution of a solve does not change its result, and each execution serves its purpose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramda_jax
from ramda_jax.xla.execution import PLAIN, InCache, InTurn, Stacked
from tests.tiny import array

SHAPE = (128, 96)
AFTER = jnp.float32(1.0)
RUNS = {"in turn": InTurn(AFTER), "in cache": InCache(AFTER)}


def problem():
    rng = np.random.default_rng(0)
    linear, anchor = (array(rng.standard_normal(SHAPE), jnp.float32) for _ in range(2))
    metric = array(np.exp(rng.standard_normal(SHAPE)), jnp.float32)
    return ramda_jax.QuadraticModel(linear, anchor, metric, jnp.float32(0.5))


def solved(run, radii):
    regularizer = ramda_jax.GroupLasso((0,), group_weight=40.0)
    context = ramda_jax.Context(start=jnp.zeros(SHAPE), radii=radii, run=run)
    return ramda_jax.SecularNewton().solve(problem(), regularizer, context)


def test_a_solver_called_by_hand_gets_the_execution_that_does_nothing():
    assert ramda_jax.Context(start=jnp.zeros(2)).run is PLAIN


@pytest.mark.covering
@pytest.mark.parametrize("start", ["near", "far", "none"])
@pytest.mark.parametrize("run", RUNS)
def test_every_execution_gives_the_solution_of_the_plain_one(run, start):
    exact = solved(PLAIN, None)
    radii = {"near": 1.001 * exact.radii, "far": jnp.full_like(exact.radii, 3.0), "none": None}[start]
    found = solved(RUNS[run], radii)
    assert 0 < np.mean(np.asarray(exact.radii) == 0) < 1
    np.testing.assert_array_equal(found.radii == 0, exact.radii == 0)
    np.testing.assert_allclose(found.value, exact.value, rtol=1e-5, atol=1e-6)


def test_what_is_in_the_cache_is_summed_in_one_pass():
    def reductions_of_several_operands(run):
        program = jax.jit(lambda x: run.sums((x, x * x, x + 1, 2 * x), (1,))).trace(jnp.ones(SHAPE))
        return program.lower(lowering_platforms=("cpu",)).as_text().count("reducer")

    counts = [reductions_of_several_operands(run) for run in (RUNS["in cache"], RUNS["in turn"], PLAIN)]
    assert counts == [1, 0, 0]


def test_leaves_that_are_solved_together_get_the_largest_of_all():
    largest = jax.vmap(Stacked(AFTER).largest, axis_name="leaves")(jnp.array([1.0, 5.0, 2.0]))
    assert largest.tolist() == [5.0] * 3
    assert float(PLAIN.largest(jnp.float32(2.0))) == 2.0
