"""Without a regularizer every method equals a transformation of Optax, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramda_jax
from ramda_jax.builders.uncorrected_adam import scale_by_uncorrected_adam
from tests.tiny import array


def trajectory(optimizer, steps=30, seed=0):
    """The iterates under noisy gradients of a quadratic, in float64, as one array."""
    rng = np.random.default_rng(seed)
    params = {"kernel": array(rng.normal(size=(4, 3))), "bias": array(rng.normal(size=3))}
    hessian = {"kernel": array(10.0 ** rng.uniform(-2, 1, size=(4, 3))), "bias": jnp.ones(3)}
    noise = jax.tree.map(lambda p: array(rng.normal(size=(steps, *p.shape))), params)

    def step(carry, noise):
        params, state = carry
        grads = jax.tree.map(lambda h, p, n: h * p + 0.3 * n, hessian, params, noise)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    _, iterates = jax.lax.scan(step, (params, optimizer.init(params)), noise)
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(iterates)])


SCHEDULE = optax.linear_schedule(0.1, 0.01, 30)


def amsgrad_w(learning_rate, weight_decay):
    return optax.chain(
        optax.scale_by_amsgrad(b1=0.8, b2=0.95, eps=1e-8),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ramda_jax.prox_sgd(0.1, b1=0.8), optax.chain(optax.ema(0.8, debias=False), optax.sgd(0.1))),
        (ramda_jax.prox_sgd(SCHEDULE, b1=0.0), optax.sgd(SCHEDULE)),
        (ramda_jax.prox_adamw(0.1), optax.adamw(0.1, weight_decay=0.0)),
        (
            ramda_jax.prox_adamw(SCHEDULE, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1),
            optax.adamw(SCHEDULE, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1),
        ),
        (
            ramda_jax.prox_adamw(0.1, b1=0.8, b2=0.95, weight_decay=0.1, amsgrad=True),
            amsgrad_w(0.1, weight_decay=0.1),
        ),
        (
            ramda_jax.prox_gen(
                0.1,
                transform=optax.scale_by_rms(decay=0.9, eps=1e-8),
                metric=lambda state: jax.tree.map(lambda nu: jnp.sqrt(nu + 1e-8), state.nu),
            ),
            optax.rmsprop(0.1, decay=0.9, eps=1e-8),
        ),
        (
            ramda_jax.prox_gen(
                0.1,
                transform=optax.scale_by_rss(0.1, eps=1e-7),
                metric=lambda state: jax.tree.map(lambda total: jnp.sqrt(total + 1e-7), state.sum_of_squares),
            ),
            optax.adagrad(0.1),
        ),
    ],
    ids=["ema_sgd", "sgd", "adamw", "adamw_decay", "amsgrad", "rmsprop", "adagrad"],
)
def test_method_without_regularizer_is_optax(x64, ours, theirs):
    np.testing.assert_allclose(trajectory(ours), trajectory(theirs), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("averaging", [1.0, 0.1])
def test_ramda_without_regularizer_is_madgrad(x64, averaging):
    # Optax adds eps to the learning rate too (its weights are (lr + eps) sqrt(t)), so ours gets the sum as learning
    # rate.
    eps = 1e-3
    madgrad = optax.contrib.madgrad(0.1, momentum=1 - averaging, eps=eps)
    ours = ramda_jax.ramda(0.1 + eps, averaging=averaging, eps=eps)
    # Optax takes the root of an integer, `count + 1`, which is float32 even under x64.
    np.testing.assert_allclose(trajectory(ours), trajectory(madgrad), rtol=1e-6, atol=1e-7)


def test_prox_ssi_without_regularizer_is_adamw_with_the_correction_in_the_step(x64):
    b1, b2, eps, rate, decay = 0.8, 0.95, 1e-6, 0.1, 0.2

    def update(grads, state, params):
        count, m, v = state
        count = count + 1
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, grads)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, grads)
        factor = rate * jnp.sqrt(1 - b2**count) / (1 - b1**count)

        def change(p, m, v):
            return (p - factor * m / (jnp.sqrt(v) + eps)) * (1 - rate * decay) - p

        return jax.tree.map(change, params, m, v), (count, m, v)

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.zeros([]), zeros, zeros

    naive = optax.GradientTransformation(init, update)
    ours = ramda_jax.prox_ssi(rate, b1=b1, b2=b2, weight_decay=decay)
    np.testing.assert_allclose(trajectory(ours), trajectory(naive), rtol=1e-10, atol=1e-12)


def test_prox_ssi_is_prox_gen_with_the_direction_of_uncorrected_adam(x64):
    eps, decays = 1e-3, {"b1": 0.8, "b2": 0.95}

    def metric(state):
        return jax.tree.map(lambda nu: jnp.sqrt(nu) + eps, state.nu)

    ours = ramda_jax.prox_ssi(0.1, ramda_jax.L1(), 0.01, eps=eps, **decays)
    theirs = ramda_jax.prox_gen(
        0.1, ramda_jax.L1(), 0.01, transform=scale_by_uncorrected_adam(eps=eps, **decays), metric=metric
    )
    np.testing.assert_allclose(trajectory(ours), trajectory(theirs), rtol=1e-10, atol=1e-12)


def test_the_model_has_gradients_that_are_not_rounded_to_the_parameters_dtype():
    # Rounded to bfloat16 all gradients would be 1.
    params, grads = jnp.ones(3, jnp.bfloat16), jnp.asarray([1.001, 1.002, 0.999], jnp.float32)
    builder = ramda_jax.preconditioned(0.1, optax.identity())
    model, _ = builder.update(grads, builder.init(params), params)
    np.testing.assert_array_equal(model.linear, grads)
    # The model is the learning rate times the papers' model.
    assert model.objective_scale == model.weight == jnp.float32(0.1)


def test_a_transformation_that_reads_the_parameters_computes_in_the_dtype_of_the_sums():
    params, grads = jnp.full(3, 1.0078125, jnp.bfloat16), jnp.zeros(3, jnp.bfloat16)
    builder = ramda_jax.preconditioned(0.1, optax.add_decayed_weights(0.3))
    model, _ = builder.update(grads, builder.init(params), params)
    # In bfloat16 the product would be 0.302734375.
    np.testing.assert_array_equal(model.linear, jnp.float32(0.3) * params.astype(jnp.float32))


def test_prox_ssi_first_prox_is_stronger_than_prox_adamw_by_the_missing_correction(x64):
    # After one step on the same gradient the metrics are |g| and sqrt(1 - b2) |g|. So the shrinkage of a nonzero entry,
    # strength * rate / metric, differs by a factor of 1 / sqrt(1 - b2), about 32.
    params = {"kernel": jnp.full((1, 1), 5.0)}
    grads = {"kernel": jnp.full((1, 1), 0.5)}

    def shrinkage(method):
        def point(strength):
            optimizer = method(1e-3, ramda_jax.L1(), strength, eps=1e-12)
            updates, _ = optimizer.update(grads, optimizer.init(params), params)
            return params["kernel"] + updates["kernel"]

        return float((point(0.0) - point(1e-3)).squeeze())

    ratio = shrinkage(ramda_jax.prox_ssi) / shrinkage(ramda_jax.prox_adamw)
    assert ratio == pytest.approx(1 / np.sqrt(1 - 0.999), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ramda_jax.prox_sgd(0.1, b1=1.0), "`b1` must be in [0, 1), got 1.0"),
        (lambda: ramda_jax.prox_adamw(0.1, b2=-0.1), "`b2` must be in [0, 1), got -0.1"),
        (
            lambda: ramda_jax.prox_adamw(0.1, weight_decay=-1.0),
            "`weight_decay` must be finite and at least 0, got -1.0",
        ),
        (lambda: ramda_jax.prox_ssi(0.1, eps=0.0), "`eps` must be finite and above 0, got 0.0"),
    ],
)
def test_method_refuses_bad_numbers_by_name(make, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace(")", r"\)")):
        make()


def test_preconditioned_refuses_what_is_no_transformation():
    with pytest.raises(TypeError, match=r"`transform` must be an `optax.GradientTransformation`, got 0.9; use"):
        ramda_jax.preconditioned(0.1, 0.9)
