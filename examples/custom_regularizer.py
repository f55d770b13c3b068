"""Your own regularizer: a class with `value` and `prox` works with every method, through proximal gradient.

    python -m examples.custom_regularizer

psi(w) = sum_i |w_i| + w_i^2 / 2, the elastic net, which the library does not have.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

import ramda_jax


@dataclasses.dataclass(frozen=True)  # frozen: the optimizer's state names it
class ElasticNet(ramda_jax.Regularizer):
    """l1 plus half the squared l2 norm."""

    def value(self, w):
        return jnp.sum(jnp.abs(w) + w**2 / 2)

    def prox(self, x, weight):
        shrunk = jnp.sign(x) * jnp.maximum(jnp.abs(x) - weight, 0)
        return shrunk / (1 + weight)


def main(steps=300):
    """Regression with 20 features of which 3 count, by every method."""
    x = jax.random.normal(jax.random.key(0), (500, 20))
    y = x[:, :3] @ jnp.array([[1.0], [-2.0], [3.0]])
    elastic_net = ElasticNet()
    alive = {}
    for method, rate in [("ramda", 0.1), ("rmda", 0.3), ("prox_sgd", 0.1), ("prox_adamw", 0.05), ("prox_ssi", 0.05)]:
        settings = {"averaging": 1.0} if method in ("ramda", "rmda") else {}
        optimizer = getattr(ramda_jax, method)(rate, elastic_net, strength=0.1, **settings)
        params = {"kernel": jnp.ones((20, 1))}
        state = optimizer.init(params)

        @jax.jit
        def step(params, state, update=optimizer.update):
            grads = jax.grad(lambda p: jnp.mean((x @ p["kernel"] - y) ** 2))(params)
            updates, state = update(grads, state, params)
            return optax.apply_updates(params, updates), state

        for _ in range(steps):
            params, state = step(params, state)
        alive[method] = [int(i) for i in jnp.flatnonzero(params["kernel"])]
        print(f"{method:11}features used: {alive[method]}")
    return alive


if __name__ == "__main__":
    main()
