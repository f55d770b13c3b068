"""Steps that write one buffer over another buffer, as `check_donation` sees them and as XLA compiles them."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import ramda_jax
from ramda_jax import check_donation

PARAMS = {"kernel": jax.ShapeDtypeStruct((4, 3), jnp.float32), "bias": jax.ShapeDtypeStruct((3,), jnp.float32)}
OPTIMIZER = ramda_jax.ramda(0.1)
STATE = jax.eval_shape(OPTIMIZER.init, PARAMS)


def updated(params, state, grads):
    updates, state = OPTIMIZER.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def swapped(params, state, grads):
    return updated(params, state, grads)[::-1]


def with_loss_first(params, state, grads):
    return jnp.zeros(()), *updated(params, state, grads)


def one_argument(both, grads):
    return updated(*both, grads)


def as_a_dict(training, grads):
    params, state = updated(training["params"], training["state"], grads)
    return {"params": params, "state": state}


def named(grads, *, params, state):
    return updated(params, state, grads)


BOTH = (0, 1)


@pytest.mark.parametrize(
    ("step", "donate", "args"),
    [
        (updated, {"donate_argnums": BOTH}, (PARAMS, STATE, PARAMS)),
        (with_loss_first, {"donate_argnums": BOTH}, (PARAMS, STATE, PARAMS)),
        (lambda state, params, grads: swapped(params, state, grads), {"donate_argnums": BOTH}, (STATE, PARAMS, PARAMS)),
        (as_a_dict, {"donate_argnums": 0}, ({"params": PARAMS, "state": STATE}, PARAMS)),
    ],
)
def test_a_step_that_returns_what_it_takes_in_the_same_order_passes(step, donate, args):
    check_donation(jax.jit(step, **donate), *args)


def test_named_arguments_are_seen():
    check_donation(jax.jit(named, donate_argnames=("params", "state")), PARAMS, params=PARAMS, state=STATE)
    with pytest.raises(ValueError, match="must be donated, but argument `state` is not"):
        check_donation(jax.jit(named, donate_argnames="params"), PARAMS, params=PARAMS, state=STATE)


@pytest.mark.parametrize(
    ("step", "donate", "args", "message"),
    [
        (swapped, BOTH, (PARAMS, STATE, PARAMS), r"result 0 is the next argument 1 .* that of argument 0 at 'bias'"),
        (
            updated,
            0,
            (PARAMS, STATE, PARAMS),
            r"must be donated, but argument 1 is not: .*; use `jax.jit\(step",
        ),
        (updated, (), (PARAMS, STATE, PARAMS), "must be donated, but argument 1 is not"),
        (updated, (0, 1, 2), (PARAMS, STATE, PARAMS | {"bias": PARAMS["bias"]}), None),
    ],
)
def test_a_step_that_writes_one_over_the_other_is_named(step, donate, args, message):
    jitted = jax.jit(step, donate_argnums=donate)
    if message is None:  # two arguments may be the old parameters, so the check cannot decide
        return check_donation(jitted, *args)
    with pytest.raises(ValueError, match=message):
        check_donation(jitted, *args)


def test_what_is_not_jitted_is_refused():
    for step in (updated, nnx.jit(updated, donate_argnums=BOTH)):
        with pytest.raises(TypeError, match=r"must be the result of `jax.jit`, got .*; give `jax.jit\(step"):
            check_donation(step, PARAMS, STATE, PARAMS)


@pytest.mark.parametrize("step", [updated, swapped])
def test_it_tells_of_the_buffers_that_jax_gives(step):
    """The check assumes the aliases that JAX writes into the lowered program."""
    jitted = jax.jit(step, donate_argnums=BOTH, keep_unused=True)
    text = jitted.lower(PARAMS, STATE, PARAMS).as_text()
    found = re.findall(r"%arg(\d+): tensor<[^>]*> \{[^}]*tf.aliasing_output = (\d+)", text)
    places = [int(place) for place, _ in sorted(found, key=lambda pair: int(pair[1]))]
    assert len(places) == len(jax.tree.leaves((PARAMS, STATE)))
    assert (places == sorted(places)) == (step is updated)
