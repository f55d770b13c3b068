"""Every method with every regularizer trains a small Flax network to the structure that the regularizer promises."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ramda_jax
from ramda_jax import metrics
from tests.factories import FACTORIES


class Net(nnx.Module):
    """Two dense layers. The data depends on a few of the first layer's inputs only."""

    def __init__(self, rngs):
        self.first = nnx.Linear(12, 8, rngs=rngs)
        self.out = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.tanh(self.first(x)))


def data():
    x = jax.random.normal(jax.random.key(0), (256, 12))
    return x, jnp.tanh(x[:, :1] - x[:, 1:2])


@dataclasses.dataclass(frozen=True)
class Case:
    """A regularizer, a strength that is neither too weak nor too strong, and the structure that a kernel must have."""

    regularizer: object
    strength: float
    has_structure: object
    exact_on_iterate: bool = True  # zeros and levels survive W + (W_hat - W); a rank does not

    @property
    def name(self):
        return type(self.regularizer).__name__


def some_entries_zero(w):
    return 0.1 < np.mean(w == 0) < 1


def some_groups_zero(w):
    dead = ~np.any(w != 0, axis=1)
    return 0 < dead.sum() < len(dead)


def rank_is_low(w):
    s = np.linalg.svd(w.astype(np.float64), compute_uv=False)
    return 0 < np.sum(s > s[0] * 1e-5) < min(w.shape)


def some_entries_at(levels, w):
    return np.mean(np.isin(w, np.asarray(levels, w.dtype))) > 0.1


def in_box(lower, upper, w):
    return w.min() >= lower and w.max() <= upper and some_entries_at((lower, upper), w)


def in_ball(w):
    return np.sqrt(np.sum(w.astype(np.float64) ** 2)) <= 1.0 + 1e-5


ball = functools.partial(optax.projections.projection_l2_ball, scale=1.0)

CASES = [
    Case(ramda_jax.Null(), 1.0, lambda w: np.all(w != 0)),
    Case(ramda_jax.L1(), 6e-3, some_entries_zero),
    Case(ramda_jax.GroupLasso(), 6e-3, some_groups_zero),
    Case(ramda_jax.SparseGroupLasso(), 6e-3, some_entries_zero),
    Case(ramda_jax.MCP(omega=1.0), 6e-3, some_entries_zero),
    Case(ramda_jax.GroupMCP(omega=1.0), 6e-3, some_groups_zero),
    Case(ramda_jax.SparseGroupMCP(omega=1.0), 6e-3, some_entries_zero),
    Case(ramda_jax.NuclearNorm(), 2e-2, rank_is_low, exact_on_iterate=False),
    Case(ramda_jax.Box(-0.25, 0.25), 1.0, functools.partial(in_box, -0.25, 0.25)),
    Case(ramda_jax.Binary(), 3e-2, functools.partial(some_entries_at, (-1.0, 1.0))),
    Case(ramda_jax.Quantized((-0.5, 0.0, 0.5)), 6e-3, functools.partial(some_entries_at, (-0.5, 0.0, 0.5))),
    Case(ramda_jax.Projection(ball), 1.0, in_ball),
]
RATES = {"ramda": 0.02, "rmda": 0.3, "prox_sgd": 0.3, "prox_adamw": 0.01, "prox_ssi": 0.003}


@functools.cache
def trained(factory, case, steps=400):
    """(parameters, state, the regularized objective before and after) of a run whose last 100 steps have c = 1."""
    regularizer = {"first/kernel": case.regularizer}
    rate = RATES[factory.name]
    averaging = {"averaging": ramda_jax.stage_growth(0.2, (300,))} if factory.averages else {}
    optimizer = factory(regularizer, case.strength, learning_rate=rate, **averaging)
    graphdef, params = nnx.split(Net(nnx.Rngs(1)), nnx.Param)
    x, y = data()

    def loss(params):
        return jnp.mean((nnx.merge(graphdef, params)(x) - y) ** 2)

    @jax.jit
    def run(params, state):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=steps)[0]

    def objective(params):
        return float(metrics.objective(regularizer, params, loss(params), case.strength))

    before = objective(params)
    after_params, state = run(params, optimizer.init(params))
    return after_params, state, before, objective(after_params), float(loss(params)), float(loss(after_params))


def combination(factory, case):
    """A case; quick are every regularizer with RAMDA, and every method with the group LASSO."""
    is_quick = factory.name == "ramda" or isinstance(case.regularizer, ramda_jax.GroupLasso)
    return pytest.param(factory, case, id=f"{factory.name}-{case.name}", marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize(("factory", "case"), [combination(factory, case) for factory in FACTORIES for case in CASES])
def test_method_trains_to_the_structure_of_the_regularizer(factory, case):
    params, state, before, after, loss_before, loss_after = trained(factory, case)
    # An indicator is infinite outside its set, so there the losses are compared.
    assert after < before if np.isfinite(before) else loss_after < loss_before
    structured = ramda_jax.eval_params(state, params)
    assert case.has_structure(np.asarray(structured["first"]["kernel"][...]))
    if case.exact_on_iterate:
        assert case.has_structure(np.asarray(params["first"]["kernel"][...]))
    assert np.all(np.asarray(params["out"]["kernel"][...]) != 0)  # a leaf without a regularizer has no zeros


def test_binary_network_of_the_iclr_paper_reaches_zero_and_one_exactly_and_stays():
    """The ICLR paper's binary regularizer: alpha, the choice between -1 and 1, is a parameter in a box."""
    x = jax.random.normal(jax.random.key(0), (400, 6))
    target = jnp.array([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
    params = {"w": 0.1 * jnp.ones(6), "alpha": jnp.full(6, 0.5)}

    def loss(params):
        w, alpha = params["w"], params["alpha"]
        penalty = jnp.sum(alpha * (w + 1) ** 2 + (1 - alpha) * (w - 1) ** 2)
        return jnp.mean((x @ w - x @ target) ** 2) + 0.1 * penalty

    optimizer = ramda_jax.rmda(0.1, {"alpha": ramda_jax.Box(0.0, 1.0)}, strength=1.0, averaging=1.0)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["alpha"]

    _, alphas = jax.lax.scan(step, (params, optimizer.init(params)), length=400)
    # alpha is 1 where w should be -1, because the penalty is (w + 1)^2 then.
    expected = np.asarray(target < 0, np.float32)
    reached = np.all(np.asarray(alphas) == expected, axis=1)
    first = int(np.argmax(reached))
    assert reached.any() and first < 300
    assert reached[first:].all()
